"""Which photos there are, with which labels, in which split; and picture files in folders."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
SUFFIXES += (".ppm", ".pgm", ".avif", ".jp2")


@dataclass(frozen=True)
class Photos:
    """Photo files in a fixed order, and the label of each: an index into `Splits.classes`."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Iterable[tuple[Path, int]]) -> "Photos":
        """The photos of pairs of path and label."""
        paths, labels = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
        return cls(paths, labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: "Photos") -> "Photos":
        return Photos(self.paths + other.paths, self.labels + other.labels)

    def fingerprint(self) -> str:
        """A hash of the files' paths, sizes, and times of modification and of change.

        A file that is replaced by one of equal size and modification time, as `cp -p` does it, has
        another change time.
        """
        hashed = hashlib.sha256()
        for path in self.paths:
            facts = path.stat()
            times = f"{facts.st_mtime_ns} {facts.st_ctime_ns}"
            hashed.update(f"{path.resolve()} {facts.st_size} {times}\n".encode())
        return hashed.hexdigest()

    def subset(self, indices: Sequence[int]) -> "Photos":
        """The photos at these indices, in the order of the indices."""
        return Photos(tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices))


@dataclass(frozen=True)
class Splits:
    """The photos of a source; `classes` are the names in the order of the labels.

    val is None if validation photos are to be drawn from train, and empty if there shall be none;
    test is None if there are no labelled test photos.
    """

    classes: tuple[str, ...]
    train: Photos
    val: Photos | None
    test: Photos | None


def picture_files(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and in the folders inside it, told by the ends of their names."""
    return (path for path in all_files(folder) if path.suffix.lower() in SUFFIXES)


def all_files(folder: Path) -> Iterator[Path]:
    """The files in a folder and in the folders inside it, without hidden ones."""
    for path in visible(folder):
        yield from all_files(path) if path.is_dir() else [path]


def visible(folder: Path) -> Iterator[Path]:
    """What lies in a folder, in natural order, without hidden files (.DS_Store, ._copy.jpg)."""
    # names alone, since a folder may have a million files
    names = (name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208
    return map(folder.joinpath, sorted(names, key=natural))


def natural(name: str) -> str:
    """Sort key: 1, 2, 10, not 1, 10, 2; capitals like small letters.

    Each number stands behind a character that comes before all others, and its number of digits.
    One string takes a sixth of the memory that a list of parts takes.
    """

    def number(found: re.Match[str]) -> str:
        digits = str(int(found[0]))
        return f"\0{chr(len(digits))}{digits}"

    return re.sub(r"\d+", number, name.casefold()) + f"\0\0{name}"
