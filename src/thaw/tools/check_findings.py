"""What `thaw check` can find, which photos a finding leaves out, and the page that shows them."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from thaw.report import page as report
from thaw.tools.check_files import in_cores

KINDS = {
    "broken": "cannot be decoded: training stops there",
    "damaged": "decoded, but libjpeg says that its data is damaged: a part may be grey or shifted",
    "conflict": "one picture with two labels",
    "across": "one picture in two splits: what is measured there is too good",
    "exact": "the same pixels twice",
    "near": "nearly the same picture twice: a crop, another size, mirrored, the next of a burst",
    "label": "the label is in doubt, by photos that look alike",
    "outlier": "unlike all others: off topic?",
    "flat": "black, white, one tone or a placeholder",
    "blurry": "no sharp edge. A soft subject looks the same to this measure: look first",
    "size": "tiny, huge or very long",
    "name": "content and name are of two formats. thaw goes by the content; others may not",
    "exif": "turned by EXIF. thaw turns it; others may not",
    "mode": "transparent, of several frames, or another colour mode. thaw makes it one RGB picture",
}
SPLITS = ("test", "val", "train")
MOST = 48  # findings of a kind that are shown
TEMPLATE = Path(__file__).with_name("check.html")


class Listing(NamedTuple):
    """The photos of a source: test before val before train, so the first of two copies is kept."""

    paths: Sequence[Path]
    labels: Sequence[int]  # places in classes
    splits: Sequence[str]
    classes: tuple[str, ...]


class Finding(NamedTuple):
    """One photo, or two copies, by their places in the listing."""

    kinds: tuple[str, ...]
    photos: tuple[int, ...]
    why: str


def left_out(asked: Collection[str], findings: Sequence[Finding]) -> dict[int, str]:
    """The photos to leave out for findings of some kinds, and why.

    Of copies one always stays. Only where "conflict" is asked for, both of one picture with two
    labels go, since nobody knows which label is right.
    """
    out: dict[int, str] = {}
    both = "conflict" in asked
    wanted = [(len(each.photos) == 2 and not (both and "conflict" in each.kinds), each)
              for each in findings if {*asked}.intersection(each.kinds)]  # fmt: skip
    # in this order a copy that stays is not left out by a later one
    for one_stays, each in sorted(wanted, key=lambda pair: (pair[0], pair[1].photos)):
        if not one_stays or each.photos[0] not in out:
            gone = each.photos[1:] if one_stays else each.photos
            out |= dict.fromkeys(gone, f"{', '.join(each.kinds)}: {each.why}")
    return out


def by_splits(photos: Listing, findings: Sequence[Finding]) -> list[list[str]]:
    """A table of the copies by pair of splits, where there are some."""
    pairs = [(" and ".join(photos.splits[n] for n in each.photos), each.kinds)
             for each in findings if len(each.photos) == 2]  # fmt: skip
    counts = Counter((pair, kind) for pair, kinds in pairs for kind in kinds)
    rows = [[pair, *(str(counts[pair, kind]) for kind in ("exact", "near", "conflict"))]
            for pair in sorted({pair for pair, _ in pairs})]  # fmt: skip
    return [["copies in", "exact", "near", "two labels"], *rows] if rows else []


def by_class(photos: Listing) -> dict[str, list[int]]:
    """The classes and their photos in each of SPLITS, the smallest class first."""
    counts = Counter(zip(photos.labels, photos.splits, strict=True))
    rows = {name: [counts[n, split] for split in SPLITS] for n, name in enumerate(photos.classes)}
    return dict(sorted(rows.items(), key=lambda row: sum(row[1])))


def write_findings(
    page: Path, photos: Listing, findings: Sequence[Finding], notes: Sequence[str]
) -> None:
    """Writes the page of the photos by kind of finding, which needs nothing else."""
    shown = {kind: found for kind in KINDS
             if (found := [each for each in findings if each.kinds[0] == kind])}  # fmt: skip
    places = sorted({n for each in shown.values() for one in each[:MOST] for n in one.photos})
    pictures = in_cores(report.small, [photos.paths[n] for n in places], "page")
    text = report.fill_template(
        TEMPLATE, style=report.TEMPLATE.read_text("utf-8").split("style>")[1].removesuffix("</"),
        photos=photos, kinds=KINDS, shown=shown, most=MOST, notes=notes,
        pictures=dict(zip(places, pictures, strict=True)),
        copies=by_splits(photos, findings), classes=by_class(photos), splits=SPLITS,
    )  # fmt: skip
    page.write_text(text, encoding="utf-8", errors="replace")  # file names need not be UTF-8
