"""Pictures that are there twice: the same pixels, or nearly the same picture.

Near copies are looked for by a perceptual hash, and by features where there are some. What looks
alike to these is laid over each other at several sizes, which tells a crop of a photo from another
photo of the same thing.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from thaw.tools.check_files import FORMATS, SIDE, Seen, in_all_cores

Array = NDArray[Any]
ORDERS, WINDOW = 32, 8  # sortings, and how far neighbours are compared in each
MOST_BITS = 14  # of 64 in the hash that may differ
MOST_PAIRS = 5  # for each photo: the most alike of all are looked at, so that it stays linear
CLOSE = 0.3  # cosine distance of features up to which two photos may be one picture
GRID = 32  # pixels of the long side where two pictures are laid over each other
SCALES = np.linspace(1, 0.5, 29)  # of the largest size that fits
# Correlation from which they are one picture. 94 % of crops of Flowers102 to 60 to 95 % of the
# sides, scaled and saved at quality 50, reach it; of pairs in Pets and Dogs vs. Cats those that are
# no copies have 0.90 at most, and all others 0.94 and more.
ALIKE = 0.91


def find_copies(
    paths: Sequence[Path], seen: Sequence[Seen], rank: Sequence[int],
    nearest: tuple[Array, Array, Array] | None = None,
) -> list[tuple[int, int, float]]:  # fmt: skip
    """Pairs of photos that are one picture, and their correlation: the most alike first.

    Args:
        paths, seen: The photos.
        rank: The photo of the lower rank comes first in a pair.
        nearest: Places of the M photos that have features; the distances to the nearest of them
            (M, k); where in the M these are (M, k).
    """
    first: dict[str, int] = {}  # of the photos with these pixels
    found: dict[tuple[int, int], float] = {}
    for place in sorted(range(len(paths)), key=lambda n: rank[n]):
        if seen[place].pixels and (one := first.setdefault(seen[place].pixels, place)) != place:
            found[one, place] = 1.0
    alone = [n for n in first.values() if "flat" not in seen[n].notes]  # flat ones all look alike
    grey = b"".join(base64.b85decode(seen[n].thumbnail) for n in alone)
    close = close_pairs(np.frombuffer(grey, np.uint8).reshape(-1, SIDE * SIDE))
    pairs = [(alone[one], alone[two]) for one, two in close]
    if nearest:
        places, distances, others = nearest
        near = np.nonzero(distances[:, :3] < CLOSE)
        pairs += zip(places[near[0]].tolist(), places[others[near]].tolist(), strict=True)
    kept = set(alone)
    todo = sorted({(min(pair), max(pair)) for pair in pairs if kept.issuperset(pair)})
    files = [(str(paths[one]), str(paths[two])) for one, two in todo]
    for (one, two), alike in zip(todo, in_all_cores(likeness, files, "copies"), strict=True):
        if alike >= ALIKE:
            found[(one, two) if rank[one] <= rank[two] else (two, one)] = alike
    return sorted(((*pair, alike) for pair, alike in found.items()), key=lambda row: -row[2])


def close_pairs(thumbnails: Array) -> Array:
    """Pairs (P, 2) of grey thumbnails, uint8 (N, SIDE * SIDE), that look alike, in N log N.

    A hash has a bit for each low frequency of the cosine transform: if it is above their median (C.
    Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010). Hashes are
    sorted with their bits in random orders, and each is compared with the next ones (M. Charikar,
    Similarity Estimation Techniques from Rounding Algorithms, 2002).
    """
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(9), np.arange(SIDE) + 0.5)).astype(np.float32)
    grey = thumbnails.reshape(-1, SIDE, SIDE).astype(np.float32)
    powers = (waves @ grey @ waves.T).reshape(-1, 81)[:, 1:65]  # without the mean
    bits = (powers > np.median(powers, axis=1, keepdims=True)).astype(np.uint8)  # (N, 64)
    whole, rng = np.packbits(bits, axis=1).view(">u8")[:, 0], np.random.default_rng(0)
    found = [np.empty((0, 2), int)]
    for _ in range(ORDERS):
        mixed = np.packbits(bits.take(rng.permutation(64), axis=1), axis=1).view(">u8")[:, 0]
        order = np.argsort(mixed, kind="stable")
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            pairs = np.stack([order[:-step], order[step:]], axis=1)
            found.append(pairs[np.bitwise_count(np.bitwise_xor(*whole[pairs].T)) <= MOST_BITS])
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    unlike = np.bitwise_count(np.bitwise_xor(*whole[pairs].T))
    return pairs[np.argsort(unlike, kind="stable")[: MOST_PAIRS * len(thumbnails)]]


def likeness(files: tuple[str, str]) -> float:
    """The best correlation, -1 to 1, of one of two pictures in grey with a part of the other.

    The part has the shape of the whole picture, and 0.5 to 1 of the largest size that fits.
    """
    one, two = map(_small, files)
    rough = max(_best_fit(one, two, SCALES[::4]), _best_fit(two, one, SCALES[::4]))
    if rough < ALIKE - 0.2:
        return rough
    return max(_best_fit(one, two, SCALES), _best_fit(two, one, SCALES))


def _small(path: str) -> Array:
    """A photo in grey, GRID pixels at its long side, float64 (H, W)."""
    with Image.open(path, formats=FORMATS) as image:
        image.draft("L", (4 * GRID, 4 * GRID))  # a JPEG is decoded at a part of its size
        picture = ImageOps.exif_transpose(image).convert("L")
    scale = GRID / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    return np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BOX), np.float64)


def _best_fit(part: Array, whole: Array, scales: Array) -> float:
    """The best correlation of `part` (h, w) at some scales with what lies under it in (H, W)."""
    (height, width), best, room = whole.shape, -1.0, (2 * GRID, 2 * GRID)
    spectrum = np.fft.rfft2(whole - whole.mean(), room)
    picture = Image.fromarray(part.astype(np.float32))
    sums = [np.pad(each, ((1, 0), (1, 0))).cumsum(0).cumsum(1) for each in (whole, whole**2)]
    for scale in min(height / part.shape[0], width / part.shape[1]) * scales:
        h, w = round(part.shape[0] * scale), round(part.shape[1] * scale)
        if min(h, w) < GRID // 6:
            break
        kernel = np.asarray(picture.resize((w, h), Image.Resampling.BOX))
        kernel = kernel - kernel.mean()
        fit = np.fft.irfft2(spectrum * np.fft.rfft2(kernel, room).conj(), room)
        total, squares = (s[h:, w:] - s[:-h, w:] - s[h:, :-w] + s[:-h, :-w] for s in sums)
        # a deviation of at least one grey value, so that noise in a flat place does not count
        spread = np.maximum(squares - total**2 / (h * w), h * w) * max((kernel**2).sum(), h * w)
        best = max(best, float((fit[: height - h + 1, : width - w + 1] / np.sqrt(spread)).max()))
    return best
