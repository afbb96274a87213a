"""Your own photos: one sub-folder per class, with or without train/val/test folders above them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thaw.data.base import PhotoDataModule
from thaw.data.checks import check, is_share, say
from thaw.data.draw import with_test
from thaw.data.photos import Photos, Splits
from thaw.data.picture_files import SUFFIXES, all_files, natural, visible
from thaw.errors import ConfigError

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

LAYOUT = (
    "Either ROOT/<class>/*.jpg, or ROOT/train/<class>/*.jpg with ROOT/val (or valid, validation) "
    "and ROOT/test beside it as you like."
)


@dataclass(kw_only=True, eq=False)
class Folder(PhotoDataModule):
    """Photos in `root`, found by looking; LAYOUT says how they may lie.

    root:           folder of the photos; relative to the current directory
    test_fraction:  fraction (0-1) of the training photos held out as test photos, class by class,
                    the same ones for every seed; 0: only what lies in root/test, if anything
    """

    name = "folder"
    licence = "your own photos: whatever holds for them"

    root: Path
    test_fraction: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.root = Path(self.root).expanduser()
        check(
            "test_fraction",
            self.test_fraction,
            is_share(self.test_fraction),
            "a fraction from 0 (no more than root/test holds) to below 1",
        )

    def find(self) -> Splits:
        return with_test(find_in(self.root), self.test_fraction)


def find_in(root: Path) -> Splits:
    """Read either layout under `root`. ConfigError where it is neither, or ambiguous."""
    if not root.is_dir():
        raise ConfigError(
            f"data.root={root} is no folder (looked in {Path.cwd()}). Give one. {LAYOUT}"
        )
    folders = _split_folders(root)
    train_root = folders.get("train", root)
    classes = tuple(sorted((f.name for f in _subfolders(train_root)), key=natural))
    if len(classes) < 2:
        raise ConfigError(
            f"data.root={root}: found {len(classes)} class folders in {train_root}, and two or "
            f"more are needed. {LAYOUT}"
        )
    splits = {name: _photos(folder, classes) for name, folder in folders.items()}
    train = splits["train"] if folders else _photos(root, classes)
    for label, name in enumerate(classes):
        if label not in train.labels:
            raise ConfigError(
                f"data.root={root}: the class folder {train_root / name} holds no pictures "
                f"({' '.join(SUFFIXES)}). Add some or delete the folder."
            )
    for name in ("val", "test"):
        if name in splits and not splits[name]:
            raise ConfigError(
                f"data.root={root}: {folders[name]} holds no pictures. Add some or delete the "
                "folder."
            )
    return Splits(classes, train, splits.get("val"), splits.get("test"))


def _split_folders(root: Path) -> dict[str, Path]:
    """Name of split -> its folder; empty where `root` holds the classes themselves.

    It is the folders inside root/train that make it a split: with pictures right inside it,
    "train" is a class (beside "plane", say).
    """
    folders: dict[str, Path] = {}
    others = []
    for folder in _subfolders(root):
        split = next((s for s, names in SPLIT_NAMES.items() if folder.name.lower() in names), None)
        if split is None:
            others.append(folder.name)
        elif split in folders:
            raise ConfigError(
                f"data.root={root} holds both {folders[split].name}/ and {folder.name}/. Keep one."
            )
        else:
            folders[split] = folder
    if "train" not in folders or not list(_subfolders(folders["train"])):
        if folders and not others:
            raise ConfigError(f"data.root={root} has {', '.join(sorted(folders))} only. {LAYOUT}")
        return {}
    if others:
        say(f"data.root={root}: not read, beside train/: {', '.join(others)}")
    return folders


def _photos(folder: Path, classes: tuple[str, ...]) -> Photos:
    """All pictures of one split, by class and then by name."""
    unknown = [f.name for f in _subfolders(folder) if f.name not in classes]
    if unknown:
        raise ConfigError(
            f"{folder} has class folders that the training photos have not: {', '.join(unknown)}. "
            "Such photos could never be right; rename or move them."
        )
    paths: list[Path] = []
    labels: list[int] = []
    left_out: list[Path] = [p for p in visible(folder) if p.is_file()]
    for label, name in enumerate(classes):
        files = list(all_files(folder / name)) if (folder / name).is_dir() else []
        pictures = [f for f in files if f.suffix.lower() in SUFFIXES]
        left_out += [f for f in files if f.suffix.lower() not in SUFFIXES]
        paths += pictures
        labels += [label] * len(pictures)
    absent = [name for label, name in enumerate(classes) if label not in labels]
    if absent and paths:
        say(f"{folder} has no picture of {len(absent)} classes: {', '.join(absent)}")
    if left_out:
        say(f"{folder}: {len(left_out)} files are left out, as {left_out[0].relative_to(folder)}")
    return Photos(tuple(paths), tuple(labels))


def _subfolders(folder: Path) -> Iterator[Path]:
    return (p for p in visible(folder) if p.is_dir())
