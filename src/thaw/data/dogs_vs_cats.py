"""Dogs vs. Cats (Asirra: Elson et al., 2007), in the three layouts that are in use."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.photos import Photos, Splits
from thaw.download import fetch_archive
from thaw.errors import ConfigError

# fast.ai's copy of Kaggle's photos, and its checksum in fastai/data/checks.txt (839,285,364 bytes).
# That covers the first MiB only; the gzip stream's own CRC-32, which unpacking reads, the rest.
URL = "https://s3.amazonaws.com/fast-ai-sample/dogscats.tgz"
CHECKSUM = "md5-first-mib:3e483c8d6ef2175e9d395a6027eb92b7"

CLASSES = ("cat", "dog")
# Patterns of the training photos of one class below a home folder: {} is cat, {C} is Cat
FASTAI, KAGGLE, MICROSOFT = "train/{}s/*.jpg", "train/{}.*.jpg", "PetImages/{C}/*.jpg"


@dataclass(kw_only=True, eq=False)
class DogsVsCats(PhotoDataModule):
    """Up to 25,000 photos of cats and dogs; the layout under data_dir is detected.

        fast.ai     dogscats/train/cats/cat.0.jpg, .../valid/...   23,000 train, 2,000 validation
        Kaggle      dogs-vs-cats/train/cat.0.jpg                   25,000
        Microsoft   PetImages/Cat/0.jpg                            25,000, of which 2 are empty

    Empty files are left out; a line says which. `test_fraction` (0-1) of the training photos are to
    test on, the same for every seed: test1 of fast.ai and Kaggle has no labels.
    """

    name = "dogs_vs_cats"
    licence = "non-commercial research (Microsoft Research, Petfinder.com)"
    test_fraction: float = 0.2

    def prepare_data(self) -> None:
        """Downloads fast.ai's 839 MB, if no layout is there."""
        if not find_layout(self.data_dir):
            fetch_archive(URL, self.data_dir / "dogscats", checksum=CHECKSUM)

    def find_splits(self) -> Splits:
        if not (found := find_layout(self.data_dir)):
            raise ConfigError(
                f"{self.data_dir} and its folders hold no photos of cats and dogs in a known "
                f"layout: {FASTAI}, {KAGGLE} or {MICROSOFT}. Name the folder that does with "
                "paths.data_dir=PATH."
            )
        home, layout = found
        print_once(f"dogs_vs_cats: reading {home / layout}")
        val = _photos(home, "valid/{}s/*.jpg") if layout == FASTAI else None
        return Splits(CLASSES, _photos(home, layout), val or None, None)


def find_layout(data_dir: Path) -> tuple[Path, str] | None:
    """The first (home, layout) with photos of both classes; home is data_dir or a folder in it."""
    homes = (data_dir / "dogscats", *sorted(data_dir.glob("*/")), data_dir)
    pairs = ((home, layout) for home in homes for layout in (FASTAI, KAGGLE, MICROSOFT))
    return next((each for each in pairs if all(any(_files(*each, n)) for n in CLASSES)), None)


def _files(home: Path, layout: str, name: str) -> Iterator[Path]:
    files = home.glob(layout.format(name, C=name.title()))
    return (path for path in files if not path.name.startswith("."))


def _photos(home: Path, layout: str) -> Photos:
    """The photos of both classes without empty files."""
    photos = Photos.of((path, label) for label, name in enumerate(CLASSES)
                       for path in sorted(_files(home, layout, name)))  # fmt: skip
    if empty := [n for n, path in enumerate(photos.paths) if path.stat().st_size == 0]:
        names = ", ".join("/".join(photos.paths[n].parts[-2:]) for n in empty)
        print_once(f"dogs_vs_cats: {len(empty)} empty files are left out: {names}")
    return photos.subset(sorted({*range(len(photos))}.difference(empty)))
