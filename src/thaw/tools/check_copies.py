"""Pictures that are there twice: the same pixels, or nearly the same picture.

Near copies are looked for by a perceptual hash, and by features where there are some. Whatever
looks alike to these is then laid over each other at several sizes, so that a crop is told from
another photo of the same thing. No step compares all with all, except features.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from thaw.tools.check_files import FORMATS, SIDE, Seen, in_all_cores

Array = NDArray[Any]
BITS = 64
ORDERS, WINDOW = 32, 8  # sortings, and how far neighbours are compared in each
MOST_BITS = 14  # of the hash that may differ
MOST_PAIRS = 5  # for each photo: the most alike of all pairs are looked at, so that it stays linear
CLOSE = 0.3  # cosine distance of features up to which two photos may be one picture
GRID = 32  # pixels of the long side where two pictures are laid over each other
SCALES = np.linspace(1, 0.5, 29)  # of the largest size that fits
# Correlation from which they are one picture. Of crops to 60 to 95 % of the sides, scaled and saved
# at quality 50, 94 % reach it; in Pets and Dogs vs. Cats no pair lies between 0.90 and 0.94.
ALIKE = 0.91


def hashes(thumbnails: Array) -> Array:
    """Perceptual hashes of grey thumbnails, uint8 (N, SIDE * SIDE) -> bits, uint8 (N, BITS).

    Each bit is whether a low frequency of the cosine transform is above their median (C. Zauner,
    Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).
    """
    place = np.arange(SIDE)
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(9), place + 0.5)).astype(np.float32)
    grey = thumbnails.reshape(-1, SIDE, SIDE).astype(np.float32)
    found = (waves @ grey @ waves.T).reshape(len(grey), -1)[:, 1 : BITS + 1]  # without the mean
    return (found > np.median(found, axis=1, keepdims=True)).astype(np.uint8)


def close_pairs(thumbnails: Array) -> Array:
    """Pairs of places (P, 2) of thumbnails (N, SIDE * SIDE) that look alike, by sorting: N log N.

    Hashes are sorted with their bits in ORDERS random orders, and each is compared with the next
    WINDOW ones (M. Charikar, Similarity Estimation Techniques from Rounding Algorithms, 2002).
    """
    bits, rng = hashes(thumbnails), np.random.default_rng(0)
    whole, found = np.packbits(bits, axis=1).view(">u8")[:, 0], [np.empty((0, 2), np.int64)]
    for _ in range(ORDERS):
        mixed = np.packbits(bits.take(rng.permutation(BITS), axis=1), axis=1).view(">u8")[:, 0]
        order = np.argsort(mixed, kind="stable")
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            one, two = order[:-step], order[step:]
            near = np.bitwise_count(whole[one] ^ whole[two]) <= MOST_BITS
            found.append(np.stack([one[near], two[near]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    unlike = np.bitwise_count(whole[pairs[:, 0]] ^ whole[pairs[:, 1]])
    return pairs[np.argsort(unlike, kind="stable")[: MOST_PAIRS * len(thumbnails)]]


def find_copies(
    paths: Sequence[Path], seen: Sequence[Seen], rank: Sequence[int],
    nearest: tuple[Array, Array, Array] | None = None,
) -> list[tuple[int, int, float]]:  # fmt: skip
    """Places of two photos that are one picture, and their correlation; the most alike first.

    Args:
        paths, seen: The photos.
        rank: The first of two photos is the one of the lower rank, and then place.
        nearest: Places of photos (M,) that have features; of each the distances to the nearest of
            them (M, k), and where in the M these are.
    """
    first: dict[str, int] = {}
    pairs: dict[tuple[int, int], float] = {}
    for place in sorted(range(len(paths)), key=lambda n: rank[n]):
        if seen[place].pixels and (one := first.setdefault(seen[place].pixels, place)) != place:
            pairs[one, place] = 1.0
    places = np.array([n for n in sorted(first.values()) if "flat" not in seen[n].notes], int)
    thumbnails = [np.frombuffer(seen[n].thumbnail, np.uint8) for n in places]
    alike = {tuple(places[pair].tolist()) for pair in close_pairs(np.array(thumbnails))} \
        if len(places) > 1 else set()
    if nearest:
        own, distances, others = nearest
        alone = set(places.tolist())
        for one, column in zip(*np.nonzero(distances[:, :3] < CLOSE), strict=True):
            pair = int(own[one]), int(own[others[one, column]])
            if alone.issuperset(pair):
                alike.add((min(pair), max(pair)))
    todo = sorted(alike)
    files = [(str(paths[one]), str(paths[two])) for one, two in todo]
    for (one, two), found in zip(todo, in_all_cores(likeness, files, "copies"), strict=True):
        if found >= ALIKE:
            pairs[(one, two) if rank[one] <= rank[two] else (two, one)] = found
    return sorted(((*pair, found) for pair, found in pairs.items()), key=lambda row: -row[2])


def likeness(files: tuple[str, str]) -> float:
    """`overlap` of two picture files."""
    one, two = map(small, files)
    return overlap(one, two)


def small(path: str) -> Array:
    """A photo in grey, GRID pixels at its long side, float (H, W)."""
    with Image.open(path, formats=FORMATS) as image:
        image.draft("L", (4 * GRID, 4 * GRID))  # a JPEG is decoded at a part of its size
        picture = ImageOps.exif_transpose(image).convert("L")
    scale = GRID / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)


def overlap(one: Array, two: Array) -> float:
    """The best correlation, -1 to 1, of one of two grey pictures (H, W) with a part of the other.

    The part has the shape of the whole picture, and 0.5 to 1 of the largest size that fits.
    """
    rough = max(_best_fit(one, two, SCALES[::4]), _best_fit(two, one, SCALES[::4]))
    if rough < ALIKE - 0.2:
        return rough
    return max(rough, _best_fit(one, two, SCALES), _best_fit(two, one, SCALES))


def _best_fit(part: Array, whole: Array, scales: Array) -> float:
    whole = whole.astype(np.float64)
    (height, width), best, size = whole.shape, -1.0, (2 * GRID, 2 * GRID)
    spectrum, picture = np.fft.rfft2(whole - whole.mean(), size), Image.fromarray(part)
    sums = [np.pad(each, ((1, 0), (1, 0))).cumsum(0).cumsum(1) for each in (whole, whole**2)]
    largest = min(height / part.shape[0], width / part.shape[1])
    for scale in largest * scales:
        h, w = round(part.shape[0] * scale), round(part.shape[1] * scale)
        if min(h, w) < GRID // 6:
            break
        kernel = np.asarray(picture.resize((w, h), Image.Resampling.BOX))
        kernel = kernel - kernel.mean()
        fit = np.fft.irfft2(spectrum * np.fft.rfft2(kernel, size).conj(), size)
        total, squares = (
            each[h:, w:] - each[:-h, w:] - each[h:, :-w] + each[:-h, :-w] for each in sums
        )
        spread = np.maximum(squares - total**2 / (h * w), h * w) * max((kernel**2).sum(), h * w)
        best = max(best, float((fit[: height - h + 1, : width - w + 1] / np.sqrt(spread)).max()))
    return best
