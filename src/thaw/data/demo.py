"""The demo: flowers that thaw draws itself, so that everything can be tried without a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.photos import Photos, Splits, visible
from thaw.store import make_once

VERSION = 3  # part of the cache folder's name: raise it when any picture changes


@dataclass(kw_only=True, eq=False)
class Demo(PhotoDataModule):
    """Flowers of sixteen look-alike species; no picture depends on how many others are drawn."""

    name = "demo"
    licence = "MIT: the pictures are drawn by thaw"
    size: ClassVar[int] = 128  # pixels, height and width
    train_pictures: int = 30  # per class
    val_pictures: int = 10
    test_pictures: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = f"{self.train_pictures}-{self.val_pictures}-{self.test_pictures}"
        self.folder = self.cache_dir / f"demo-v{VERSION}-{counts}"

    def prepare_data(self) -> None:
        """Draws the pictures, once for parallel jobs; the folder exists only if it is complete."""
        make_once(self.folder, self._draw)

    def find_splits(self) -> Splits:
        classes = tuple(path.name for path in visible(self.folder / "train"))

        def photos(split: str) -> Photos:
            numbers = range(getattr(self, f"{split}_pictures"))
            folders = [(self.folder / split / name, k) for k, name in enumerate(classes)]
            return Photos.of((folder / f"{i:04d}.jpg", k) for folder, k in folders for i in numbers)

        return Splits(classes, photos("train"), photos("val") or None, photos("test") or None)

    def _draw(self, folder: Path) -> Path:
        print_once(f"Drawing pictures of flowers into {self.folder}")
        from thaw.data import flowers  # later runs do not load it

        for number, split in enumerate(("train", "val", "test")):
            for label, name in enumerate(flowers.FLOWERS):
                for i in range(getattr(self, f"{split}_pictures")):
                    path = folder / split / name / f"{i:04d}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    rng = np.random.default_rng([number, label, i])
                    flowers.draw_flower(label, rng, self.size).save(path, quality=92)
        return folder
