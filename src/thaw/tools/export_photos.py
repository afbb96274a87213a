"""The photos that an export is tested on, and those that int8 is calibrated on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from thaw.data.flowers import FLOWERS, draw_flower
from thaw.data.photos import Photos, picture_files
from thaw.errors import ConfigError, ThawError, reason
from thaw.tools.run_data import data_of

T = TypeVar("T")
Labelled = tuple[Path, str | None]  # a photo, and the name of its class where that is known

TESTED, CALIBRATING, DRAWN = 500, 200, 32  # photos at most
ROTATED = 6  # an EXIF orientation: to be turned by 90 degrees clockwise


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
        paths = [*picture_files(folder)] if folder.is_dir() else []
        if not paths:
            raise ConfigError(f"--photos {folder}: is no folder with photos in it")
        found: list[Labelled] = [(path, path.parent.name) for path in paths]
        tested = found[::2]
        return f"photos of {folder}", spread(tested, TESTED), spread(paths[1::2], CALIBRATING)
    try:
        data = data_of(run)
        data.prepare_data = lambda: None  # photos that are gone are not downloaded for this
        which, photos = ("training", data.train) if data.val is None else ("validation", data.val)
        _check_there(photos)
    except (ThawError, OSError) as error:
        print(f"The run's own photos cannot be had ({reason(error)}).")
        return "drawn flowers", _drawn(scratch), []
    names = [data.classes[label] for label in photos.labels]
    labelled: list[Labelled] = [*zip(photos.paths, names, strict=True)]
    calibrating = spread(data.train.paths, CALIBRATING)
    return f"{which} photos of the run", spread(labelled, TESTED), calibrating


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced: of a list by class, all classes."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]


def make_kinds(original: Path, folder: Path) -> list[Labelled]:
    """Writes one photo in the forms that programs get wrong: sides, EXIF, grey, CMYK, alpha."""
    with Image.open(original) as file:
        image = file.convert("RGB")
    side = min(image.size)
    long, short = max(side, 96), max(side * 2 // 3, 64)
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    made: list[Labelled] = []
    for name, kind, options in (
        ("portrait.jpg", image.resize((short, long)), {}),
        ("landscape.jpg", image.resize((long, short)), {}),
        ("rotated.jpg", image.resize((long, short)), {"exif": exif}),
        ("grey.jpg", image.convert("L"), {}),
        ("cmyk.jpg", image.convert("CMYK"), {}),
        ("transparent.png", image.convert("RGBA").rotate(30), {}),
    ):  # fmt: skip
        kind.save(folder / name, **options)
        made.append((folder / name, None))
    return made


def _check_there(photos: Photos) -> None:
    for path in photos.paths:
        if not path.is_file():
            raise ConfigError(f"{path} is missing")


def _drawn(folder: Path) -> list[Labelled]:
    drawn: list[Labelled] = []
    for number in range(DRAWN):
        label = number % len(FLOWERS)
        path = folder / f"{number}.jpg"
        draw_flower(label, np.random.default_rng(number), 128).save(path, quality=92)
        drawn.append((path, None))  # a model of real flowers may know such a name too
    return drawn
