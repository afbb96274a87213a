"""Dogs vs. Cats (Asirra: Elson et al., 2007), in the three layouts it goes around in."""

from collections import defaultdict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from thaw.data.base import PhotoDataModule
from thaw.data.checks import check, is_share, say
from thaw.data.draw import with_test
from thaw.data.photos import Photos, Splits
from thaw.download import fetch_archive
from thaw.errors import ConfigError

# fast.ai's copy of Kaggle's photos, and what fastai/data/checks.txt says of it (839,285,364 bytes;
# fastai sums up the first MiB only, nobody publishes a sum of it all). The gzip stream's own
# CRC-32, which unpacking reads, covers the rest.
URL = "https://s3.amazonaws.com/fast-ai-sample/dogscats.tgz"
CHECKSUM = "md5-first-mib:3e483c8d6ef2175e9d395a6027eb92b7"

CLASSES = ("cat", "dog")

# Folders under data_dir to look into, in this order: fast.ai's, Kaggle's two competitions,
# Microsoft's two zips, and data_dir itself
HOMES = (
    "dogscats",
    "dogs-vs-cats",
    "dogs-vs-cats-redux-kernels-edition",
    "kagglecatsanddogs_5340",
    "kagglecatsanddogs_3367a",
    ".",
)


class Layout(NamedTuple):
    """Patterns, from a home, of the photos of one class: {} stands for cat, {C} for Cat."""

    name: str
    train: str
    val: str | None


LAYOUTS = (
    Layout("fast.ai", "train/{}s/*.jpg", "valid/{}s/*.jpg"),
    Layout("Kaggle", "train/{}.*.jpg", None),
    Layout("Microsoft", "PetImages/{C}/*.jpg", None),
)


@dataclass(kw_only=True, eq=False)
class DogsVsCats(PhotoDataModule):
    """Up to 25,000 photos of cats and dogs; the layout under data_dir is found by looking.

    fast.ai     dogscats/train/cats/cat.0.jpg, .../valid/...   23,000 train, 2,000 validation
    Kaggle      dogs-vs-cats/train/cat.0.jpg                   25,000
    Microsoft   PetImages/Cat/0.jpg                            25,000, of which 2 are empty files

    test_fraction:  fraction (0-1) of the training photos held out as test photos, class by class,
                    the same ones for every seed. They must be drawn: test1 of fast.ai and Kaggle
                    has no labels. 0: no test photos

    Empty files are left out, and in Microsoft's layout pictures that lie under both labels; a
    line says which. Published errors are of fast.ai's valid/ or of a random 20 %.
    """

    name = "dogs_vs_cats"
    licence = "non-commercial research (Microsoft Research, Petfinder.com)"

    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            "test_fraction",
            self.test_fraction,
            is_share(self.test_fraction),
            "a fraction from 0 (no test photos) to below 1",
        )

    def download(self) -> None:
        if find_layouts(self.data_dir):
            return
        remedy = (
            f"put dogscats.tgz from {URL} into {self.data_dir}, or unpack Kaggle's train.zip to "
            f"{self.data_dir}/dogs-vs-cats/train, or Microsoft's zip to {self.data_dir}/PetImages, "
            "or name the folder that holds one of these with paths.data_dir=PATH, or try thaw "
            "without a network with data=demo"
        )
        fetch_archive(
            URL, self.data_dir / "dogscats", inside="dogscats", checksum=CHECKSUM, remedy=remedy
        )

    def find(self) -> Splits:
        found = find_layouts(self.data_dir)
        if not found:
            raise ConfigError(
                f"{self.data_dir} holds no photos of cats and dogs in a known layout: looked for "
                + ", ".join(layout.train for layout in LAYOUTS)
                + f" in {', '.join(HOMES)}. Name the folder with paths.data_dir=PATH."
            )
        home, layout = found[0]
        if len(found) > 1:
            others = ", ".join(f"{other} ({name.name})" for other, name in found[1:])
            say(f"dogs_vs_cats: reading {home} ({layout.name}), not {others}")
        train = _without_empty(_photos(home, layout.train))
        if layout.name == "Microsoft":
            train = _without_contested(train)
        val = _without_empty(_photos(home, layout.val)) if layout.val else None
        return with_test(Splits(CLASSES, train, val or None, None), self.test_fraction)


def find_layouts(data_dir: Path) -> list[tuple[Path, Layout]]:
    """Every (home, layout) with photos of both classes, in the order of preference."""
    return [
        (data_dir / home, layout)
        for home in HOMES
        for layout in LAYOUTS
        if all(_any(data_dir / home, _pattern(layout.train, name)) for name in CLASSES)
    ]


def _pattern(pattern: str, name: str) -> str:
    return pattern.format(name, C=name.title())


def _any(home: Path, pattern: str) -> bool:
    return next(home.glob(pattern), None) is not None


def _photos(home: Path, pattern: str) -> Photos:
    files = [
        sorted(p for p in home.glob(_pattern(pattern, name)) if not p.name.startswith("."))
        for name in CLASSES
    ]
    return Photos(
        tuple(file for group in files for file in group),
        tuple(label for label, group in enumerate(files) for _ in group),
    )


def _without_empty(photos: Photos) -> Photos:
    empty = {i for i, path in enumerate(photos.paths) if path.stat().st_size == 0}
    return _without(photos, empty, "empty files")


def _without_contested(photos: Photos) -> Photos:
    """Leave out pictures that lie under both labels, byte by byte the same: both times, for
    nothing says which label is right.

    Three sieves, each for what passed the one before: size, 4 KiB in the middle, all bytes. The
    sizes of 25,000 photos nearly all meet another's, so the second one does the work.
    """
    suspects = list(range(len(photos)))
    for sieve in (_size, _middle, _digest):
        groups: defaultdict[object, list[int]] = defaultdict(list)
        for i in suspects:
            groups[sieve(photos.paths[i])].append(i)
        both = [g for g in groups.values() if len({photos.labels[i] for i in g}) > 1]
        suspects = [i for group in both for i in group]
    return _without(photos, set(suspects), "pictures that lie under both labels")


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> tuple[int, bytes]:
    size = _size(path)
    with path.open("rb", buffering=0) as file:
        file.seek(size // 2)
        return size, file.read(4096)


def _digest(path: Path) -> bytes:
    return sha256(path.read_bytes()).digest()


def _without(photos: Photos, left_out: set[int], why: str) -> Photos:
    if not left_out:
        return photos
    names = ", ".join("/".join(photos.paths[i].parts[-2:]) for i in sorted(left_out))
    say(f"dogs_vs_cats: {len(left_out)} {why} are left out: {names}")
    return photos.pick([i for i in range(len(photos)) if i not in left_out])
