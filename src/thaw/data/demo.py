"""Pictures that thaw draws itself: flowers to fine-tune on, shapes to pretrain the tiny backbone.

They are written once, as JPEG files below `cache_dir`, and then read as any folder of photos is.
A picture depends on its split, class and number only: never on how many others are drawn.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from filelock import FileLock
from PIL import Image

from thaw.data import drawing, shapes
from thaw.data.base import PhotoDataModule
from thaw.data.checks import check, is_whole
from thaw.data.folder import find_in
from thaw.data.photos import Splits
from thaw.data.species import FLOWERS
from thaw.errors import ConfigError

Draw = Callable[[int, np.random.Generator, int], Image.Image]  # class, randomness, pixels

QUALITY = 92  # JPEG's, 0-100: as a camera's


@dataclass(kw_only=True, eq=False)
class Drawn(PhotoDataModule):
    """Base of the sources that draw their pictures.

    train_pictures, val_pictures, test_pictures:  pictures per class of each split
    """

    licence = "MIT: the pictures are drawn by thaw"

    names: ClassVar[tuple[str, ...]]  # of the classes, in the order of `draw`'s class index
    draw: ClassVar[Draw]
    version: ClassVar[int]  # of the drawings
    size: ClassVar[int]  # pixels, height and width

    train_pictures: int = 30
    val_pictures: int = 10
    test_pictures: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        train, val, test = self.train_pictures, self.val_pictures, self.test_pictures
        check("train_pictures", train, is_whole(train, 1), "1 or more pictures per class")
        check("val_pictures", val, is_whole(val, 0), "0 or more pictures per class")
        check("test_pictures", test, is_whole(test, 0), "0 or more pictures per class")

    @property
    def folder(self) -> Path:
        """Where the pictures lie: another folder for other drawings or another number of them."""
        counts = f"{self.train_pictures}-{self.val_pictures}-{self.test_pictures}"
        return self.cache_dir / f"{self.name}-v{self.version}-{counts}"

    def download(self) -> None:
        """Draw the pictures, once for parallel jobs; the folder exists only when it is complete."""
        if self.folder.exists():
            return
        partly = self.folder.with_name(f".{self.folder.name}.partly")
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder.with_name(f".{self.folder.name}.lock")):
                if self.folder.exists():  # another process has drawn while this one waited
                    return
                shutil.rmtree(partly, ignore_errors=True)  # of a process that was killed
                self._draw_all(partly)
                partly.rename(self.folder)
        except OSError as error:
            raise ConfigError(
                f"paths.cache_dir={self.cache_dir}: the {self.name} pictures cannot be written "
                f"there ({error}). Give a folder that can be written to."
            ) from error

    def find(self) -> Splits:
        return find_in(self.folder)

    def _draw_all(self, folder: Path) -> None:
        splits = {
            "train": self.train_pictures,
            "val": self.val_pictures,
            "test": self.test_pictures,
        }
        total = sum(splits.values()) * len(self.names)
        print(f"Drawing {total:,} {self.name} pictures into {self.folder}", flush=True)
        for number, (split, count) in enumerate(splits.items()):
            for label, name in enumerate(self.names):
                if count:
                    (folder / split / name).mkdir(parents=True)
                for i in range(count):
                    picture = type(self).draw(
                        label, np.random.default_rng([number, label, i]), self.size
                    )
                    picture.save(folder / split / name / f"{i:04d}.jpg", quality=QUALITY)


@dataclass(kw_only=True, eq=False)
class Demo(Drawn):
    """Flowers of sixteen look-alike species: offline, and fine-grained enough to need a body."""

    name = "demo"
    names = FLOWERS
    draw = staticmethod(drawing.draw_flower)
    version = drawing.VERSION
    size = 128

    batch_size: int = 16  # few-shot, 160 pictures, still makes 10 steps an epoch


@dataclass(kw_only=True, eq=False)
class Shapes(Drawn):
    """Shapes filled with textures, no flowers: what the tiny backbone is pretrained on."""

    name = "shapes"
    names = shapes.SHAPES
    draw = staticmethod(shapes.draw_shape)
    version = shapes.VERSION
    size = 96

    train_pictures: int = 100
    val_pictures: int = 5
    test_pictures: int = 0
