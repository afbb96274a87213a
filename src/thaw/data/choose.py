"""Settings that few runs have: data.classes, data.skip and data.groups."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from thaw.data.base import PhotoDataModule, print_once
from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError, check, near


def narrow(module: PhotoDataModule, splits: Splits) -> Splits:
    """Leaves out what data.skip lists and unwanted classes, and names the groups of the others."""
    out: set[Path] = set()
    if module.skip is not None:
        folders = (module.folder, module.data_dir)
        out = read_skip(Path(module.skip).expanduser(), folders, splits)
        print_once(f"data      data.skip={module.skip}: {len(out)} photos are left out")
        module.skipped = len(out)
    if module.wanted is not None:
        classes = check_classes(module.wanted, splits)
        labels = {k: classes.index(n) for k, n in enumerate(splits.classes) if n in classes}
        parts: dict[str, Any] = {
            name: Photos.of((p, labels[k]) for p, k in part.pairs() if k in labels) or None
            for name, part in splits.items()
        }
        splits = replace(splits, classes=classes, **parts)
    splits = splits.without(out, f"data.skip={module.skip}")
    if module.groups and module.group_of is None:
        module.group_of = grouping(module.groups, module.folder)
    if of := module.group_of:
        parts = {name: replace(part, groups=tuple(map(of, part.paths)))
                 for name, part in splits.items()}  # fmt: skip
        splits = replace(splits, **parts)
    return splits


def check_classes(names: Sequence[object], splits: Splits) -> tuple[str, ...]:
    """The names; raises a ConfigError unless they are different classes of the splits."""
    fits = len({*map(str, names)}) == len(names) > 1
    check(fits, "data.classes", names, "a list of two or more different names, or null")
    for name in map(str, names):
        if name not in splits.classes:
            hint = f"{near(name, splits.classes)}. There are: {', '.join(splits.classes)}"
            raise ConfigError(f"data.classes: there is no class {name!r}{hint}")
    return tuple(map(str, names))


def read_skip(file: Path, folders: Sequence[Path], splits: Splits) -> set[Path]:
    """The photos that a text file lists: one path a line, from a folder or absolute.

    `#` at the start of a line or behind a space begins a comment. Raises a ConfigError if the file
    is missing or a line names no photo of the splits.
    """
    if not file.is_file():
        raise ConfigError(f"data.skip={file}: no such file (looked in {Path.cwd()})")
    photos = {os.path.normpath(p.absolute()): p for _, part in splits.items() for p in part.paths}
    listed: set[Path] = set()
    for number, line in enumerate(file.read_text("utf-8-sig", "surrogateescape").splitlines(), 1):
        names = [line.strip(), re.split(r"(?:^|\s)#", line)[0].strip()]  # a name may hold a " #"
        places = [os.path.normpath(f.absolute() / name) for name in names for f in folders]
        if found := [photos[place] for place in places if place in photos]:
            listed.add(found[0])
        elif names[1]:
            raise ConfigError(
                f"data.skip={file}, line {number}: there is no photo {names[1]}. Give paths from "
                f"{folders[0]} or absolute ones; or delete the line."
            )
    return listed


def grouping(pattern: str, folder: Path) -> Callable[[Path], str]:
    """Gives the name of a photo's group: what the pattern, or its brackets, find in the path.

    Raises a ConfigError if it is no regular expression, and later for a path without a match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.groups={pattern}: is no regular expression ({error})") from error

    def group_of(path: Path) -> str:
        name = Path(os.path.relpath(path, folder)).as_posix()
        if found := expression.search(name):
            return " ".join(part or "" for part in found.groups()) or found[0]
        raise ConfigError(
            f"data.groups={pattern}: is not in the path {name}, so that photo has no group. Give a "
            "regular expression that all paths match."
        )

    return group_of


def check_groups(splits: Splits, source: Splits, *, wants_val: bool) -> None:
    """Raises a ConfigError if a group is in two splits, or the draws left a class untrained.

    Also if validation photos are wanted and no group could be drawn for them.
    """
    owner: dict[str, str] = {}
    for name, photos in splits.items():
        for group in photos.groups or ():
            if (other := owner.setdefault(group, name)) != name:
                raise ConfigError(
                    f"data.groups: group {group!r} has photos in {other} and in {name}. Move them "
                    "into one split, or leave the splits to data.val_fraction and test_fraction; "
                    "data.groups='' does without the column group of a table."
                )
    if lost := set(source.train.labels).difference(splits.train.labels):
        raise ConfigError(
            f"data.groups: all groups with class {splits.classes[min(lost)]!r} were drawn for "
            "validation or test. Change data.seed, or choose smaller groups."
        )
    if wants_val and not splits.val:
        raise ConfigError(
            f"data.groups: {len(owner)} groups are too few to draw validation photos from. Choose "
            "smaller groups, or set data.val_fraction=0."
        )
    print_once(f"data      {len(owner):,} groups, none of them in two splits")
