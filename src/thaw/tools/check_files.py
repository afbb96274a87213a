"""What `thaw check` sees in one picture file, and the pass over all of them with every core.

Pillow and numpy alone: neither this process nor its workers import torch. Each photo is one line of
a file in the cache, written as soon as it is known, so a check that was stopped goes on from there.
"""

import base64
import hashlib
import json
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

T, R = TypeVar("T"), TypeVar("R")

VERSION = 1  # of what is seen in a photo: another one reads all photos again
# As in thaw.data.decode, which imports torch: Pillow's EPS reader would start Ghostscript
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_RATIO = 200  # of the sides, as there
SAME = {"MPO": "JPEG", "DIB": "BMP"}  # formats that go by the name of another one
SIDE = 16  # of the grey thumbnail that near duplicates are found by, in pixels

# Sides in pixels, and their ratio. Backbones were trained at 224: below a seventh of that a photo
# is a smear; at 4 to 1 a centre crop sees a quarter of it.
TINY, HUGE, LONG = 32, 50e6, 4
# Of 1,800 photos of Flowers102, Pets and Dogs vs. Cats none is below it as it is, 97 % are after a
# blur of 2 pixels at their 160, and 85 % after one of 1.5.
BLURRED = 0.7


class Seen(NamedTuple):
    """What was seen in one photo.

    Attributes:
        pixels: A hash of the picture as training would see it; "" where it cannot be decoded.
        thumbnail: SIDE * SIDE grey values, row by row; empty where it cannot be decoded.
        notes: kind of finding -> why.
    """

    pixels: str
    thumbnail: bytes
    notes: dict[str, str]


def see(path: str) -> str:
    """Decodes a photo; what was seen as the JSON that `_read` reads."""
    pixels, thumbnail, notes = "", b"", {}
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # what cannot be decoded raises; HUGE tells the rest
            picture = _upright(image, Path(path).suffix.lower(), notes)
        notes |= _look(picture)
        data = np.asarray(picture)
        pixels = hashlib.blake2b(data, digest_size=12, key=str(data.shape).encode()).hexdigest()
        small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        thumbnail = small.tobytes()
    except Exception as error:  # Pillow's plugins raise all kinds of exceptions on broken files
        notes = {"broken": " ".join(str(error).replace(path, "it").split()) or repr(error)}
    return json.dumps([pixels, base64.b85encode(thumbnail).decode(), notes])


def _upright(image: Image.Image, suffix: str, notes: dict[str, str]) -> Image.Image:
    """The picture in RGB as training sees it; adds what is odd about its file to the notes."""
    kind, mode = SAME.get(image.format or "", image.format), image.mode
    named = Image.registered_extensions().get(suffix)
    if kind != SAME.get(named or "", named):
        notes["name"] = f"is a {kind}, named {suffix}"
    turned = image.getexif().get(0x0112, 1)
    if turned != 1:
        known = turned in range(2, 9)
        notes["exif"] = (
            f"is turned by EXIF orientation {turned}: programs that ignore it see it otherwise"
            if known else f"has the invalid EXIF orientation {turned}, read as not turned"
        )  # fmt: skip
    if image.has_transparency_data:
        notes["mode"] = f"is transparent ({mode}): training sees white there"
    elif mode not in ("RGB", "L"):
        notes["mode"] = f"has the colour mode {mode}"
    image = ImageOps.exif_transpose(image)
    if mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(f"numbers of Pillow's mode {mode} have no defined white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _look(picture: Image.Image) -> dict[str, str]:
    """What is odd about the picture itself, RGB: its size, its brightness, its sharpness."""
    notes: dict[str, str] = {}
    short, long = sorted(picture.size)
    if long > MAX_RATIO * short:
        raise ValueError(f"{picture.width} x {picture.height} pixels: training refuses that shape")
    if short < TINY:
        notes["size"] = f"is tiny: {picture.width} x {picture.height} pixels"
    elif short * long > HUGE:
        notes["size"] = f"is huge: {short * long / 1e6:.0f} million pixels, slow to decode"
    elif long > LONG * short:
        notes["size"] = f"is {long / short:.1f} times as long as wide: a crop sees little of it"
    small = picture.convert("L")
    small.thumbnail((256, 256), Image.Resampling.BILINEAR)
    grey = np.asarray(small, np.float32)  # (H, W)
    low, high = np.percentile(grey, (1, 99))
    colours = np.asarray(picture.resize((64, 64), Image.Resampling.NEAREST)) >> 4  # (64, 64, 3)
    _, counts = np.unique(colours.reshape(-1, 3) @ (1, 16, 256), return_counts=True)
    if high < 24 or low > 231:
        notes["flat"] = f"is nearly {'black' if high < 24 else 'white'}"
    elif high - low < 16:
        notes["flat"] = "is nearly one tone"
    elif np.sort(counts)[-2:].sum() > 0.9 * counts.sum():
        notes["flat"] = "is nearly two colours: a placeholder or a drawing?"
    elif min(grey.shape) > 4 and (width := _edge_width(grey)) > 1 / BLURRED:
        notes["blurry"] = f"has no edge sharper than {width:.1f} pixels at 256 pixels a side"
    return notes


def _edge_width(grey: NDArray[np.float32]) -> float:
    """About how wide the sharpest edges of (H, W) are, in pixels: first by second derivative.

    Only the steepest hundredth counts, so a sharp flower on a blurred ground is sharp.
    """
    middle = grey[1:-1, 1:-1]
    up, down, left, right = grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:]
    bend = np.percentile(np.abs(up + down + left + right - 4 * middle), 99)
    slope = np.percentile(np.hypot(down - up, right - left) / 2, 99)
    return float(slope / max(bend, 1e-6))


def see_all(paths: Sequence[Path], cache: Path) -> list[Seen]:
    """What was seen in each photo, in their order; `cache` is a folder.

    A photo is read again where its path, size or time of modification is another.
    """
    keys, found = [_key(path) for path in paths], {}
    cache.mkdir(parents=True, exist_ok=True)
    top = os.path.commonpath([path.absolute() for path in paths])
    name = hashlib.sha256(f"{VERSION} {top}".encode(errors="surrogateescape")).hexdigest()[:16]
    wanted = set(keys)
    with (cache / f"{name}.jsonl").open("a+", encoding="ascii") as file:
        file.seek(0)
        for line in file:
            key, _, value = line.rstrip("\n").partition("\t")
            if key in wanted and value.endswith("]") and line.endswith("\n"):
                found[key] = _read(value)
        todo = {key: str(path) for key, path in zip(keys, paths, strict=True) if key not in found}
        for key, value in zip(todo, in_all_cores(see, list(todo.values()), "photos"), strict=True):
            file.write(f"\n{key}\t{value}\n")  # first ends what a killed run cut short
            found[key] = _read(value)
    return [found[key] for key in keys]


def in_all_cores(work: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[R]:
    """Yields what `work` makes of each item, in their order, with a progress bar."""
    # spawn: a fork of a process with threads may hang. Ctrl-C is for this process alone.
    with ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN),
    ) as pool:  # fmt: skip
        try:
            done = pool.map(work, items, chunksize=16)
            yield from tqdm(done, title, len(items), leave=False, disable=None)
        finally:
            pool.shutdown(cancel_futures=True)


def _key(path: Path) -> str:
    """A hash of a file's path, size and time of modification."""
    try:
        facts = path.stat()
        text = f"{path.absolute()}\0{facts.st_size}\0{facts.st_mtime_ns}"
    except OSError:  # as a link into nothing, which `see` reports
        text = str(path.absolute())
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=12).hexdigest()


def _read(value: str) -> Seen:
    pixels, thumbnail, notes = json.loads(value)
    return Seen(pixels, base64.b85decode(thumbnail), notes)
