"""Whether an exported model says of photos on disk what the trained model says of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from thaw.data.base import PhotoDataModule
from thaw.data.decode import decode
from thaw.data.flowers import FLOWERS, draw_flower
from thaw.data.photos import Photos, picture_files
from thaw.errors import ConfigError, PhotoError, ThawError, reason
from thaw.image_classifier import ImageClassifier
from thaw.tools.export_formats import Run
from thaw.tools.preprocess import prepare
from thaw.tools.run_data import data_of

Labelled = tuple[Path, str | None]  # a photo, and the name of its class where that is known
Rows = NDArray[np.floating]  # probabilities (P, K)

TESTED, CALIBRATING, DRAWN = 500, 200, 32  # photos at most
BATCH, ALONE = 8, 16  # photos at once; how many of the first photos also go one by one
ROTATED = 6  # an EXIF orientation: to be turned by 90 degrees clockwise


@dataclass(frozen=True)
class Parity:
    """What was compared: the trained model before, the exported one after."""

    photos: int
    differing: int  # photos that get another label
    difference: float  # the largest, of any probability of any photo
    farthest: str  # the photo where that is
    known: int  # photos whose class is known; if none is, the trained model's answers are right
    before: float  # accuracy, 0-1
    after: float
    seconds_before: float  # for one photo, from its file to its probabilities, in batches of 8
    seconds_after: float


def compare(model: ImageClassifier, run: Run, photos: Sequence[Labelled]) -> Parity:
    """Sends each photo from its file through both, and the first ones one by one as well."""
    paths, spec = [path for path, _ in photos], model.facts["input"]

    def trained(some: Sequence[Path]) -> Rows:  # as `thaw predict` gives them
        with torch.inference_mode():
            return model(torch.stack([model.transform(decode(path)) for path in some])).numpy()

    def exported(some: Sequence[Path]) -> Rows:
        return run(np.concatenate([prepare(path, spec) for path in some]))

    alone = [exported([path]) for path in paths[:ALONE]]  # also warms up, as the next line does
    trained(paths[:BATCH])
    expected, seconds_before = _timed(trained, paths)
    got, seconds_after = _timed(exported, paths)
    single = np.concatenate([*alone, got[ALONE:]])
    difference = np.maximum(np.abs(got - expected), np.abs(single - expected)).max(1)  # (P,)
    difference = np.nan_to_num(difference, nan=1.0)  # what is no number is as wrong as can be
    best = expected.argmax(1)
    differs = (got.argmax(1) != best) | (single.argmax(1) != best)
    classes = model.classes
    labels = np.array([classes.index(name) if name in classes else -1 for _, name in photos])
    known = labels >= 0
    right, counted = (labels, known) if known.any() else (best, slice(None))
    before, after = ((rows.argmax(1) == right)[counted].mean() for rows in (expected, got))
    farthest = int(difference.argmax())
    return Parity(
        len(paths), int(differs.sum()), float(difference[farthest]), str(paths[farthest]),
        int(known.sum()), float(before), float(after), seconds_before, seconds_after,
    )  # fmt: skip


def _timed(answer: Callable[[Sequence[Path]], Rows], paths: Sequence[Path]) -> tuple[Rows, float]:
    """Probabilities (P, K) of the photos, in batches, and seconds for each."""
    began = time.perf_counter()
    rows = [answer(paths[start : start + BATCH]) for start in range(0, len(paths), BATCH)]
    return np.concatenate(rows), (time.perf_counter() - began) / len(paths)


def find_photos(
    run: Path, folder: Path | None, scratch: Path
) -> tuple[str, list[Labelled], list[Path]]:
    """What the photos are, those to test on, and other ones to calibrate on (maybe none).

    Args:
        run: Folder of the run. Its validation photos test, its training photos calibrate.
        folder: Photos to take instead, at any depth; the name of the folder that a photo lies in
            counts as its class. Every second one calibrates.
        scratch: Where flowers are drawn if there are no photos. Nothing is calibrated on them.
    """
    if folder is not None:
        paths = picture_files(folder) if folder.is_dir() else ()
        every: list[Labelled] = [(path, path.parent.name) for path in paths]
        if not every:
            raise ConfigError(f"--photos {folder}: is no folder with photos in it")
        source, tested, calibrating = f"photos of {folder}", every[::2], every[1::2]
    else:
        try:
            data = data_of(run)
            data.prepare_data = lambda: None  # photos that are gone are not downloaded for this
            source = "validation photos of the run"
            tested, calibrating = (_labelled(data, part) for part in (data.val, data.train))
        except (ThawError, OSError) as error:
            print(f"The run's own photos cannot be had ({reason(error)}).")
            return "drawn flowers", _drawn(scratch), []
    tested, calibrating = some(tested, TESTED), some(calibrating, CALIBRATING)
    if not tested:
        raise ConfigError(f"{source}: none can be read; give others by --photos FOLDER")
    return source, tested, [path for path, _ in calibrating]


def some(photos: Sequence[Labelled], most: int) -> list[Labelled]:
    """At most `most` of the photos, evenly spaced: of a list by class, all classes.

    Those that cannot be read are passed over, and counted on the screen.
    """
    places = np.linspace(0, len(photos) - 1, min(most, len(photos))).round().astype(int)
    whole, errors = [], []
    for photo in (photos[place] for place in places):
        try:
            decode(photo[0])
            whole.append(photo)
        except PhotoError as error:
            errors.append(error)
    if errors:
        print(f"{len(errors)} of {len(places)} photos passed over, the first: {errors[0]}")
    return whole


def make_kinds(original: Path, folder: Path) -> list[Labelled]:
    """Writes one photo in the forms that programs get wrong: sides, EXIF, grey, CMYK, alpha."""
    image = Image.fromarray(decode(original).permute(1, 2, 0).numpy())
    side = min(image.size)
    long, short = max(side, 96), max(side * 2 // 3, 64)
    landscape, exif = image.resize((long, short)), Image.Exif()
    exif[0x0112] = ROTATED
    landscape.save(folder / "rotated.jpg", exif=exif)
    kinds = {
        "landscape.jpg": landscape,
        "portrait.jpg": image.resize((short, long)),
        "grey.jpg": image.convert("L"),
        "cmyk.jpg": image.convert("CMYK"),
        "transparent.png": image.convert("RGBA").rotate(30),
    }
    for name, kind in kinds.items():
        kind.save(folder / name)
    return [(folder / name, None) for name in ("rotated.jpg", *kinds)]


def _labelled(data: PhotoDataModule, photos: Photos | None) -> list[Labelled]:
    if photos is None:
        raise ConfigError("it validated on none")
    if missing := [path for path in photos.paths if not path.is_file()]:
        raise ConfigError(f"{missing[0]} is missing")
    return [(path, data.classes[label]) for path, label in photos.pairs()]


def _drawn(folder: Path) -> list[Labelled]:
    paths = [folder / f"{number}.jpg" for number in range(DRAWN)]
    for number, path in enumerate(paths):
        flower = draw_flower(number % len(FLOWERS), np.random.default_rng(number), 128)
        flower.save(path, quality=92)
    return [(path, None) for path in paths]  # a model of real flowers may know such a name too
