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
    "broken": "cannot be decoded: training would stop",
    "conflict": "one picture with two labels: one of them is wrong",
    "across": "one picture in two splits: what is measured there is too good",
    "exact": "the same pixels twice",
    "near": "nearly the same picture twice: a crop, another size, the next of a burst",
    "label": "the label is in doubt, by photos that look alike",
    "model": "the model says another class, and is as sure as of photos that it gets right",
    "outlier": "unlike all others: perhaps off topic",
    "flat": "black, white, one tone or a placeholder",
    "blurry": "no sharp edge; a soft subject looks the same to this measure: look before you leave it out",
    "size": "tiny, huge or very long",
    "name": "content and name are of two formats; thaw goes by the content, others may not",
    "exif": "turned by EXIF; thaw turns it, others may not",
    "mode": "transparent or in another colour mode; thaw makes it RGB on white, others may not",
}
RANK = {"test": 0, "val": 1, "train": 2}  # of two copies the one in the lower rank is kept
Nearest = tuple[Any, Any, Any]  # as find_copies takes it


class Listing(NamedTuple):
    """N photos of a source, their labels (places in `classes`) and the names of their splits.

    `root` is the folder that paths in a skip list are relative to; "" where they are absolute.
    """

    paths: list[Path]
    labels: list[int]
    splits: list[str]
    classes: tuple[str, ...]
    root: str


class Finding(NamedTuple):
    """What was found; of two photos the first would be kept."""

    kinds: tuple[str, ...]  # the one it is shown under comes first
    photos: tuple[int, ...]
    why: str

    def left_out(self, kind: str) -> tuple[int, ...]:
        """The photos that a skip list names: of copies with two labels none can be trusted."""
        return self.photos if kind == "conflict" else self.photos[1:] or self.photos


def of_files(seen: Sequence[Seen]) -> list[Finding]:
    """What is odd about single files."""
    return [Finding((kind,), (n,), why) for n, each in enumerate(seen)
            for kind, why in each.notes.items()]  # fmt: skip


def of_features(
    photos: Listing, seen: Sequence[Seen], cfg: Any, cache: Path
) -> tuple[list[Finding], Nearest]:
    """Labels in doubt and photos unlike all others, each the worst first; and what is nearest."""
    from thaw.tools import check_labels  # it imports scikit-learn and torch

    places = np.array([n for n, each in enumerate(seen) if each.pixels])
    table = check_labels.features(cfg, [str(photos.paths[n].absolute()) for n in places], cache)
    distances, others = check_labels.neighbours(table)
    labels, findings = np.array(photos.labels)[places], []
    for n, likely, share in check_labels.doubts(table, labels, others):
        own, other = photos.classes[labels[n]], photos.classes[likely]
        why = f"{own}? Photos like it are {other}; the share for {own} is {share:.1%}"
        findings.append(Finding(("label",), (int(places[n]),), why))
    for n, far in check_labels.outliers(distances):
        why = f"lies {far:.1f} deviations farther from the others than the middle photo"
        findings.append(Finding(("outlier",), (int(places[n]),), why))
    return findings, (places, distances, others)


def of_copies(photos: Listing, seen: Sequence[Seen], nearest: Nearest | None) -> list[Finding]:
    """Pictures that are there twice, the most alike first."""
    findings, rank = [], [RANK[split] for split in photos.splits]
    for one, two, alike in find_copies(photos.paths, seen, rank, nearest):
        same = seen[one].pixels == seen[two].pixels
        kinds = ["exact" if same else "near"]
        if rank[one] != rank[two]:
            kinds.insert(0, "across")
        if photos.labels[one] != photos.labels[two]:
            kinds.insert(0, "conflict")
        why = "the same pixels" if same else f"correlation {alike:.2f}"
        findings.append(Finding(tuple(kinds), (one, two), why))
    return findings


def by_splits(photos: Listing, findings: Sequence[Finding]) -> list[list[str]]:
    """A table of the copies by pair of splits: exact ones, near ones, those with two labels."""
    rows = [["copies in", "exact", "near", "two labels"]]
    for pair in combinations_with_replacement(RANK, 2):
        own = [each.kinds for each in findings if len(each.photos) == 2
               and sorted(photos.splits[n] for n in each.photos) == sorted(pair)]  # fmt: skip
        if own:
            counts = [sum(kind in each for each in own) for kind in ("exact", "near", "conflict")]
            rows.append([" and ".join(dict.fromkeys(pair)), *map(str, counts)])
    return rows if len(rows) > 1 else []


def class_counts(photos: Listing) -> list[tuple[str, dict[str, int]]]:
    """The classes and their photos in each split, the smallest class first."""
    counts = Counter(zip(photos.labels, photos.splits, strict=True))
    rows = [(name, {split: counts[n, split] for split in reversed(RANK) if split in photos.splits})
            for n, name in enumerate(photos.classes)]  # fmt: skip
    return sorted(rows, key=lambda row: sum(row[1].values()))


def class_notes(photos: Listing) -> list[str]:
    """What is odd about the sizes of the classes, in sentences."""
    rows = class_counts(photos)
    sizes = [sum(counts.values()) for _, counts in rows]
    notes = [f"{len(rows)} classes of {sizes[0]:,} to {sizes[-1]:,} photos: "
             f"1 to {sizes[-1] / max(sizes[0], 1):.1f}."]  # fmt: skip
    odd = {"without photos": [name for (name, _), size in zip(rows, sizes, strict=True) if not size],
           "with one photo": [name for (name, _), size in zip(rows, sizes, strict=True) if size == 1]}
    for split in rows[0][1]:
        odd[f"missing in {split}"] = [name for name, counts in rows if not counts[split]]
    for what, names in odd.items():
        if names:
            notes.append(f"{len(names)} classes {what}{some(names)}.")
    return notes


def some(names: Sequence[str]) -> str:
    """The first ten names, behind a colon."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f": {', '.join(names[:10])}{more}" if names else ""


def of_model(
    run: Path, photos: Listing, findings: Sequence[Finding]
) -> tuple[list[Finding], list[str]]:
    """Test photos whose label the model of a run doubts, and its accuracy without doubtful ones."""
    tested = Predictions.read(run / "predictions.csv")
    places = {str(path.absolute()): n for n, path in enumerate(photos.paths)}
    found = [
        Finding(("model",), (places[tested.paths[n]],),
                f"{tested.classes[tested.labels[n]]}? The model says "
                f"{tested.classes[tested.predicted[n]]} with {tested.probability[n]:.1%}")
        for n in tested.doubted() if tested.paths[n] in places
    ]  # fmt: skip
    doubled, doubtful = set(), set()
    for each in findings:
        if len(each.photos) == 2:
            doubled |= {*each.photos} if "across" in each.kinds else {*each.left_out("exact")}
        elif each.kinds == ("label",):
            doubtful |= {*each.photos}
    own, notes = [places.get(path) for path in tested.paths], []
    for without, what in ((set(), "all test photos"), (doubled, "without doubled ones"),
                          (doubtful, "without labels in doubt"), (doubled | doubtful, "without both")):  # fmt: skip
        kept = np.array([n not in without for n in own])
        notes.append(f"test accuracy {tested.right[kept].mean():.4f} on {kept.sum():,}: {what}")
    return found, notes
