"""The demo: flowers that thaw draws itself, so that everything can be tried without a network."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from filelock import FileLock

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.checks import check, is_integer
from thaw.data.flowers import FLOWERS, VERSION, draw_flower
from thaw.data.folder import find_in
from thaw.data.photos import Splits
from thaw.errors import ConfigError


@dataclass(kw_only=True, eq=False)
class Demo(PhotoDataModule):
    """Flowers of sixteen look-alike species, drawn on first use and then read as photos are.

    A picture depends on its split, class and number only, never on how many others are drawn.

    Args:
        train_pictures: pictures per class of the training split.
        val_pictures: pictures per class of the validation split.
        test_pictures: pictures per class of the test split.
    """

    name = "demo"
    licence = "MIT: the pictures are drawn by thaw"
    size: ClassVar[int] = 128  # pixels, height and width

    batch_size: int = 16  # small: few-shot, 160 pictures, still makes 10 steps an epoch
    train_pictures: int = 30
    val_pictures: int = 10
    test_pictures: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("train_pictures", 1), ("val_pictures", 0), ("test_pictures", 0)):
            value = getattr(self, key)
            check(key, value, is_integer(value, least), f"{least} or more pictures per class")
        # other drawings and other counts have other folders
        counts = f"{self.train_pictures}-{self.val_pictures}-{self.test_pictures}"
        self.folder = self.cache_dir / f"demo-v{VERSION}-{counts}"

    def download(self) -> None:
        """Draw the pictures, once for parallel jobs; the folder exists only if it is complete."""
        if self.folder.exists():
            return
        partial = self.folder.with_name(f".{self.folder.name}.partial")
        try:
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder.with_name(f".{self.folder.name}.lock")):
                if not self.folder.exists():  # another process may have drawn them meanwhile
                    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
                    self._draw(partial)
                    partial.rename(self.folder)
        except OSError as error:
            raise ConfigError(
                f"paths.cache_dir={self.cache_dir}: the demo's pictures cannot be written there "
                f"({error}). Give a folder that can be written to."
            ) from error

    def find_splits(self) -> Splits:
        """List the pictures."""
        return find_in(self.folder)

    def _draw(self, folder: Path) -> None:
        counts = {name: getattr(self, f"{name}_pictures") for name in ("train", "val", "test")}
        total = sum(counts.values()) * len(FLOWERS)
        print_once(f"Drawing {total:,} pictures of flowers into {self.folder}")
        for number, (split, count) in enumerate(counts.items()):
            for label, name in enumerate(FLOWERS):
                for i in range(count):
                    path = folder / split / name / f"{i:04d}.jpg"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    rng = np.random.default_rng([number, label, i])
                    draw_flower(label, rng, self.size).save(path, quality=92)
