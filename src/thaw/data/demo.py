"""The demo: drawn flowers that come with thaw, to try everything without a network."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from thaw.data.base import PhotoDataModule
from thaw.data.photos import Photos, Splits
from thaw.store import make_once

ARCHIVE = Path(__file__).with_name("demo.zip")  # drawn by benchmarks/demo_pictures.py
VERSION = 4  # part of the cache folder's name: raise it when any picture changes


@dataclass(kw_only=True, eq=False)
class Demo(PhotoDataModule):
    """Flowers of sixteen look-alike species, the first so many pictures of each."""

    name = "demo"
    licence = "MIT: the pictures are drawn by thaw"
    train_pictures: int = 30  # per class
    val_pictures: int = 10
    test_pictures: int = 25

    def prepare_data(self) -> None:
        """Unpacks the pictures, once for parallel jobs; the folder exists only if it is whole."""
        self.folder = self.cache_dir / f"demo-v{VERSION}"
        make_once(self.folder, lambda part: shutil.unpack_archive(ARCHIVE, part) or part)

    def find_splits(self) -> Splits:
        classes = tuple(sorted(path.name for path in (self.folder / "train").glob("*/")))

        def photos(split: str) -> Photos:
            numbers = range(getattr(self, f"{split}_pictures"))
            folders = [(self.folder / split / name, k) for k, name in enumerate(classes)]
            return Photos.of((folder / f"{i:04d}.jpg", k) for folder, k in folders for i in numbers)

        return Splits(classes, photos("train"), photos("val") or None, photos("test") or None)
