"""The page of `thaw check`: the photos themselves, by kind of finding; and tables of all photos."""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path

from jinja2 import Environment, StrictUndefined

import thaw.report
from thaw.tools.check_files import Run
from thaw.tools.check_findings import KINDS, Finding, Listing

MOST = 48  # findings of a kind that are shown
SPLITS = ("test", "val", "train")


def write_page(
    page: Path, photos: Listing, findings: Sequence[Finding], notes: Sequence[str], run: Run
) -> Path:
    """Writes the page, which needs nothing else, and returns its path."""
    report = Path(*thaw.report.__path__, "page.html").read_text("utf-8")
    kinds = {kind: [each for each in findings if each.kinds[0] == kind] for kind in KINDS}
    shown = sorted({n for each in kinds.values() for one in each[:MOST] for n in one.photos})
    pictures = run(small, [photos.paths[n] for n in shown], "page")
    template = Path(__file__).with_name("check.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = environment.from_string(template).render(
        style=re.findall("<style>(.*?)</style>", report, re.DOTALL)[0], photos=photos, kinds=KINDS,
        shown={kind: found for kind, found in kinds.items() if found}, most=MOST, notes=notes,
        pictures=dict(zip(shown, pictures, strict=True)), copies=by_splits(photos, findings),
        classes=class_counts(photos),
    )  # fmt: skip
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8", errors="replace")  # file names need not be UTF-8
    return page


def small(path: Path) -> str | None:
    """As on the page of a run."""
    from thaw.report import page  # with torch, which the first process does without

    return page.small(path)


def by_splits(photos: Listing, findings: Sequence[Finding]) -> list[list[str]]:
    """A table of the copies by pair of splits, where there are some."""
    rows = [["copies in", "exact", "near", "two labels"]]
    for pair in combinations_with_replacement(SPLITS, 2):
        own = [each.kinds for each in findings if len(each.photos) == 2
               and tuple(photos.splits[n] for n in each.photos) == pair]  # fmt: skip
        counts = [sum(kind in each for each in own) for kind in ("exact", "near", "conflict")]
        rows += [[" and ".join(pair), *map(str, counts)]] * any(counts)
    return rows[1:] and rows


def class_counts(photos: Listing) -> list[tuple[str, dict[str, int]]]:
    """The classes and their photos in each split, the smallest class first."""
    counts = Counter(zip(photos.labels, photos.splits, strict=True))
    rows = [(name, {split: counts[n, split] for split in SPLITS if split in photos.splits})
            for n, name in enumerate(photos.classes)]  # fmt: skip
    return sorted(rows, key=lambda row: sum(row[1].values()))


def class_notes(photos: Listing) -> list[str]:
    """What is odd about the sizes of the classes, in sentences."""
    rows = class_counts(photos)
    sizes = [sum(counts.values()) for _, counts in rows]
    ratio = f"1 to {sizes[-1] / (sizes[0] or 1):.1f}"
    notes = [f"{len(rows)} classes of {sizes[0]:,} to {sizes[-1]:,} photos, {ratio}."]
    odd = {
        "have one photo": [name for (name, _), size in zip(rows, sizes, strict=True) if size == 1]
    }
    for split in rows[0][1]:
        odd[f"have none in {split}"] = [name for name, counts in rows if not counts[split]]
    return notes + [
        f"{len(names)} classes {what}{some(names)}" for what, names in odd.items() if names
    ]


def some(names: Sequence[str]) -> str:
    """The first ten names, behind a colon."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f": {', '.join(names[:10])}{more}."
