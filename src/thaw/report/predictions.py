"""What a model says of labelled photos: predictions.csv, and every figure that follows from it.

A photo is five values, however many classes there are, so that a million photos fit in memory.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thaw.data.photos import Photos, natural
from thaw.errors import ConfigError
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
    uncalibrated: Array | None = None  # (N,), the same before the temperature; None: not known

    @classmethod
    def of(cls, photos: Photos, classes: Sequence[str], table: Array) -> "Predictions":
        """Joins the first N photos with a table (N, 3), see `TransferModule.test_predictions`."""
        files = [str(path.absolute()) for path in photos.paths[: len(table)]]
        labels = np.array(photos.labels[: len(table)])
        return cls(classes, files, labels, table[:, 0].astype(int), table[:, 1], table[:, 2])

    @classmethod
    def read(cls, file: Path, classes: Sequence[str] | None = None) -> "Predictions":
        """Reads a table with the columns COLUMNS, of which the last may be missing.

        Without `classes` they are those that the file names, in natural order, and no probability
        may be nan, as those of a run that went wrong are. ConfigError: the table is no such one.
        """
        cells: dict[str, list[str]] = {}
        # utf-8-sig: Excel writes a mark in front
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            reader = csv.DictReader(opened)
            try:
                for row in reader:
                    if None in row or None in row.values():
                        raise csv.Error("has another number of cells than the first line")
                    for key in row.keys() & {*COLUMNS}:
                        cells.setdefault(key, []).append(row[key])
                        if key in COLUMNS[3:] and not _is_share(row[key], classes is not None):
                            allowed = "allowed is a number from 0 to 1 (85 % is 0.85)"
                            raise csv.Error(f"{key}={row[key]}: {allowed}")
            except csv.Error as error:
                raise ConfigError(f"{file}, line {reader.line_num}: {error}") from error
        if not {*COLUMNS[:-1]} <= cells.keys():
            raise ConfigError(
                f"{file}: is no table of predictions with rows. Its columns must be path, label "
                "(the true class), predicted (the class that a model says) and probability, with "
                "commas between them and points in the numbers"
            )
        names = {*cells["label"], *cells["predicted"]}
        known = sorted(names, key=natural) if classes is None else classes
        if unknown := names.difference(known):
            raise ConfigError(f"{file}: has unknown classes: {', '.join(unknown)}")
        number = {name: place for place, name in enumerate(known)}
        places = [np.array([number[name] for name in cells[key]]) for key in COLUMNS[1:3]]
        shares = [np.array(cells[key], float) for key in COLUMNS[3:] if key in cells]
        return cls(known, cells["path"], *places, *shares)

    def write(self, file: Path) -> None:
        """Writes the table that `read` reads."""
        names = [[self.classes[n] for n in numbers] for numbers in (self.labels, self.predicted)]
        shares = [each for each in (self.probability, self.uncalibrated) if each is not None]
        cells = [[f"{value:.6f}" for value in values] for values in shares]
        with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(COLUMNS[: 3 + len(cells)])
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
            if values is not None:
                share, confidence, accuracy = self.reliability(values).T
                found[name] = np.nansum(share * np.abs(confidence - accuracy))
        return {name: float(value) for name, value in found.items()}

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, 0-1: E. B. Wilson's (1927), right near 0 and 1 too."""
        from scipy.stats import binomtest  # which takes long to import

        found = binomtest(int(self.right.sum()), len(self)).proportion_ci(method="wilson")
        return found.low, found.high

    def reliability(self, confidence: Array) -> Array:
        """Photos in BINS bins of equal width by their confidence (N,), 0-1.

        Returns:
            (BINS, 3): share of all photos, mean confidence and accuracy; nan where there are none.
        """
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


def _is_share(cell: str, may_be_nan: bool) -> bool:
    try:  # 1.0000001 is what a softmax in single precision can give
        return 0 <= float(cell) < 1 + 1e-6 or (may_be_nan and isnan(float(cell)))
    except ValueError:
        return False
