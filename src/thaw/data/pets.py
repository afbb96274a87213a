"""Oxford-IIIT Pets (Parkhi et al., 2012)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thaw.data.base import PhotoDataModule
from thaw.data.photos import Photos, Splits
from thaw.download import fetch_archive

# Addresses and MD5 sums as in torchvision.datasets.OxfordIIITPet (torchvision 0.29)
URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
ARCHIVES = {"images": "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            "annotations": "md5:95a8c909bbe2e81eed6a22bccdf3f68f"}  # fmt: skip


@dataclass(kw_only=True, eq=False)
class Pets(PhotoDataModule):
    """3,680 trainval and 3,669 test photos of cats and dogs, in data_dir/oxford-iiit-pet.

    The split is the official one; validation is drawn from trainval (data.val_fraction=0 to refit
    on all of it, as papers do). The text files in annotations/ say which files belong to the set,
    so a smaller copy works if its lists are cut, as long as each breed keeps a photo in
    one of the two. Breeds are named as in the files' names.
    """

    name, home = "pets", "oxford-iiit-pet"
    licence = "CC BY-SA 4.0"
    target: Literal["breed", "binary"] = "breed"

    def prepare_data(self) -> None:
        """Downloads 811 MB, if they are not there."""
        for name, checksum in ARCHIVES.items():
            fetch_archive(f"{URL}{name}.tar.gz", self.folder / name, checksum=checksum)

    def find_splits(self) -> Splits:
        trainval, test = self._read("trainval"), self._read("test")
        breeds = {label: path.stem.rpartition("_")[0] for path, label, _ in trainval + test}
        binary = self.target == "binary"
        classes = ("cat", "dog") if binary else tuple(breeds[n] for n in range(len(breeds)))

        def photos(entries: list[tuple[Path, int, int]]) -> Photos:
            return Photos.of((path, entry[binary]) for path, *entry in entries)

        return Splits(classes, photos(trainval), None, photos(test))

    def _read(self, split: str) -> list[tuple[Path, int, int]]:
        """Path, breed (from 0) and species (0 cat, 1 dog) of each photo."""
        lines = (self.folder / "annotations" / f"{split}.txt").read_text().splitlines()
        rows = (line.split() for line in lines if line.strip() and line[0] != "#")
        return sorted((self.folder / "images" / f"{row[0]}.jpg", int(row[1]) - 1, int(row[2]) - 1)
                      for row in rows)  # fmt: skip
