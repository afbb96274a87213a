"""What `thaw check` sees in single picture files, with every core: no torch is imported.

It is kept, a line for each photo, so that a check that was stopped goes on from there.
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
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

VERSION = 1  # of what is seen in a photo: with another one all are read again
# As in thaw.data.decode, which imports torch: Pillow's EPS reader would start Ghostscript
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_RATIO = 200  # of the sides, as there
SAME = {"MPO": "JPEG", "DIB": "BMP"}  # formats that go by the name of another one
SIDE = 16  # of the grey thumbnail that near copies are found by, in pixels
# Backbones were trained at 224 pixels: below a seventh a photo is a smear; and at 4 to 1 a centre
# crop sees a quarter of it.
TINY, HUGE, LONG = 32, 50e6, 4  # sides in pixels, pixels, ratio of the sides
# Pixels of the sharpest edges of a blurry photo, at 256 a side. Of 1,800 photos of Flowers102, Pets
# and Dogs vs. Cats one is as wide (1.43); 98 % are after a blur of 2 pixels at their 160.
WIDE = 1.4
T, R = TypeVar("T"), TypeVar("R")


class Seen(NamedTuple):
    """What was seen in a photo; one that cannot be decoded has no pixels and no thumbnail."""

    pixels: str  # a hash of the picture as training sees it
    thumbnail: str  # SIDE * SIDE grey values, row by row, in base 85
    notes: dict[str, str]  # kind of finding -> why


def see(path: str) -> Seen:
    """Decodes a photo and says what was seen."""
    pixels, thumbnail, notes = "", b"", {}
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as image:
            warnings.simplefilter("ignore")  # what cannot be decoded raises; odd EXIF may only warn
            notes = _file_notes(image, Path(path).suffix.lower())
            picture = _upright(image)
        notes |= _picture_notes(picture)
        data = np.asarray(picture)
        pixels = hashlib.blake2b(data, digest_size=12, key=str(data.shape).encode()).hexdigest()
        thumbnail = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
    except Exception as error:  # Pillow's plugins raise all kinds of exceptions on broken files
        notes = {"broken": str(error).replace(repr(path), "the file") or repr(error)}
    return Seen(pixels, base64.b85encode(thumbnail).decode(), notes)


def _file_notes(image: Image.Image, suffix: str) -> dict[str, str]:
    """What is odd about the file: its name, EXIF orientation and colour mode."""
    notes: dict[str, str] = {}
    kind, named = image.format or "", Image.registered_extensions().get(suffix, "")
    if SAME.get(kind, kind) != SAME.get(named, named):
        notes["name"] = f"is a {kind}, named {suffix}"
    turned = image.getexif().get(0x0112, 1)
    if turned != 1:
        valid = turned in range(2, 9)
        notes["exif"] = f"has {'' if valid else 'the invalid '}EXIF orientation {turned}"
    if image.has_transparency_data or image.mode not in ("RGB", "L"):
        notes["mode"] = f"is {image.mode}{', transparent' * image.has_transparency_data}"
    return notes


def _upright(image: Image.Image) -> Image.Image:
    """The picture in RGB as thaw.data.decode makes it."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"numbers of Pillow's mode {image.mode} have no defined white")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels are no photo")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _picture_notes(picture: Image.Image) -> dict[str, str]:
    """What is odd about a picture in RGB: its size, its brightness, its sharpness."""
    notes: dict[str, str] = {}
    short, long = sorted(picture.size)
    if short < TINY or short * long > HUGE or long > LONG * short:
        notes["size"] = f"has {picture.width} x {picture.height} pixels"
    small = picture.convert("L")
    small.thumbnail((256, 256), Image.Resampling.BILINEAR)
    grey = np.asarray(small, np.float32)  # (H, W)
    low, high = np.percentile(grey, (1, 99))
    colours = np.asarray(picture.resize((64, 64), Image.Resampling.NEAREST)) >> 4  # (64, 64, 3)
    _, counts = np.unique(colours.reshape(-1, 3) @ (1, 16, 256), return_counts=True)
    if high < 24 or low > 231 or high - low < 16:
        notes["flat"] = f"has grey values {low:.0f} to {high:.0f} of 255 alone"
    elif np.sort(counts)[-2:].sum() > 0.9 * counts.sum():
        notes["flat"] = "has two colours in nine tenths of its area"
    elif min(grey.shape) > 4 and (width := _edge_width(grey)) > WIDE:
        notes["blurry"] = f"has edges {width:.1f} pixels wide at 256 pixels a side"
    return notes


def _edge_width(grey: Any) -> float:
    """About how wide the sharpest edges of (H, W) are, in pixels: first by second derivative.

    Only the steepest hundredth counts, so a sharp flower on a blurred ground is sharp.
    """
    up, down, left, right = grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:]
    bend = np.percentile(np.abs(up + down + left + right - 4 * grey[1:-1, 1:-1]), 99)
    slope = np.percentile(np.hypot(down - up, right - left) / 2, 99)
    return float(slope / max(bend, 1e-6))


def see_all(paths: Sequence[Path], cache: Path) -> list[Seen]:
    """What was seen in each photo; it is read again where its size or time is another."""
    keys, found = [_key(path) for path in paths], {}
    cache.mkdir(parents=True, exist_ok=True)
    top = f"{VERSION} {os.path.commonpath([path.absolute() for path in paths])}"
    with (cache / f"{_hash(top)}.jsonl").open("a+", encoding="ascii") as file:
        file.seek(0)
        wanted = set(keys)
        for line in file:
            key, _, value = line.partition("\t")
            if key in wanted and value.endswith("}]\n"):
                found[key] = Seen(*json.loads(value))
        todo = {key: str(path) for key, path in zip(keys, paths, strict=True) if key not in found}
        for key, value in zip(todo, in_all_cores(see, list(todo.values()), "photos"), strict=True):
            file.write(f"\n{key}\t{json.dumps(value)}\n")  # first ends what a killed run cut short
            found[key] = value
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
    facts = path.stat() if path.exists() else None  # a link into nothing, which `see` reports
    return _hash(f"{path.absolute()} {facts and (facts.st_size, facts.st_mtime_ns)}")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=12).hexdigest()
