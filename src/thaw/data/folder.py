"""Your own photos: one sub-folder per class, with or without train/val/test folders above them."""

from dataclasses import dataclass
from pathlib import Path

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.photos import SUFFIXES, Photos, Splits, all_files, natural, visible
from thaw.data.splitting import add_test_split
from thaw.errors import ConfigError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LAYOUT = "Give ROOT/<class>/*.jpg, or ROOT/train/<class>/*.jpg and as you like ROOT/val, ROOT/test."


@dataclass(kw_only=True, eq=False)
class Folder(PhotoDataModule):
    """Your own photos below the folder `root`, in one of the two layouts that LAYOUT describes.

    `test_fraction` (0-1) of the training photos are to test on, the same for every seed; 0: the
    photos in root/test, if there are any.
    """

    name = "folder"
    licence = "your own photos: whatever holds for them"
    root: Path
    test_fraction: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.root = Path(self.root).expanduser()
        self.check_fraction("test_fraction")

    def find_splits(self) -> Splits:
        """Lists the photos below `root`."""
        return add_test_split(find_in(self.root), self.test_fraction)


def find_in(root: Path) -> Splits:
    """Lists the photos below `root`; raise a ConfigError if it has neither layout, or both."""
    if not root.is_dir():
        raise ConfigError(f"data.root={root} is no folder (looked in {Path.cwd()}). {LAYOUT}")
    folders = _split_folders(root)
    classes = tuple(sorted((f.name for f in _subfolders(folders["train"])), key=natural))
    if len(classes) < 2:
        found = f"found {len(classes)} class folders in {folders['train']}, two or more are needed"
        raise ConfigError(f"data.root={root}: {found}. {LAYOUT}")
    splits = {name: _photos(folder, classes) for name, folder in folders.items()}
    train = splits["train"]
    empty = [folders["train"] / name for k, name in enumerate(classes) if k not in train.labels]
    empty += [folders[name] for name, photos in splits.items() if not photos]
    if empty:
        raise ConfigError(
            f"data.root={root}: the folder {empty[0]} holds no pictures ({' '.join(SUFFIXES)}). "
            "Add some or delete the folder."
        )
    return Splits(classes, train, splits.get("val"), splits.get("test"))


def _split_folders(root: Path) -> dict[str, Path]:
    """Name of split -> its folder; "train" is `root` if that holds the class folders itself.

    root/train is a split only if it holds folders. With pictures right inside it, "train" is a
    class (beside "plane", for example).
    """
    folders, others = {}, []
    for folder in _subfolders(root):
        split = SPLITS.get(folder.name.lower())
        if split in folders:
            raise ConfigError(f"data.root={root} holds two folders for {split} photos. Keep one.")
        if split:
            folders[split] = folder
        else:
            others.append(folder.name)
    if "train" in folders and _subfolders(folders["train"]):
        if others:
            print_once(f"data.root={root}: not read, beside train/: {', '.join(others)}")
        return folders
    if folders and not others:
        raise ConfigError(f"data.root={root} has {', '.join(sorted(folders))} only. {LAYOUT}")
    return {"train": root}


def _photos(folder: Path, classes: tuple[str, ...]) -> Photos:
    """The pictures of one split, by class and then by name."""
    unknown = [f.name for f in _subfolders(folder) if f.name not in classes]
    if unknown:
        raise ConfigError(
            f"{folder} has class folders that the training photos have not: {', '.join(unknown)}. "
            "Rename or move them."
        )
    files = list(all_files(folder))
    pictures = [f for f in files if f.suffix.lower() in SUFFIXES and f.parent != folder]
    labels = [classes.index(path.relative_to(folder).parts[0]) for path in pictures]
    photos = Photos(tuple(pictures), tuple(labels))
    absent = [name for label, name in enumerate(classes) if label not in labels]
    if absent and photos:
        print_once(f"{folder} has no picture of {len(absent)} classes: {', '.join(absent)}")
    if left_out := sorted(set(files).difference(pictures)):
        print_once(f"{folder}: {len(left_out)} files are left out, as {left_out[0].name}")
    return photos


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.is_dir()]
