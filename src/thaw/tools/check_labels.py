"""Labels in doubt and photos unlike all others, by the features of a pretrained backbone."""

import copy
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from thaw.store import write_json

Array = NDArray[Any]
NEIGHBOURS = 20  # of which the farthest tells an outlier, so that 20 alike of them are still some
VOTES = 10  # the nearest ones, whose labels count
FOLDS = 5
LEAST = 5  # photos of a class, below which its labels are not judged: too few to learn it from
# In doubt: the share of the own label is below this part of what chance gives. With 20 wrong labels
# among 1,000 photos, nine draws, it finds 55 of 60 in Flowers102, 54 in Pets, 54 in Dogs vs. Cats.
DOUBT = 0.3
FAR = 2.75  # robust standard deviations above the median; of 1,000 normal values 3 are


def features(cfg: DictConfig, paths: Sequence[str], cache: Path) -> Array:
    """Features (N, D) of photos that can be read, as `thaw probe` computes and keeps them."""
    from thaw.tools.probe import measure

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    write_json(list(paths), cache / "photos.json")
    cfg = copy.deepcopy(cfg)
    cfg.data = {"_target_": f"{__name__}.Listed", "listing": str(cache / "photos.json"),
                "crop": cfg.data.get("crop", "center")}  # fmt: skip
    return measure([], cfg, every_layer=False).tables[0][0].numpy()


class Listed:
    """Photos of a list in place of a source: all of them, in its order, without labels."""

    def __init__(self, listing: str, crop: str, eval_transform: Any, **_: Any) -> None:
        self.listing, self.crop, self.view = Path(listing), crop, eval_transform

    def train_dataloader(self) -> Any:
        """All photos in their evaluation view."""
        import torch

        from thaw.data.dataset import PhotoDataset
        from thaw.data.loading import make_loader
        from thaw.data.photos import Photos
        from thaw.data.workers import choose_workers

        photos = Photos.of((Path(path), 0) for path in json.loads(self.listing.read_text("utf-8")))
        workers = choose_workers(len(photos), 1, on_cpu=not torch.cuda.is_available())
        return make_loader(PhotoDataset(photos, self.view, self.view), labels=photos.labels,
                           batch_size=64, num_workers=workers, train=False, seed=0)  # fmt: skip

    def val_dataloader(self) -> None:
        """None: all are in the other one."""


def neighbours(table: Array) -> tuple[Array, Array]:
    """Cosine distances to the nearest photos, (N, k), and their places; it compares all with all."""
    from sklearn.neighbors import NearestNeighbors

    number = min(NEIGHBOURS, len(table) - 1)
    return NearestNeighbors(n_neighbors=number, metric="cosine").fit(table).kneighbors()


def doubts(table: Array, labels: Array, nearest: Array) -> list[tuple[int, int, float]]:
    """Photos whose label is in doubt, the most doubtful first: place, likely label, share of its own.

    A share is the mean of two that have not seen the photo's own label: the probability of a linear
    classifier trained on the other folds, and the part of the nearest neighbours with that label.
    Photos are ranked by the share of their own label, the self-confidence of confident learning (C.
    Northcutt et al., arXiv:1911.00068, section 3.2). Its count of errors by class finds 50 of 60
    wrong labels in Dogs vs. Cats, 44 in Pets and 35 in Flowers102, where DOUBT finds 54 and more.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = np.bincount(labels)
    fits = counts[labels] >= LEAST
    if (counts >= LEAST).sum() < 2:
        return []
    classes, places = np.flatnonzero(counts >= LEAST), np.flatnonzero(fits)
    own = np.searchsorted(classes, labels[places])  # 0 to K - 1
    shares = np.zeros((len(places), len(classes)))
    # C as `thaw probe` would choose it on these features; a weak one does not converge, and need not
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=100, tol=1e-3))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for train, held in folds.split(table[places], own):
            model.fit(table[places[train]], own[train])
            shares[held] = model.predict_proba(table[places[held]])
    votes = labels[nearest[places, :VOTES]]  # (N, VOTES)
    for column in votes.T:
        shares += (column[:, None] == classes) / len(votes.T)
    shares /= 2
    given = shares[np.arange(len(own)), own]
    shares[np.arange(len(own)), own] = -1
    found = np.flatnonzero(given < DOUBT / len(classes))
    return [(int(places[n]), int(classes[shares[n].argmax()]), float(given[n]))
            for n in found[np.argsort(given[found], kind="stable")]]  # fmt: skip


def outliers(distances: Array) -> list[tuple[int, float]]:
    """Photos that lie far from all others, the farthest first, and how many deviations far."""
    last = distances[:, -1]
    middle = np.median(last)
    spread = 1.4826 * np.median(np.abs(last - middle))  # a normal distribution's deviation
    far = (last - middle) / max(spread, 1e-9)
    return [(int(n), float(far[n])) for n in np.argsort(-far, kind="stable") if far[n] > FAR]
