"""What `thaw check` can find, and which photos a finding leaves out."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

KINDS = {
    "broken": "cannot be decoded: training stops there",
    "damaged": "decoded, but libjpeg says that its data is damaged: a part may be grey or shifted",
    "conflict": "one picture with two labels",
    "across": "one picture in two splits: what is measured there is too good",
    "exact": "the same pixels twice",
    "near": "nearly the same picture twice: a crop, another size, mirrored, the next of a burst",
    "label": "the label is in doubt, by photos that look alike",
    "model": "the model says another class, as surely as of photos that it gets right",
    "outlier": "unlike all others: off topic?",
    "flat": "black, white, one tone or a placeholder",
    "blurry": "no sharp edge. A soft subject looks the same to this measure: look first",
    "size": "tiny, huge or very long",
    "name": "content and name are of two formats. thaw goes by the content; others may not",
    "exif": "turned by EXIF. thaw turns it; others may not",
    "mode": "transparent, of several frames, or another colour mode. thaw makes it one RGB picture",
}


class Listing(NamedTuple):
    """The photos of a source: test before val before train, so the first of two copies is kept."""

    paths: list[Path]
    labels: list[int]  # places in classes
    splits: list[str]
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
