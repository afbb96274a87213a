"""Your own photos: one sub-folder per class, with or without train/val/test folders above them."""

from dataclasses import dataclass
from pathlib import Path

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.checks import check, is_fraction
from thaw.data.photos import Photos, Splits
from thaw.data.picture_files import SUFFIXES, all_files, natural, visible
from thaw.data.splitting import add_test_split
from thaw.errors import ConfigError

SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

LAYOUT = (
    "Either ROOT/<class>/*.jpg, or ROOT/train/<class>/*.jpg with ROOT/val (or valid, validation) "
    "and ROOT/test beside it as you like."
)


@dataclass(kw_only=True, eq=False)
class Folder(PhotoDataModule):
    """Your own photos below a folder, in one of the two layouts that LAYOUT describes.

    Args:
        root: folder of the photos, relative to the current directory.
        test_fraction: fraction (0-1) of the training photos to test on, class by class, the same
            ones for every seed; 0: only the photos in root/test, if there are any.
    """

    name = "folder"
    licence = "your own photos: whatever holds for them"

    root: Path
    test_fraction: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.root = Path(self.root).expanduser()
        rule = "a fraction from 0 (no more than root/test holds) to below 1"
        check("test_fraction", self.test_fraction, is_fraction(self.test_fraction), rule)

    def find_splits(self) -> Splits:
        """List the photos below `root`."""
        return add_test_split(find_in(self.root), self.test_fraction)


def find_in(root: Path) -> Splits:
    """List the photos below `root`; raise a ConfigError if it has neither layout, or both."""
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
    empty = [train_root / name for k, name in enumerate(classes) if k not in train.labels]
    empty += [folders[name] for name, photos in splits.items() if not photos]
    if empty:
        raise ConfigError(
            f"data.root={root}: the folder {empty[0]} holds no pictures ({' '.join(SUFFIXES)}). "
            "Add some or delete the folder."
        )
    return Splits(classes, train, splits.get("val"), splits.get("test"))


def _split_folders(root: Path) -> dict[str, Path]:
    """Name of split -> its folder; empty if `root` holds the class folders themselves.

    root/train is a split only if it holds folders. With pictures right inside it, "train" is a
    class (beside "plane", for example).
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
    if "train" not in folders or not _subfolders(folders["train"]):
        if folders and not others:
            raise ConfigError(f"data.root={root} has {', '.join(sorted(folders))} only. {LAYOUT}")
        return {}
    if others:
        print_once(f"data.root={root}: not read, beside train/: {', '.join(others)}")
    return folders


def _photos(folder: Path, classes: tuple[str, ...]) -> Photos:
    """The pictures of one split, by class and then by name."""
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
        print_once(f"{folder} has no picture of {len(absent)} classes: {', '.join(absent)}")
    if left_out:
        example = left_out[0].relative_to(folder)
        print_once(f"{folder}: {len(left_out)} files are left out, as {example}")
    return Photos(tuple(paths), tuple(labels))


def _subfolders(folder: Path) -> list[Path]:
    return [p for p in visible(folder) if p.is_dir()]
