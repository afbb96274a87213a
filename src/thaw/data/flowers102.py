"""Oxford 102 Flowers (Nilsback and Zisserman, 2008)."""

from dataclasses import dataclass
from typing import Literal

from scipy.io import loadmat
from torchvision.datasets import Flowers102 as Torchvision

from thaw.data.base import PhotoDataModule
from thaw.data.photos import Photos, Splits
from thaw.download import fetch, fetch_archive, offline

# Addresses and MD5 sums as in torchvision.datasets.Flowers102 (torchvision 0.29)
URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
PHOTOS = ("102flowers.tgz", "md5:52808999861908f626f3c1f4e79d11fa")
LABELS = ("imagelabels.mat", "md5:e0620be6f572b9609742df49c70aed4d")
SPLITS = ("setid.mat", "md5:a5357ecc9cb78c4bef273ce3793fc85c")


@dataclass(kw_only=True, eq=False)
class Flowers102(PhotoDataModule):
    """8,189 photos of 102 flowers, in data_dir/flowers-102 (torchvision's layout).

    The official splits share two pictures: 07307 (train) is 07309 (test), and 08067 (test) is 08077
    (val). They stay, so that numbers compare with everybody's.

    Args:
        split: "official": 1,020 train (10 per class), 1,020 validation and 6,149 test photos.
            "trainval": 2,040 train, no validation (or data.val_fraction of the 2,040), for the last
            refit when every choice is made. "swapped": 6,149 train and 2,040 validation photos, no
            test, as many tutorials do; no number of it is a test result.
    """

    name, home = "flowers102", "flowers-102"
    licence = "photos from the web, owners not named; research use"
    split: Literal["official", "trainval", "swapped"] = "official"

    def prepare_data(self) -> None:
        """Downloads 345 MB, if they are not there."""
        for name, checksum in (LABELS, SPLITS):
            url, path = URL + name, self.folder / name
            fetch(url, path, checksum=checksum, remedy=offline(url, path))
        fetch_archive(URL + PHOTOS[0], self.folder / "jpg", checksum=PHOTOS[1])

    def find_splits(self) -> Splits:
        labels = loadmat(self.folder / LABELS[0], squeeze_me=True)["labels"]  # 1 to 102
        ids = loadmat(self.folder / SPLITS[0], squeeze_me=True)

        def photos(*keys: str) -> Photos:
            return Photos.of(
                (self.folder / "jpg" / f"image_{number:05d}.jpg", int(labels[number - 1]) - 1)
                for number in sorted(int(number) for key in keys for number in ids[key])
            )

        train, val, test = photos("trnid"), photos("valid"), photos("tstid")
        if self.split == "trainval":
            train, val = photos("trnid", "valid"), Photos((), ())
        elif self.split == "swapped":
            train, val, test = test, photos("trnid", "valid"), None
        return Splits(tuple(Torchvision.classes), train, val, test)
