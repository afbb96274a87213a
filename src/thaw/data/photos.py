"""Records: which photos there are, with which labels, in which split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Photos:
    """Photo files and their labels (0-based, an index into `Splits.classes`), in a fixed order."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.paths) == len(self.labels)

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        """A hash of the files' paths, sizes and times of change."""
        known = hashlib.sha256()
        for path in self.paths:
            facts = path.stat()
            known.update(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}\n".encode())
        return known.hexdigest()

    def joined(self, other: "Photos") -> "Photos":
        return Photos(self.paths + other.paths, self.labels + other.labels)

    def pick(self, indices: list[int]) -> "Photos":
        return Photos(tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices))


@dataclass(frozen=True)
class Splits:
    """What a source found.

    classes:  names in label order
    val:      None: to be drawn from train; empty: the protocol has none (a refit on everything)
    test:     None: there are no labelled test photos
    """

    classes: tuple[str, ...]
    train: Photos
    val: Photos | None
    test: Photos | None
