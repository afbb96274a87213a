"""What a model says of labelled photos: predictions.csv, and every figure that follows from it.

A photo is five values, however many classes there are, so that a million photos fit in memory.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thaw.data.photos import Photos, natural
from thaw.errors import ConfigError
from thaw.training.measures import BINS

COLUMNS = ("path", "label", "predicted", "probability", "uncalibrated")
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


class Confusion(NamedTuple):
    """Two classes, places in `Predictions.classes`, that are taken for each other."""

    one: int
    two: int
    one_as_two: int  # photos of `one` that are taken for `two`, not fewer than the other way round
    two_as_one: int


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
    labels: Ints
    predicted: Ints
    probability: Floats
    uncalibrated: Floats | None = None

    @classmethod
    def of(cls, photos: Photos, classes: Sequence[str], table: Floats) -> "Predictions":
        """Joins photos with a table (N, 3): predicted class, its probability, and uncalibrated.

        A table that is shorter than `photos` is of the first ones.
        """
        files = [str(path.absolute()) for path in photos.paths[: len(table)]]
        labels = np.array(photos.labels[: len(table)])
        return cls(classes, files, labels, table[:, 0].astype(int), table[:, 1], table[:, 2])

    @classmethod
    def read(cls, file: Path, classes: Sequence[str] | None = None) -> "Predictions":
        """Reads a table with the columns COLUMNS; the last one may be missing.

        Args:
            file: CSV, in UTF-8.
            classes: Names of the classes; None: those that the file names, in natural order.

        Raises:
            ConfigError: A column, a number or every row is missing, or a class is unknown.
        """
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as opened:
            rows = csv.DictReader(opened)
            if missing := set(COLUMNS[:-1]) - set(rows.fieldnames or ()):
                raise ConfigError(
                    f"{file}: has no column {', '.join(sorted(missing))}. Needed are path, label "
                    "(the true class), predicted (the class that a model says) and probability"
                )
            table = list(rows)
        names = {row[column] for row in table for column in ("label", "predicted")}
        known = sorted(names, key=natural) if classes is None else classes
        place = {name: number for number, name in enumerate(known)}
        if not table or names - set(place):
            what = f"has unknown classes: {', '.join(names - set(place))}" if table else "is empty"
            raise ConfigError(f"{file}: {what}")
        columns = {name: [row[name] for row in table] for name in rows.fieldnames or ()}
        labels, predicted = (
            np.array([place[name] for name in columns[column]]) for column in COLUMNS[1:3]
        )
        try:
            numbers = [np.array(columns[name], float) for name in COLUMNS[3:] if name in columns]
        except ValueError as error:
            raise ConfigError(f"{file}: a probability is no number ({error})") from error
        return cls(known, columns["path"], labels, predicted, *numbers)

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
    def right(self) -> NDArray[np.bool_]:  # (N,)
        return self.labels == self.predicted

    @cached_property
    def by_class(self) -> dict[str, Floats]:
        """Of each class (K,): `count`, `precision`, `recall`, `f1`; nan where it is undefined."""
        number = len(self.classes)
        count = np.bincount(self.labels, minlength=number)
        said = np.bincount(self.predicted, minlength=number)
        hits = np.bincount(self.labels[self.right], minlength=number)
        with np.errstate(invalid="ignore"):  # 0 / 0 is nan
            precision, recall, f1 = hits / said, hits / count, 2 * hits / (said + count)
        return {"count": count.astype(float), "precision": precision, "recall": recall, "f1": f1}

    def metrics(self) -> dict[str, float]:
        """The metrics that `thaw.training.metrics.Scores` computes, without loss and acc_top5."""
        found = {
            "acc": float(self.right.mean()),
            "acc_macro": float(np.nanmean(self.by_class["recall"])),
            "f1": float(np.nanmean(self.by_class["f1"])),
            "ece": calibration_error(self.reliability(self.probability)),
        }
        if self.uncalibrated is not None:
            found["ece_uncalibrated"] = calibration_error(self.reliability(self.uncalibrated))
        return found

    def reliability(self, confidence: Floats) -> Floats:
        """Photos in bins of equal width by their confidence (N,), 0-1.

        Returns:
            (BINS, 3): share of all photos, mean confidence and accuracy of each bin; nan for the
            last two where a bin is empty.
        """
        number = np.clip(np.ceil(np.nan_to_num(confidence) * BINS), 1, BINS).astype(int) - 1
        sums = [
            np.bincount(number, weights=values, minlength=BINS)
            for values in (np.ones(len(self)), confidence, self.right.astype(float))
        ]
        with np.errstate(invalid="ignore"):
            return np.stack([sums[0] / len(self), sums[1] / sums[0], sums[2] / sums[0]], axis=1)

    def confusions(self) -> list[Confusion]:
        """All pairs of classes that are taken for each other, the most frequent first."""
        wrong = ~self.right
        labels, predicted = self.labels[wrong].tolist(), self.predicted[wrong].tolist()
        counts = Counter(zip(labels, predicted, strict=True))
        found = [
            Confusion(one, two, count, counts[two, one])
            for (one, two), count in counts.items()
            if (count, two) > (counts[two, one], one)  # each pair once
        ]
        return sorted(found, key=lambda each: -each.one_as_two - each.two_as_one)

    def doubted(self) -> Ints:
        """Places of the photos whose label may be wrong, the most doubtful first.

        The model says another class there, and is at least as sure of it as it is on average of
        photos of that class that it gets right: the rule of confident learning
        (arXiv:1911.00068), with one number for each photo.
        """
        number = len(self.classes)
        hits = np.bincount(self.labels[self.right], minlength=number)
        total = np.bincount(
            self.labels[self.right], weights=self.probability[self.right], minlength=number
        )
        usual = np.divide(total, hits, out=np.ones(number), where=hits > 0)
        places = np.flatnonzero(~self.right & (self.probability >= usual[self.predicted]))
        return places[np.argsort(-self.probability[places], kind="stable")]


def calibration_error(reliability: Floats) -> float:
    """The mean over photos of the gap between the confidence and the accuracy of their bin."""
    share, confidence, accuracy = reliability.T
    return float(np.nansum(share * np.abs(confidence - accuracy)))


def wilson(hits: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share, 0-1 (E. B. Wilson, 1927): right for shares near 0 and 1 too."""
    z = 1.96
    share, scale = hits / number, 1 + z * z / number
    middle = (share + z * z / (2 * number)) / scale
    half = z / scale * (share * (1 - share) / number + z * z / (4 * number * number)) ** 0.5
    return middle - half, middle + half
