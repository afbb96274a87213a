"""Labels in doubt and photos unlike all others, by the features of a pretrained backbone."""

import logging
import warnings
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from thaw.data.dataset import PhotoDataset
from thaw.data.loading import choose_workers, make_loader
from thaw.data.photos import Photos
from thaw.tools.check_copies import NEAR, nearest
from thaw.tools.check_files import Array, Seen
from thaw.tools.check_findings import Finding, Listing
from thaw.tools.probe import measure

NEIGHBOURS = 20  # the farthest of them tells an outlier, so that a few alike are still some
VOTES = 10  # the nearest, whose labels count
CLOSE = 0.3  # cosine distance of features up to which two photos may be one picture
FOLDS = 5  # and the least photos of a class for its labels to be judged
# In doubt: the share of the own label is below this part of what chance gives. Of 20 wrong labels
# among 1,000 photos, three draws each, it found 55 of 60 in Flowers102, 54 in Pets and in Dogs vs.
# Cats; the count of confident learning found 35, 44 and 51.
DOUBT = 0.3
FAR = 2.75  # robust standard deviations above the median; of 1,000 normal values 3 are


def look_alike(
    photos: Listing, seen: Sequence[Seen], cfg: Any
) -> tuple[list[Finding], list[tuple[int, int]]]:
    """Labels in doubt and photos unlike all others, each the worst first; and pairs near by."""
    places = np.array([n for n in range(len(photos.paths)) if seen[n].pixels])
    labels = np.array(photos.labels)[places]
    table: Any = normalize(
        features(cfg, Photos.of((photos.paths[n], photos.labels[n]) for n in places))
    )
    findings = []
    for n, likely, share in doubts(table, labels):
        own, other = photos.classes[labels[n]], photos.classes[likely]
        why = f"{own}? Photos like it are {other}; {own} has a share of {share:.1%}"
        findings.append(Finding(("label",), (int(places[n]),), why))
    distances, others = nearest(table, table, NEIGHBOURS + 1)  # the first is the photo itself
    for n, far in outliers(distances):
        why = f"{far:.1f} deviations farther from others than usual"
        findings.append(Finding(("outlier",), (int(places[n]),), why))
    one, two = np.nonzero(distances[:, : NEAR + 1] < CLOSE)
    return findings, [*zip(places[one].tolist(), places[others[one, two]].tolist(), strict=True)]


def features(cfg: Any, photos: Photos) -> Array:
    """Features (N, D) of photos that can be read, as `thaw probe` computes and keeps them."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)

    def source(eval_transform: Any, **_: Any) -> Any:
        workers = cfg.data.num_workers
        if workers is None:
            workers = choose_workers(len(photos), 1, on_cpu=not torch.cuda.is_available())
        dataset = PhotoDataset(photos, eval_transform, eval_transform)
        loader = make_loader(dataset, labels=photos.labels, batch_size=64, num_workers=workers,
                             train=False, seed=0)  # fmt: skip
        return SimpleNamespace(train_dataloader=lambda: loader, val_dataloader=lambda: None)

    return measure([], cfg, every_layer=False, source=source).tables[0][0].numpy()


def doubts(table: Array, labels: Array) -> list[tuple[int, int, float]]:
    """Photos whose label is in doubt, the most doubtful first: place, likely label, share of own.

    Shares are the mean of what a linear classifier and the nearest photos say, both from the other
    folds. Photos are ranked by the share of their own label, the self-confidence of confident
    learning (C. Northcutt et al., arXiv:1911.00068).
    """
    places = np.flatnonzero(np.bincount(labels)[labels] >= FOLDS)
    classes, own = np.unique(labels[places], return_inverse=True)  # 0 to K - 1
    if len(classes) < 2:
        return []
    # C as `thaw probe` chooses it for such features; what does not converge is right all the same
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    both = VotingClassifier(
        [("linear", linear), ("near", KNeighborsClassifier(VOTES))], voting="soft"
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares: Any = cross_val_predict(both, table[places], own, cv=folds, method="predict_proba")
    every = np.arange(len(own))
    given = shares[every, own]
    shares[every, own] = -1
    likely, found = classes[shares.argmax(1)], np.flatnonzero(given < DOUBT / len(classes))
    return [(int(places[n]), int(likely[n]), float(given[n]))
            for n in found[np.argsort(given[found], kind="stable")]]  # fmt: skip


def outliers(distances: Array) -> list[tuple[int, float]]:
    """Photos that lie far from all others, the farthest first, and how many deviations far."""
    last = distances[:, -1] - np.median(distances[:, -1])
    far = last / max(1.4826 * np.median(np.abs(last)), 1e-9)  # 1.4826: of a normal distribution
    return [(int(n), float(far[n])) for n in np.argsort(-far, kind="stable") if far[n] > FAR]
