"""Labels in doubt and photos unlike all others, by the features of a pretrained backbone."""

import copy
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thaw.data.dataset import PhotoDataset
from thaw.data.loading import make_loader
from thaw.data.photos import Photos
from thaw.data.workers import choose_workers
from thaw.store import write_json
from thaw.tools.probe import measure

Array = NDArray[Any]
NEIGHBOURS = 20  # the farthest of them tells an outlier, so that a few alike are still some
VOTES = 10  # the nearest, whose labels count
FOLDS = 5  # and the least photos of a class for its labels to be judged
# In doubt: the share of the own label is below this part of what chance gives. Of 20 wrong labels
# among 1,000 photos, three draws each, it found 55 of 60 in Flowers102, 54 in Pets and in Dogs vs.
# Cats; the count of confident learning found 35, 44 and 51.
DOUBT = 0.3
FAR = 2.75  # robust standard deviations above the median; of 1,000 normal values 3 are


def features(cfg: Any, paths: Sequence[str], cache: Path) -> Array:
    """Features (N, D) of photos that can be read, as `thaw probe` computes and keeps them."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    write_json(list(paths), cache / "photos.json")
    cfg = copy.deepcopy(cfg)
    cfg.data = {"_target_": f"{__name__}.Listed", "listing": str(cache / "photos.json"),
                "crop": cfg.data.get("crop", "center")}  # fmt: skip
    return measure([], cfg, every_layer=False).tables[0][0].numpy()


class Listed:
    """A source of the photos in a JSON list, in their order, without labels."""

    def __init__(self, listing: str, crop: str, eval_transform: Any, **_: Any) -> None:
        self.listing, self.crop, self.view = Path(listing), crop, eval_transform

    def train_dataloader(self) -> Any:
        """All photos in their evaluation view."""
        photos = Photos.of((Path(path), 0) for path in json.loads(self.listing.read_text("utf-8")))
        workers = choose_workers(len(photos), 1, on_cpu=not torch.cuda.is_available())
        return make_loader(PhotoDataset(photos, self.view, self.view), labels=photos.labels,
                           batch_size=64, num_workers=workers, train=False, seed=0)  # fmt: skip

    def val_dataloader(self) -> None:
        """None."""


def neighbours(table: Array) -> tuple[Array, Array]:
    """Cosine distances to the nearest photos and their places, (N, k): all against all."""
    number = min(NEIGHBOURS, len(table) - 1)
    return NearestNeighbors(n_neighbors=number, metric="cosine").fit(table).kneighbors()


def doubts(table: Array, labels: Array, nearest: Array) -> list[tuple[int, int, float]]:
    """Photos whose label is in doubt, the most doubtful first: place, likely label, share of own.

    Shares are the mean of what a linear classifier says that was trained on the other folds, and of
    the labels of the nearest photos. Photos are ranked by the share of their own label, the
    self-confidence of confident learning (C. Northcutt et al., arXiv:1911.00068).
    """
    counts = np.bincount(labels)
    classes = np.flatnonzero(counts >= FOLDS)
    if len(classes) < 2:
        return []
    places = np.flatnonzero(counts[labels] >= FOLDS)
    own = np.searchsorted(classes, labels[places])  # 0 to K - 1
    every, shares = np.arange(len(own)), np.zeros((len(own), len(classes)))
    # C as `thaw probe` chooses it for such features; what does not converge is right all the same
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for train, held in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(own, own):
            model.fit(table[places[train]], own[train])
            shares[held] = model.predict_proba(table[places[held]]) / 2
    votes = labels[nearest[places, :VOTES]].T  # (k, N)
    for column in votes:
        shares += (column[:, None] == classes) / (2 * len(votes))
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
