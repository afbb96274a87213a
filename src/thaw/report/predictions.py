"""What a model says of labelled photos: predictions.csv, and every figure that follows from it.

A photo is five values, however many classes there are, so that a million photos fit in memory.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thaw.data.photos import Photos
from thaw.data.picture_files import natural
from thaw.errors import ConfigError, reason
from thaw.training.measures import BINS

COLUMNS = ("path", "label", "predicted", "probability", "uncalibrated")
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of N photos of K classes."""

    classes: Sequence[str]  # their names
    paths: Sequence[str]  # files of the photos
    labels: Array  # (N,), places in `classes`
    predicted: Array  # (N,), places in `classes`
    probability: Array  # (N,), of the predicted class, 0-1, calibrated
    uncalibrated: Array  # (N,), the same before the temperature

    @classmethod
    def of(cls, photos: Photos, classes: Sequence[str], table: Array) -> "Predictions":
        """Joins the first N photos with a table (N, 3), see `TransferModule.test_predictions`."""
        files = [str(path.absolute()) for path in photos.paths[: len(table)]]
        labels = np.array(photos.labels[: len(table)])
        return cls(classes, files, labels, table[:, 0].astype(int), table[:, 1], table[:, 2])

    @classmethod
    def read(cls, file: Path, classes: Sequence[str] | None = None) -> "Predictions":
        """Reads what `write` wrote; without `classes` they are those in it, in natural order."""
        try:
            with file.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:
                rows = list(csv.reader(opened))
            if rows[:1] != [[*COLUMNS]] or len(rows) < 2:
                raise ValueError(f"its columns are not {', '.join(COLUMNS)}, with rows")
            columns = [column[1:] for column in zip(*rows, strict=True)]
            paths, *names, calibrated, before = columns
            known = list(classes or sorted({*names[0], *names[1]}, key=natural))
            number = {name: place for place, name in enumerate(known)}
            places = [np.array([number[name] for name in column]) for column in names]
            shares = [np.array(column, float) for column in (calibrated, before)]
            return cls(known, paths, *places, *shares)
        except (csv.Error, ValueError, LookupError) as error:
            raise ConfigError(
                f"{file}: is none of this thaw, or was changed ({reason(error)}); measure the model"
                " again by: thaw evaluate"
            ) from error

    def write(self, file: Path) -> None:
        names = [[self.classes[n] for n in numbers] for numbers in (self.labels, self.predicted)]
        shares = (self.probability, self.uncalibrated)
        cells = [[f"{value:.6f}" for value in values] for values in shares]
        with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(COLUMNS)
            writer.writerows(zip(self.paths, *names, *cells, strict=True))

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def right(self) -> Array:  # (N,) of bool
        return self.labels == self.predicted

    @cached_property
    def by_class(self) -> dict[str, Array]:
        """Of each class (K,): `count`, `precision`, `recall`, `f1`; nan where it is undefined."""
        every = (self.labels, self.predicted, self.labels[self.right])
        count, said, hits = (np.bincount(each, minlength=len(self.classes)) for each in every)
        with np.errstate(invalid="ignore"):  # 0 / 0 is nan
            return {"count": count, "precision": hits / said, "recall": hits / count,
                    "f1": 2 * hits / (said + count)}  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """The metrics that `thaw.training.metrics.Scores` computes, without loss and acc_top5."""
        found = {"acc": self.right.mean(), "acc_macro": np.nanmean(self.by_class["recall"]),
                 "f1": np.nanmean(self.by_class["f1"])}  # fmt: skip
        for name, values in (("ece", self.probability), ("ece_uncalibrated", self.uncalibrated)):
            share, confidence, accuracy = self.reliability(values).T
            found[name] = np.nansum(share * np.abs(confidence - accuracy))
        return {name: float(value) for name, value in found.items()}

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, 0-1: E. B. Wilson's (1927), right near 0 and 1 too."""
        from scipy.stats import binomtest  # which takes long to import

        found = binomtest(int(self.right.sum()), len(self)).proportion_ci(method="wilson")
        return found.low, found.high

    def reliability(self, confidence: Array) -> Array:
        """(N,) -> (BINS, 3): share of photos, mean confidence and accuracy; nan without photos."""
        number = np.clip(np.ceil(np.nan_to_num(confidence) * BINS), 1, BINS).astype(int) - 1
        photos, total, hits = (
            np.bincount(number, values, minlength=BINS)
            for values in (np.ones(len(self)), confidence, self.right)
        )
        with np.errstate(invalid="ignore"):
            return np.stack([photos / len(self), total / photos, hits / photos], axis=1)

    def confusions(self) -> list[tuple[int, int, int, int]]:
        """Pairs of classes that are taken for each other, the most frequent first.

        Each is two places in `classes`, the number of photos of the first that are taken for the
        second, and that of the other way round, which is not larger.
        """
        counts = Counter(zip(self.labels.tolist(), self.predicted.tolist(), strict=True))
        pairs = [(one, two, count, counts[two, one]) for (one, two), count in counts.items()]
        once = [pair for pair in pairs if (pair[2], pair[1]) > (pair[3], pair[0])]  # not of itself
        return sorted(once, key=lambda pair: -pair[2] - pair[3])

    def by_probability(self, chosen: Array) -> Array:
        """Places of the photos where `chosen` (N,) is true, the surest first."""
        places = np.flatnonzero(chosen)
        return places[np.argsort(-self.probability[places], kind="stable")]

    def doubted(self) -> Array:
        """Places of the photos whose label may be wrong, the most doubtful first.

        The model says another class there, and is at least as sure of it as it is on average of
        photos of that class that it gets right: the rule of confident learning
        (arXiv:1911.00068), with one number for each photo.
        """
        number, labels = len(self.classes), self.labels[self.right]
        hits = np.bincount(labels, minlength=number)
        total = np.bincount(labels, self.probability[self.right], minlength=number)
        usual = np.divide(total, hits, out=np.ones(number), where=hits > 0)
        return self.by_probability(~self.right & (self.probability >= usual[self.predicted]))
