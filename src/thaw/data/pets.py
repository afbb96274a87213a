"""Oxford-IIIT Pets (Parkhi et al., 2012)."""

from dataclasses import dataclass
from typing import Literal, get_args

from thaw.data.archive import fetch_archive
from thaw.data.base import PhotoDataModule
from thaw.data.photos import Photos, Splits

# Addresses and MD5 sums as in torchvision.datasets.OxfordIIITPet (torchvision 0.29)
URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
ARCHIVES = {"images": "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
            "annotations": "md5:95a8c909bbe2e81eed6a22bccdf3f68f"}  # fmt: skip
Target = Literal["breed", "binary"]


@dataclass(kw_only=True, eq=False)
class Pets(PhotoDataModule):
    """3,680 trainval and 3,669 test photos of cats and dogs, in data_dir/oxford-iiit-pet.

    The split is the official one; validation is drawn from trainval (data.val_fraction=0 to refit
    on all of it, as papers do). The text files in annotations/ say which files belong to the set,
    so a smaller copy works if its lists are cut.

    Args:
        target: "breed": 37 classes, named as in the files' names. "binary": cat, dog.
    """

    name = "pets"
    licence = "CC BY-SA 4.0"
    target: Target = "breed"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.folder = self.data_dir / "oxford-iiit-pet"
        self.check("target", self.target in get_args(Target), " or ".join(get_args(Target)))

    def prepare_data(self) -> None:
        """Downloads 811 MB, if they are not there."""
        for name, checksum in ARCHIVES.items():
            fetch_archive(f"{URL}{name}.tar.gz", self.folder / name, checksum=checksum)

    def find_splits(self) -> Splits:
        """Reads which photo is of which class and in which split."""
        trainval, test = self._read("trainval"), self._read("test")
        breeds = {label: stem.rpartition("_")[0] for stem, label, _ in trainval + test}
        binary = self.target == "binary"
        classes = ("cat", "dog") if binary else tuple(breeds[n + 1] for n in range(len(breeds)))

        def photos(entries: list[tuple[str, int, int]]) -> Photos:
            return Photos.of(
                (self.folder / "images" / f"{stem}.jpg", (species if binary else label) - 1)
                for stem, label, species in entries
            )

        return Splits(classes, photos(trainval), None, photos(test))

    def _read(self, split: str) -> list[tuple[str, int, int]]:
        """Name without .jpg, breed (from 1) and species (1 cat, 2 dog) of each photo."""
        file = self.folder / "annotations" / f"{split}.txt"
        rows = [line.split() for line in file.read_text().splitlines() if line[:1] != "#"]
        return sorted((row[0], int(row[1]), int(row[2])) for row in rows if row)
