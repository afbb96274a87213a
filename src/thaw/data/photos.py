"""Records: which photos there are, with which labels, in which split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Photos:
    """Photo files in a fixed order, and the label of each: an index into `Splits.classes`."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: "Photos") -> "Photos":
        return Photos(self.paths + other.paths, self.labels + other.labels)

    def subset(self, indices: Sequence[int]) -> "Photos":
        """The photos at these indices, in the order of the indices."""
        return Photos(tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices))

    def fingerprint(self) -> str:
        """A hash of the files' paths, sizes and times of change.

        With the time of the last status change, since `cp -p` keeps the modification time.
        """
        digest = hashlib.sha256()
        for path in self.paths:
            stat = path.stat()
            line = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Splits:
    """The photos of a source.

    Attributes:
        classes: names, in the order of the labels.
        train: the training photos.
        val: None if validation photos are to be drawn from `train`; empty if there shall be none.
        test: None if there are no labelled test photos.
    """

    classes: tuple[str, ...]
    train: Photos
    val: Photos | None
    test: Photos | None
