"""Your own photos: one sub-folder per class, with or without train/val/test folders above them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.photos import Photos, Splits
from thaw.data.picture_files import SUFFIXES, all_files, picture_files, visible
from thaw.errors import ConfigError
from thaw.store import make_once

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
          "test": "test", "testing": "test"}  # fmt: skip
LAYOUT = "Give ROOT/<class>/*.jpg, or ROOT/train/<class>/*.jpg and as you like ROOT/val, ROOT/test."
Layout = dict[str, tuple[Path, list[Path]]]  # name of split -> its folder and its class folders


@dataclass(kw_only=True, eq=False)
class Folder(PhotoDataModule):
    """Your own photos in the folder `root`, in one of the layouts that LAYOUT describes.

    Or in a zip or tar, which is unpacked into the cache. `test_fraction` (0-1) of the training
    photos are to test on, the same for every seed; 0: the photos in root/test, if there are any.
    """

    name = "folder"
    licence = "your own photos: whatever holds for them"
    root: Path
    test_fraction: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.root = self.folder = Path(self.root).expanduser()

    def find_splits(self) -> Splits:
        """Lists the photos below `root`; folders named in data.classes are classes in any case."""
        if self.root.is_file():
            self.folder = _unpacked(self.root, self.cache_dir)
        root, wanted = self.folder, self.wanted or ()
        if not root.is_dir():
            raise ConfigError(f"data.root={root} is no folder (looked in {Path.cwd()}). {LAYOUT}")
        ignored: set[Path] = set()
        layout = _layout(root, wanted, ignored)
        folders = layout["train"][1]
        labels = {folder.name: label for label, folder in enumerate(folders)}
        inside = [path.name for path in _subfolders(folders[0])] if folders else []
        same = all([path.name for path in visible(each)] == inside for each in folders)
        fault = ""
        if len(labels) < 2:
            fault = f"found {len(labels)} class folders, two or more are needed"
        elif same and len(inside) > 1 and not wanted:
            fault = f"all of {', '.join(labels)} hold the same folders, {', '.join(inside)}. If "
            fault += f"they are classes, give data.classes=[{','.join(labels)}]"
        if fault:
            hint = f" Is it data.root={folders[0]}?" if inside else ""
            raise ConfigError(f"data.root={root}: {fault}. {LAYOUT}{hint}")
        splits = {name: _photos(*pair, labels, ignored) for name, pair in layout.items()}
        there = set(splits["train"].labels)
        empty = [folder for label, folder in enumerate(folders) if label not in there]
        empty += [layout[name][0] for name, photos in splits.items() if not photos]
        if empty:
            raise ConfigError(
                f"data.root={root}: the folder {empty[0]} holds no pictures ({' '.join(SUFFIXES)}) "
                "in class folders. Add some or delete the folder."
            )
        if ignored:
            what = f"{len(ignored)} hidden or system files and links that lead back up"
            print_once(f"data.root={root}: ignored {what}, as {min(ignored)}")
        return Splits(tuple(labels), splits["train"], splits.get("val"), splits.get("test"))


def _unpacked(archive: Path, cache_dir: Path) -> Path:
    """The folder in the cache that a user's archive is unpacked into, once; or a ConfigError."""
    from thaw.download import BROKEN, unpack  # which import network libraries

    facts = archive.stat()
    folder = cache_dir / "archives" / f"{archive.name}-{facts.st_size}-{facts.st_mtime_ns}"
    try:
        make_once(folder, lambda part: unpack(archive, part))
    except BROKEN as error:
        hint = "Make it anew, or unpack it yourself and give the folder"
        raise ConfigError(f"data.root={archive}: cannot be unpacked: {error}. {hint}.") from error
    inside = list(visible(folder))
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _layout(root: Path, wanted: Collection[str], ignored: set[Path]) -> Layout:
    """Finds the splits; "train" is `root` if that holds the class folders itself.

    A folder named as a split is one only if it holds folders. With pictures right inside it,
    "train" is a class (beside "plane", for example), and "test" is without labels.
    """
    layout: Layout = {}
    others: list[Path] = []
    for folder in _subfolders(root, ignored):
        split = None if folder.name in wanted else SPLITS.get(folder.name.lower())
        inside = _subfolders(folder, ignored) if split else []
        if split in layout:
            raise ConfigError(f"data.root={root} holds two folders for {split} photos. Keep one.")
        if split == "test" and not inside and any(picture_files(folder)):
            print_once(f"{folder}: has no class folders, so its photos have no labels: not tested")
        elif not split or (split == "train" and not inside):
            others.append(folder)
        else:
            layout[split] = (folder, inside)
    if len({folder.resolve() for folder, _ in layout.values()}) < len(layout):
        raise ConfigError(f"data.root={root}: two of {', '.join(layout)} are the same folder.")
    if "train" in layout and others:
        names = ", ".join(folder.name for folder in others)
        print_once(f"data.root={root}: not read, beside train/: {names}")
    return {"train": (root, others), **layout}


def _photos(home: Path, folders: list[Path], labels: dict[str, int], ignored: set[Path]) -> Photos:
    """The pictures of one split, by class and then by name."""
    if unknown := [folder.name for folder in folders if folder.name not in labels]:
        raise ConfigError(
            f"{home} has class folders that the training photos have not: {', '.join(unknown)}. "
            "Rename or move them."
        )
    found = [(path, labels[each.name]) for each in folders for path in all_files(each, ignored)]
    pictures = [pair for pair in found if pair[0].suffix.lower() in SUFFIXES]
    others = {path for path in visible(home, ignored) if not path.is_dir()}
    others |= {path for path, _ in found}.difference(path for path, _ in pictures)
    if others:
        print_once(f"{home}: {len(others)} files are left out, as {min(others).name}")
    return Photos.of(pictures)


def _subfolders(folder: Path, ignored: set[Path] | None = None) -> list[Path]:
    return [path for path in visible(folder, ignored) if path.is_dir()]
