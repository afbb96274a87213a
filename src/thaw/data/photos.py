"""Which photos there are, with which labels, in which split."""

import csv
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from thaw.errors import ConfigError, check, near


@dataclass(frozen=True)
class Photos:
    """Photo files in a fixed order, and the label of each: an index into `Splits.classes`."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    groups: tuple[str, ...] | None = None  # names: the photos of one must be in one split

    @classmethod
    def of(cls, pairs: Iterable[tuple[Path, int]]) -> "Photos":
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
        """A hash of the files' paths, sizes and times; `cp -p` keeps all but the change time."""
        hashed = hashlib.sha256()
        for path in self.paths:
            facts = path.stat()
            line = f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}\n"
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

    def names(self, part: Photos) -> set[str]:
        """The classes that photos are of."""
        return {self.classes[label] for label in {*part.labels}}

    def change(self, change: Callable[[Photos], Photos]) -> "Splits":
        """Changes each split that has photos; val and test are None if that leaves nothing."""
        parts = {name: change(part) or None for name, part in self.items()}
        return replace(self, **{**parts, "train": parts.get("train") or Photos((), ())})

    def without(self, out: Collection[Path]) -> "Splits":
        return self.change(
            lambda part: part.subset([i for i, path in enumerate(part.paths) if path not in out])
        )

    def only(self, names: Sequence[str]) -> "Splits":
        """The photos of these classes, whose labels are their places; or a ConfigError."""
        rule = "a list of two or more different names, or null"
        check(len({*names}) == len(names) > 1, "data.classes", [*names], rule)
        for name in names:
            if name not in self.classes:
                hint = f"{', '.join(self.classes)}{near(name, self.classes)}"
                raise ConfigError(f"data.classes: there is no class {name!r}. There are: {hint}")
        labels = {self.classes.index(name): label for label, name in enumerate(names)}

        def relabelled(part: Photos) -> Photos:
            kept = part.subset([i for i, label in enumerate(part.labels) if label in labels])
            return replace(kept, labels=tuple(labels[label] for label in kept.labels))

        return replace(self.change(relabelled), classes=tuple(names))

    def write(self, file: Path, folder: Path) -> None:
        """Writes the path from `folder`, split and label of each photo, as data=csv reads them."""
        with file.open("w", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            rows = [(Path(os.path.relpath(path, folder)).as_posix(), name, self.classes[label])
                    for name, part in self.items() for path, label in part.pairs()]  # fmt: skip
            csv.writer(opened, lineterminator="\n").writerows([("path", "split", "label"), *rows])
