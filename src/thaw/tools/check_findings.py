"""The findings of `thaw check`: which photos, of which kinds, and why."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thaw.report.predictions import Predictions
from thaw.tools.check_copies import find_copies
from thaw.tools.check_files import Seen

KINDS = {
    "broken": "cannot be decoded: training stops there",
    "conflict": "one picture with two labels",
    "across": "one picture in two splits: what is measured there is too good",
    "exact": "the same pixels twice",
    "near": "nearly the same picture twice: a crop, another size, the next of a burst",
    "label": "the label is in doubt, by photos that look alike",
    "model": "the model says another class, as surely as of photos that it gets right",
    "outlier": "unlike all others: off topic?",
    "flat": "black, white, one tone or a placeholder",
    "blurry": "no sharp edge. A soft subject looks the same to this measure: look first",
    "size": "tiny, huge or very long",
    "name": "content and name are of two formats. thaw goes by the content; others may not",
    "exif": "turned by EXIF. thaw turns it; others may not",
    "mode": "transparent, or another colour mode. thaw makes it RGB on white; others may not",
}
RANK = {"test": 0, "val": 1, "train": 2}  # of two copies the one of the lower rank is kept
Nearest = tuple[Any, Any, Any]  # as find_copies takes it


class Listing(NamedTuple):
    """The photos of a source, their labels (places in `classes`) and the names of their splits."""

    paths: list[Path]
    labels: list[int]
    splits: list[str]
    classes: tuple[str, ...]


class Finding(NamedTuple):
    """One photo, or two of which the first would be kept."""

    kinds: tuple[str, ...]  # it is shown under the first
    photos: tuple[int, ...]
    why: str

    def left_out(self) -> tuple[int, ...]:
        """The photos that a skip list names: of one picture with two labels both."""
        return self.photos if "conflict" in self.kinds else self.photos[1:] or self.photos


def of_features(
    photos: Listing, seen: Sequence[Seen], cfg: Any, cache: Path
) -> tuple[list[Finding], Nearest]:
    """Labels in doubt and photos unlike all others, each the worst first; and what is nearest."""
    from thaw.tools import check_labels  # with torch

    places = np.array([n for n in range(len(photos.paths)) if seen[n].pixels])
    table = check_labels.features(cfg, [str(photos.paths[n].absolute()) for n in places], cache)
    distances, others = check_labels.neighbours(table)
    labels, findings = np.array(photos.labels)[places], []
    for n, likely, share in check_labels.doubts(table, labels, others):
        own, other = photos.classes[labels[n]], photos.classes[likely]
        why = f"{own}? Photos like it are {other}; {own} has a share of {share:.1%}"
        findings.append(Finding(("label",), (int(places[n]),), why))
    for n, far in check_labels.outliers(distances):
        why = f"{far:.1f} deviations farther from others than usual"
        findings.append(Finding(("outlier",), (int(places[n]),), why))
    return findings, (places, distances, others)


def of_copies(photos: Listing, seen: Sequence[Seen], nearest: Nearest | None) -> list[Finding]:
    """Pictures that are there twice, the most alike first."""
    findings, rank = [], [RANK[split] for split in photos.splits]
    for one, two, alike in find_copies(photos.paths, seen[: len(rank)], rank, nearest):
        same = seen[one].pixels == seen[two].pixels
        kinds = (
            *["conflict"] * (photos.labels[one] != photos.labels[two]),
            *["across"] * (rank[one] != rank[two]), "exact" if same else "near",
        )  # fmt: skip
        why = "the same pixels" if same else f"correlation {alike:.2f}"
        findings.append(Finding(kinds, (one, two), why))
    return findings


def by_splits(photos: Listing, findings: Sequence[Finding]) -> list[list[str]]:
    """A table of the copies by pair of splits: exact ones, near ones, those with two labels."""
    rows = [["copies in", "exact", "near", "two labels"]]
    for pair in combinations_with_replacement(RANK, 2):
        own = [each.kinds for each in findings if len(each.photos) == 2
               and tuple(photos.splits[n] for n in each.photos) == pair]  # fmt: skip
        counts = [sum(kind in each for each in own) for kind in ("exact", "near", "conflict")]
        rows.append([" and ".join(pair), *map(str, counts)])
    return rows


def class_counts(photos: Listing) -> list[tuple[str, dict[str, int]]]:
    """The classes and their photos in each split, the smallest class first."""
    counts, splits = Counter(zip(photos.labels, photos.splits, strict=True)), {*photos.splits}
    rows = [(name, {split: counts[n, split] for split in RANK if split in splits})
            for n, name in enumerate(photos.classes)]  # fmt: skip
    return sorted(rows, key=lambda row: sum(row[1].values()))


def class_notes(photos: Listing) -> list[str]:
    """What is odd about the sizes of the classes, in sentences."""
    rows = class_counts(photos)
    sizes = {name: sum(counts.values()) for name, counts in rows}
    least, most = min(sizes.values()), max(sizes.values())
    odd = {"have one photo": [name for name, size in sizes.items() if size == 1]}
    for split in rows[0][1]:
        odd[f"have none in {split}"] = [name for name, counts in rows if not counts[split]]
    ratio = f"1 to {most / (least or 1):.1f}"
    return [f"{len(rows)} classes of {least:,} to {most:,} photos, {ratio}."] + [
        f"{len(names)} classes {what}{some(names)}" for what, names in odd.items() if names
    ]


def some(names: Sequence[str]) -> str:
    """The first ten names, behind a colon."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f": {', '.join(names[:10])}{more}." if names else "."


def of_model(
    run: Path, photos: Listing, findings: Sequence[Finding]
) -> tuple[list[Finding], list[str]]:
    """Test photos whose label the model of a run doubts; its accuracy without odd ones."""
    tested = Predictions.read(run / "predictions.csv")
    places = {str(path.absolute()): n for n, path in enumerate(photos.paths)}
    own, added = np.array([places.get(path, -1) for path in tested.paths]), []
    for n in (n for n in tested.doubted() if own[n] >= 0):
        label, said = tested.classes[tested.labels[n]], tested.classes[tested.predicted[n]]
        why = f"{label}? The model says {said} with {tested.probability[n]:.1%}"
        added.append(Finding(("model",), (int(own[n]),), why))
    doubled = [n for each in findings if len(each.photos) == 2
               for n in (each.photos if "across" in each.kinds else each.left_out())]  # fmt: skip
    doubtful = [n for each in findings if each.kinds == ("label",) for n in each.photos]
    left_out = {"": [], " without copies": doubled, " without labels in doubt": doubtful,
                " without both": doubled + doubtful}  # fmt: skip
    right = {what: tested.right[~np.isin(own, odd)] for what, odd in left_out.items()}
    return added, [f"Test accuracy of the model{what}: {each.mean():.4f} of {len(each):,} photos."
                   for what, each in right.items()]  # fmt: skip
