"""What a model says of labelled photos: predictions.csv, and every figure that follows from it.

A photo is five values, however many classes there are, so that a million photos fit in memory.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thaw.data.photos import Photos, natural
from thaw.errors import ConfigError, check
from thaw.training.measures import BINS

COLUMNS = ("path", "label", "predicted", "probability", "uncalibrated")
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of N photos of K classes.

    Attributes:
        classes: Names of the classes.
        paths: Files of the photos.
        labels, predicted: (N,), places in `classes`.
        probability: (N,), of the predicted class, 0-1, calibrated.
        uncalibrated: (N,), the same before the temperature; None where that is not known.
    """

    classes: Sequence[str]
    paths: Sequence[str]
    labels: Array
    predicted: Array
    probability: Array
    uncalibrated: Array | None = None

    @classmethod
    def of(cls, photos: Photos, classes: Sequence[str], table: Array) -> "Predictions":
        """Joins the first N photos with a table (N, 3), see `TransferModule.test_predictions`."""
        files = [str(path.absolute()) for path in photos.paths[: len(table)]]
        labels = np.array(photos.labels[: len(table)])
        return cls(classes, files, labels, table[:, 0].astype(int), table[:, 1], table[:, 2])

    @classmethod
    def read(cls, file: Path, classes: Sequence[str] | None = None) -> "Predictions":
        """Reads a table with the columns COLUMNS, of which the last may be missing.

        Args:
            file: CSV in UTF-8, except for file names.
            classes: Names of the classes; None: those that the file names, in natural order, and
                no probability may be nan, as those of a run that went wrong are.

        Raises:
            ConfigError: A column or all rows are missing, a class is unknown, or a probability is
                none.
        """
        # utf-8-sig: Excel writes a mark in front
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            reader = csv.reader(opened)
            lines = [(reader.line_num, row) for row in reader if row] or [(1, [])]
        numbers, (head, *rows) = zip(*lines, strict=True)
        if len(head) == 1 and ";" in head[0]:
            raise ConfigError(
                f"{file}: its columns are separated by ';'; allowed is ','. Save it with commas "
                "between the columns and points in the numbers"
            )
        if any(len(row) != len(head) for row in rows):
            raise ConfigError(f"{file}: has rows of another length than the first line")
        columns = dict(zip(head, zip(*rows, strict=True), strict=False))
        if not {*COLUMNS[:-1]} <= columns.keys():
            raise ConfigError(
                f"{file}: is no table of predictions with rows. Its columns must be path, label "
                "(the true class), predicted (the class that a model says) and probability"
            )
        names = {*columns["label"], *columns["predicted"]}
        known = sorted(names, key=natural) if classes is None else classes
        if unknown := names.difference(known):
            raise ConfigError(f"{file}: has unknown classes: {', '.join(unknown)}")
        place = {name: number for number, name in enumerate(known)}
        places = [np.array([place[name] for name in columns[key]]) for key in COLUMNS[1:3]]
        shares = [
            _shares(dict(zip(numbers[1:], columns[key], strict=True)), file, key, classes is None)
            for key in COLUMNS[3:] if key in columns
        ]  # fmt: skip
        return cls(known, columns["path"], *places, *shares)

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
        z, number, share = 1.96, len(self), self.right.mean()
        middle = share + z * z / (2 * number)
        half = z * (share * (1 - share) / number + z * z / (4 * number * number)) ** 0.5
        scale = 1 + z * z / number
        return (middle - half) / scale, (middle + half) / scale

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
        wrong = ~self.right
        labels, predicted = self.labels[wrong].tolist(), self.predicted[wrong].tolist()
        counts = Counter(zip(labels, predicted, strict=True))
        pairs = [(one, two, count, counts[two, one]) for (one, two), count in counts.items()]
        once = [pair for pair in pairs if (pair[2], pair[1]) > (pair[3], pair[0])]
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


def _shares(cells: Mapping[int, str], file: Path, key: str, finite: bool) -> Array:
    """A column of probabilities, from its cells by their lines; nan is one if not `finite`."""
    found: list[float] = []
    for line, cell in cells.items():
        try:
            value = float(cell)
        except ValueError:
            value = inf
        # 1.0000001 is what a softmax in single precision can give
        fits = 0 <= value < 1 + 1e-6 or (isnan(value) and not finite)
        check(fits, f"{file}, line {line}: {key}", cell, "a number from 0 to 1 (85 % is 0.85)")
        found.append(value)
    return np.array(found)
