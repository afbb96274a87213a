"""Pictures that are there twice: the same pixels, or nearly the same picture.

Near copies are looked for by a perceptual hash, and by features where there are some. Whatever
looks alike to these is then laid over each other at several sizes, so that a crop is told from
another photo of the same thing. No step compares all with all, except features.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from thaw.tools.check_files import SIDE

Array = NDArray
BITS = 64
ORDERS, WINDOW = 32, 8  # sortings, and how far neighbours are compared in each
MOST_BITS = 14  # of the hash that may differ
GRID = 32  # pixels of the long side where two pictures are laid over each other
SCALES = np.linspace(1, 0.5, 15)  # of the largest size that fits
ALIKE = 0.92  # correlation from which they are one picture


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


def close_pairs(bits: Array) -> Array:
    """Pairs of places whose hashes differ in few bits, (P, 2), by sorting: N log N.

    Hashes are sorted with their bits in ORDERS random orders, and each is compared with the next
    WINDOW ones (M. Charikar, Similarity Estimation Techniques from Rounding Algorithms, 2002).
    """
    rng, whole = np.random.default_rng(0), np.packbits(bits, axis=1).view(">u8")[:, 0]
    found = [np.empty((0, 2), np.int64)]
    for _ in range(ORDERS):
        mixed = np.packbits(bits[:, rng.permutation(BITS)], axis=1).view(">u8")[:, 0]
        order = np.argsort(mixed, kind="stable")
        for step in range(1, min(WINDOW, len(order) - 1) + 1):
            one, two = order[:-step], order[step:]
            near = np.bitwise_count(whole[one] ^ whole[two]) <= MOST_BITS
            found.append(np.stack([one[near], two[near]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def small(path: Path) -> Array:
    """A photo in grey, GRID pixels at its long side, float (H, W)."""
    with Image.open(path) as image:
        image.draft("L", (4 * GRID, 4 * GRID))  # a JPEG is decoded at a part of its size
        picture = ImageOps.exif_transpose(image).convert("L")
    scale = GRID / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)


def overlap(one: Array, two: Array) -> float:
    """The best correlation, -1 to 1, of one of two grey pictures (H, W) with a part of the other.

    The part has the shape of the whole picture, and 0.5 to 1 of the largest size that fits.
    """
    return max(_best_fit(one, two), _best_fit(two, one))


def _best_fit(part: Array, whole: Array) -> float:
    whole = whole.astype(np.float64)
    (height, width), best, size = whole.shape, -1.0, (2 * GRID, 2 * GRID)
    spectrum, picture = np.fft.rfft2(whole - whole.mean(), size), Image.fromarray(part)
    sums = [np.pad(each, ((1, 0), (1, 0))).cumsum(0).cumsum(1) for each in (whole, whole**2)]
    largest = min(height / part.shape[0], width / part.shape[1])
    for scale in largest * SCALES:
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
