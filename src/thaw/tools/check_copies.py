"""Pictures that are there twice: the same pixels, or nearly the same picture.

Near copies are looked for by small thumbnails, and by features where there are some. What looks
alike to these is laid over each other at several sizes, which tells a crop of a photo from another
photo of the same thing.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from thaw.tools.check_files import GRID, Array, Run, Seen
from thaw.tools.check_findings import Finding, Listing

SIDE = 8  # pixels of the thumbnails, of any shape made square, that pairs are looked for by
NEAR = 3  # photos that each is compared with: the nearest ones
ROUGH = 0.1  # cosine distance of thumbnails up to which two photos may be one picture
SCALES = np.linspace(1, 0.5, 15)  # of the largest size that fits
# Correlation from which they are one picture. 94 % of crops of Flowers102 to 60 to 95 % of the
# sides, scaled and saved at quality 50, reach it; of pairs in Pets and Dogs vs. Cats those that are
# no copies have 0.90 at most, and all others 0.94 and more.
ALIKE = 0.91
# Of two labels more is asked: a cat in a meadow and a dog on a beach under one horizon reach 0.94.
ALIKE_OF_TWO_LABELS = 0.95


def find_copies(
    photos: Listing, seen: Sequence[Seen], run: Run, near: Iterable[tuple[int, int]] = ()
) -> list[Finding]:
    """Photos that are one picture, the most alike first; `near` are more pairs to look at."""
    first: dict[str, int] = {}  # of the photos with these pixels
    found: dict[tuple[int, int], float] = {}
    for place in range(len(photos.paths)):
        if seen[place].pixels and (one := first.setdefault(seen[place].pixels, place)) != place:
            found[one, place] = 1.0
    alone = [n for n in first.values() if "flat" not in seen[n].notes]  # flat ones all look alike
    close = [(alone[one], alone[two]) for one, two in close_pairs([seen[n] for n in alone])]
    kept = {*alone}
    todo = sorted(
        {
            (min(pair), max(pair))
            for pair in (*close, *near)
            if pair[0] != pair[1] and kept.issuperset(pair)
        }
    )
    both = [(seen[one], seen[two]) for one, two in todo]
    for pair, alike in zip(todo, run(likeness, both, "copies"), strict=True):
        one_label = photos.labels[pair[0]] == photos.labels[pair[1]]
        if alike >= (ALIKE if one_label else ALIKE_OF_TWO_LABELS):
            found[pair] = alike
    findings = []
    for (one, two), alike in sorted(found.items(), key=lambda item: -item[1]):
        same = seen[one].pixels == seen[two].pixels
        kinds = (
            *["conflict"] * (photos.labels[one] != photos.labels[two]),
            *["across"] * (photos.splits[one] != photos.splits[two]), "exact" if same else "near",
        )  # fmt: skip
        why = "the same pixels" if same else f"correlation {alike:.2f}"
        findings.append(Finding(kinds, (one, two), why))
    return findings


def close_pairs(seen: Sequence[Seen]) -> list[tuple[int, int]]:
    """Places of photos whose thumbnails are alike, as they are or if one is mirrored."""
    if len(seen) < 2:
        return []
    small = [Image.fromarray(each.thumbnail()).resize((SIDE, SIDE), Image.Resampling.BOX)
             for each in seen]  # fmt: skip
    table = np.stack([np.asarray(each, np.float32) for each in small])  # (N, SIDE, SIDE)
    table -= table.mean(axis=(1, 2), keepdims=True)
    table /= np.maximum(np.linalg.norm(table, axis=(1, 2), keepdims=True), 1e-6)
    pairs = []
    for asked in (table, table[:, :, ::-1]):
        distances, others = nearest(table.reshape(len(table), -1), asked.reshape(len(table), -1))
        one, place = np.nonzero(distances < ROUGH)
        pairs += zip(one.tolist(), others[one, place].tolist(), strict=True)
    return pairs


def nearest(table: Array, asked: Array, number: int = NEAR + 1) -> tuple[Array, Array]:
    """Cosine distances from unit vectors (M, D) to the nearest of (N, D) and their places, (M, k).

    All are compared with all, in blocks: time grows with the square of N, memory does not.
    """
    index = NearestNeighbors(n_neighbors=min(number, len(table)), algorithm="brute").fit(table)
    distances, places = index.kneighbors(asked)
    return distances**2 / 2, places


def likeness(both: tuple[Seen, Seen]) -> float:
    """The best correlation, -1 to 1, of one of two pictures in grey with a part of the other.

    The part has the shape of the whole picture, and 0.5 to 1 of the largest size that fits. The
    other picture may be mirrored.
    """
    one, two = (each.thumbnail().astype(np.float32) for each in both)
    ways = [(a, b) for other in (two, two[:, ::-1]) for a, b in ((one, other), (other, one))]
    rough = [_best_fit(_half(a), _half(b), SCALES[::2]) for a, b in ways]
    best = int(np.argmax(rough))
    return _best_fit(*ways[best], SCALES) if rough[best] > ALIKE - 0.1 else rough[best]


def _half(picture: Array) -> Array:
    return np.asarray(Image.fromarray(picture).reduce(2))


def _best_fit(part: Array, whole: Array, scales: Array) -> float:
    """The best correlation of `part` (h, w) at some scales with what lies under it in (H, W)."""
    best, picture = -1.0, Image.fromarray(part)
    for scale in min(np.array(whole.shape) / part.shape) * scales:
        h, w = (round(side * scale) for side in part.shape)
        if min(h, w) < GRID // 6:
            break
        over = np.asarray(picture.resize((w, h), Image.Resampling.BOX)).ravel()
        under = sliding_window_view(whole, (h, w)).reshape(-1, h * w)
        over, under = over - over.mean(), under - under.mean(axis=1, keepdims=True)
        # a deviation of at least one grey value, so that noise in a flat place does not count
        spread = np.maximum((under**2).sum(axis=1), h * w) * max((over**2).sum(), h * w)
        best = max(best, float((under @ over / np.sqrt(spread)).max()))
    return best
