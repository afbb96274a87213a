"""The photos that an export is tested on, and those that int8 is calibrated on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from thaw.data.base import PhotoDataModule
from thaw.data.decode import decode
from thaw.data.flowers import FLOWERS, draw_flower
from thaw.data.photos import Photos, picture_files
from thaw.errors import ConfigError, PhotoError, ThawError, reason
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
    tested, calibrating = whole(spread(tested, TESTED)), whole(spread(calibrating, CALIBRATING))
    if not tested:
        raise ConfigError(f"{source}: none can be read; give others by --photos FOLDER")
    return source, tested, [path for path, _ in calibrating]


def whole(photos: Sequence[Labelled]) -> list[Labelled]:
    """The photos that can be read; prints how many cannot."""
    errors: dict[Path, PhotoError] = {}
    for path, _ in photos:
        try:
            decode(path)
        except PhotoError as error:
            errors[path] = error
    if errors:
        first = next(iter(errors.values()))
        print(f"{len(errors)} of {len(photos)} photos passed over, the first: {first}")
    return [photo for photo in photos if photo[0] not in errors]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced: of a list by class, all classes."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]


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
    for path in photos.paths:
        if not path.is_file():
            raise ConfigError(f"{path} is missing")
    names = [data.classes[label] for label in photos.labels]
    return [*zip(photos.paths, names, strict=True)]


def _drawn(folder: Path) -> list[Labelled]:
    drawn: list[Labelled] = []
    for number in range(DRAWN):
        label = number % len(FLOWERS)
        path = folder / f"{number}.jpg"
        draw_flower(label, np.random.default_rng(number), 128).save(path, quality=92)
        drawn.append((path, None))  # a model of real flowers may know such a name too
    return drawn
