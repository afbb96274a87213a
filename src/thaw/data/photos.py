"""Which photos there are, with which labels, in which split; and picture files in folders."""

import csv
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thaw.errors import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
SUFFIXES += (".ppm", ".pgm", ".avif", ".jp2", ".heic", ".heif")
# What systems and programs leave beside photos, as hidden files are: never photos, never classes
SYSTEM = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}


@dataclass(frozen=True)
class Photos:
    """Photo files in a fixed order, and the label of each: an index into `Splits.classes`."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    groups: tuple[str, ...] | None = None  # names: the photos of one must be in one split

    @classmethod
    def of(cls, pairs: Iterable[tuple[Path, int]]) -> "Photos":
        """The photos of pairs of path and label."""
        paths, labels = zip(*pairs, strict=True) if (pairs := list(pairs)) else ((), ())
        return cls(paths, labels)

    def pairs(self) -> Iterator[tuple[Path, int]]:  # path and label
        return zip(self.paths, self.labels, strict=True)

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: "Photos") -> "Photos":
        groups = self.groups and other.groups and self.groups + other.groups
        return Photos(self.paths + other.paths, self.labels + other.labels, groups)

    def fingerprint(self) -> str:
        """A hash of the files' paths, sizes, and times of modification and of change.

        A file that is replaced by one of equal size and modification time, as `cp -p` does it, has
        another change time.
        """
        hashed = hashlib.sha256()
        for path in self.paths:
            facts = path.stat()
            times = f"{facts.st_mtime_ns} {facts.st_ctime_ns}"
            line = f"{path.resolve()} {facts.st_size} {times}\n"
            hashed.update(line.encode("utf-8", "surrogateescape"))  # file names need not be UTF-8
        return hashed.hexdigest()

    def subset(self, indices: Sequence[int]) -> "Photos":
        """The photos at these indices, in the order of the indices."""
        parts = (self.paths, self.labels, self.groups)
        return Photos(*(part and tuple(part[i] for i in indices) for part in parts))  # pyright: ignore


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

    def items(self) -> list[tuple[str, Photos]]:
        """Name and photos of each split that has some."""
        return [(name, part) for name in ("train", "val", "test") if (part := getattr(self, name))]

    def without(self, out: Collection[Path], setting: str) -> "Splits":
        """Leaves photos out; raises a ConfigError if a class loses all that it is trained on."""
        kept: dict[str, Any] = {
            name: part.subset([i for i, path in enumerate(part.paths) if path not in out]) or None
            for name, part in self.items()
        }
        left = kept["train"].labels if kept["train"] else ()
        if lost := {*self.train.labels}.difference(left):
            raise ConfigError(
                f"{setting}: leaves no training photo of {self.classes[min(lost)]!r}. Keep some, "
                "or leave that class out by data.classes"
            )
        return replace(self, **kept) if out else self

    def write(self, file: Path, folder: Path) -> None:
        """Writes the path from `folder`, split and label of each photo, as data=csv reads them."""
        with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            rows = [(Path(os.path.relpath(path, folder)).as_posix(), name, self.classes[label])
                    for name, part in self.items() for path, label in part.pairs()]  # fmt: skip
            csv.writer(opened, lineterminator="\n").writerows([("path", "split", "label"), *rows])


def picture_files(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and in the folders inside it, told by the ends of their names."""
    return (path for path in all_files(folder) if path.suffix.lower() in SUFFIXES)


def all_files(
    folder: Path, ignored: set[Path] | None = None, above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """The files in a folder and in the folders inside it, linked ones too, as `visible` says."""
    above = (above or frozenset(folder.resolve().parents)) | {folder.resolve()}
    for path in visible(folder, ignored, above):
        yield from all_files(path, ignored, above) if path.is_dir() else [path]


def visible(
    folder: Path, ignored: set[Path] | None = None, above: Collection[Path] = ()
) -> Iterator[Path]:
    """What lies in a folder, in natural order.

    Left out, and added to `ignored`, are hidden files (.DS_Store), SYSTEM's, and links to the
    folders `above`, which would lead round in circles.
    """
    # names alone, since a folder may have a million files
    for name in sorted(os.listdir(folder), key=natural):  # noqa: PTH208
        path = folder / name
        hidden = name.startswith(".") or name.lower() in SYSTEM
        if not hidden and not (above and path.is_symlink() and path.resolve() in above):
            yield path
        elif ignored is not None:
            ignored.add(path)


def natural(name: str) -> str:
    """Sort key: 1, 2, 10, not 1, 10, 2; capitals like small letters.

    Each number stands behind a character that comes before all others, and its number of digits.
    One string takes a sixth of the memory that a list of parts takes.
    """

    def number(found: re.Match[str]) -> str:
        digits = str(int(found[0]))
        return f"\0{chr(len(digits))}{digits}"

    return re.sub(r"\d+", number, name.casefold()) + f"\0\0{name}"
