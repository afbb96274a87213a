"""Photos and findings of `thaw check`, and what it sees in single files, with every core.

Other processes decode the photos as training does. What they saw is kept, a line for each photo: a
check that was stopped goes on from there.
"""

import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from thaw.errors import PhotoError

SAME = {"MPO": "JPEG", "DIB": "BMP"}  # formats that go by the name of another one
GRID = 32  # pixels of the long side of the grey thumbnail that copies are told by
# Backbones were trained at 224 pixels: below a seventh a photo is a smear; and at 4 to 1 a centre
# crop sees a quarter of it.
TINY, HUGE, LONG = 32, 50e6, 4  # sides in pixels, pixels, ratio of the sides
# Pixels of the sharpest edges of a blurry photo, at 256 a side. None of 1,200 in three data sets is
# as wide; at their 160 pixels, saved as JPEG, 99 % are after a blur of 2 or 3 pixels.
WIDE = 1.1
Array = NDArray[Any]


class Listing(NamedTuple):
    """The photos of a source: test before val before train, so the first of two copies is kept."""

    paths: Sequence[Path]
    labels: Sequence[int]  # places in classes
    splits: Sequence[str]
    classes: tuple[str, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Of each class, the smallest first, its photos in each split."""
        found = Counter(zip(self.labels, self.splits, strict=True))
        rows = [(name, {split: found[n, split] for split in dict.fromkeys(self.splits)})
                for n, name in enumerate(self.classes)]  # fmt: skip
        return dict(sorted(rows, key=lambda row: sum(row[1].values())))


class Finding(NamedTuple):
    """One photo, or two copies, by their places in the listing."""

    kinds: tuple[str, ...]
    photos: tuple[int, ...]
    why: str


class Seen(NamedTuple):
    """What was seen in a photo; of one that cannot be decoded only notes."""

    notes: dict[str, str]  # kind of finding -> why
    pixels: str = ""  # a hash of the picture as training sees it
    width: int = 0  # of the grey thumbnail
    grey: str = ""  # its values, row by row, in hexadecimal digits

    def thumbnail(self) -> Array:
        """In grey, GRID pixels at its long side, uint8 (H, W)."""
        return np.frombuffer(bytes.fromhex(self.grey), np.uint8).reshape(-1, self.width)


def see(path: Path) -> Seen:
    from thaw.data.broken import said_on_stderr  # with torch, which the first process does without
    from thaw.data.decode import FORMATS, decode

    try:
        with said_on_stderr() as said:
            picture = Image.fromarray(decode(path).permute(1, 2, 0).numpy())
    except PhotoError as error:
        return Seen({"broken": str(error).partition(f"{path}: ")[2]})
    with Image.open(path, formats=FORMATS) as image:
        notes = _file_notes(image, path.suffix.lower()) | _picture_notes(picture)
    if faults := [line for line in said if "Corrupt JPEG" in line]:
        notes["damaged"] = faults[0]
    pixels = sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
    w, h = (max(1, round(side * GRID / max(picture.size))) for side in picture.size)
    small = picture.convert("L").resize((w, h), Image.Resampling.BOX).tobytes()
    return Seen(notes, pixels, w, small.hex())


def _file_notes(image: Image.Image, suffix: str) -> dict[str, str]:
    """What is odd about the file: its name, EXIF orientation and colour mode."""
    notes: dict[str, str] = {}
    kind, named = image.format or "", Image.registered_extensions().get(suffix, "")
    if SAME.get(kind, kind) != SAME.get(named, named):
        notes["name"] = f"is a {kind}, named {suffix}"
    if (turned := image.getexif().get(0x0112, 1)) != 1:
        notes["exif"] = f"has EXIF orientation {turned}"
    if image.has_transparency_data or image.mode not in ("RGB", "L"):
        notes["mode"] = f"is {image.mode}{', transparent' * image.has_transparency_data}"
    with suppress(Exception):  # what is wrong with the second frame does not count
        if kind != "MPO" and getattr(image, "is_animated", False):
            notes["mode"] = "has several frames or pages, of which the first is used"
    return notes


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
    counts = np.bincount((colours @ np.array([1, 16, 256])).ravel())
    if high < 24 or low > 231 or high - low < 16:
        notes["flat"] = f"has grey values {low:.0f} to {high:.0f} of 255 alone"
    elif np.sort(counts)[-2:].sum() > 0.9 * counts.sum():
        notes["flat"] = "has two colours in nine tenths of its area"
    elif min(grey.shape) > 4 and (width := _edge_width(grey)) > WIDE:
        notes["blurry"] = f"has edges {width:.1f} pixels wide at 256 pixels a side"
    return notes


def _edge_width(grey: Array) -> float:
    """About how wide the sharpest edges of (H, W) are, in pixels: first by second derivative.

    Only the steepest hundredth counts, so a sharp flower on a blurred ground is sharp.
    """
    up, down, left, right = grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:]
    bend = np.percentile(np.abs(up + down + left + right - 4 * grey[1:-1, 1:-1]), 99)
    slope = np.percentile(np.hypot(down - up, right - left) / 2, 99)
    return float(slope / max(bend, 1e-6))


def in_cores(work: Callable[[Any], Any], items: Sequence[Any], title: str) -> Iterator[Any]:
    """What `work` gives for each item, in their order, in processes on all cores; with a bar."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    context.set_forkserver_preload(["thaw.data.decode"])  # imported once, for all of them
    # Ctrl-C is for the first process alone
    with ProcessPoolExecutor(None, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        done = pool.map(work, items, chunksize=16)
        yield from tqdm(done, title, len(items), leave=False, disable=None)


def see_all(paths: Sequence[Path], cache: Path) -> list[Seen]:
    """What was seen in each photo; it is read again where its size or time is another."""
    facts = [path.stat() if path.exists() else None for path in paths]  # None: `see` reports it
    keys = [f"{path.absolute()} {each and (each.st_size, each.st_mtime_ns)}"
            for path, each in zip(paths, facts, strict=True)]  # fmt: skip
    wanted, found = {*keys}, {}
    cache.mkdir(parents=True, exist_ok=True)
    # with another number, of what is seen in a photo, all are read again
    with (cache / "seen-4.jsonl").open("a+", encoding="ascii") as file:
        file.seek(0)
        for line in file:
            with suppress(ValueError):  # a line that a killed run cut short
                key, *values = json.loads(line)
                if key in wanted and "broken" not in values[0]:  # a plugin may be there now
                    found[key] = Seen(*values)
        todo = {key: path for key, path in zip(keys, paths, strict=True) if key not in found}
        for key, seen in zip(todo, in_cores(see, [*todo.values()], "photos"), strict=True):
            file.write(f"\n{json.dumps([key, *seen])}\n")  # first ends what was cut short
            found[key] = seen
    return [found[key] for key in keys]
