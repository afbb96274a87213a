"""Draws of photos: seeded splits, class by class; lists to leave out; groups; and the order.

A photo's rank in a split is the hash of the split's rule and of the photo's own name. So a split is
the same on every machine; 5 photos per class are among the 10 of the same rule; and adding or
removing a photo moves only that photo. Photos of one group stay together, ranked by its name.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError, check

Classes = tuple[str, ...]  # names, in the order of the labels
Group = list[int]  # indices of photos that stay together; without groups, of one
Members = dict[int, list[Group]]  # of each label


def read_skip(file: Path, folders: Sequence[Path], splits: Splits) -> set[Path]:
    """The photos that a text file lists, a path a line; a `#` first or after a space comments."""
    if not (file := file.expanduser()).is_file():
        raise ConfigError(f"data.skip={file}: no such file (looked in {Path.cwd()})")
    photos = {os.path.normpath(p.absolute()): p for _, part in splits.items() for p in part.paths}
    listed: set[Path] = set()
    for number, line in enumerate(file.read_text("utf-8-sig", "surrogateescape").splitlines(), 1):
        names = [line.strip(), re.split(r"(?:^|\s)#", line)[0].strip()]  # a name may hold a " #"
        places = [os.path.normpath(f.absolute() / name) for name in names for f in folders]
        if found := [photos[place] for place in places if place in photos]:
            listed.add(found[0])
        elif names[1]:
            fault = f"line {number}: there is no photo {names[1]}"
            hint = f"Give paths from {folders[0]} or absolute ones; or delete the line."
            raise ConfigError(f"data.skip={file}, {fault}. {hint}")
    return listed


def grouping(pattern: str, folder: Path) -> Callable[[Photos], Photos]:
    """Names each photo's group: what the pattern, or its brackets, find in the path."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.groups={pattern}: is no regular expression ({error})") from error

    def group_of(path: Path) -> str:
        name = Path(os.path.relpath(path, folder)).as_posix()
        if found := expression.search(name):
            return " ".join(part or "" for part in found.groups()) or found[0]
        fault = f"is not in the path {name}, so that photo has no group"
        hint = "Give a column of the table, or a regular expression that all paths match."
        raise ConfigError(f"data.groups={pattern}: {fault}. {hint}")

    return lambda photos: replace(photos, groups=tuple(map(group_of, photos.paths)))


def count_groups(splits: Splits) -> int:
    """The number of groups; raises a ConfigError if one is in two splits."""
    owner: dict[str, str] = {}
    for name, photos in splits.items():
        for group in photos.groups or ():
            if (other := owner.setdefault(group, name)) != name:
                raise ConfigError(
                    f"data.groups: group {group!r} has photos in {other} and in {name}. Move them "
                    "into one split; data.groups='' does without the column group of a table."
                )
    return len(owner)


def in_proportion(splits: Splits, trainer: Mapping[str, Any], seed: int) -> Splits:
    """Where batches are limited, orders photos so that the first hold the classes in proportion."""
    limits = ("limit_train_batches", "limit_val_batches", "limit_test_batches")
    if not any(map(trainer.get, (*limits, "overfit_batches", "fast_dev_run"))):
        return splits

    def ordered(part: Photos) -> Photos:
        draw, seen, counts = random.Random(seed), Counter[int](), Counter(part.labels)
        places: dict[int, float] = {}  # 0-1, by a photo's rank in its class, which is drawn
        for index in draw.sample(range(len(part)), len(part)):
            label = part.labels[index]
            places[index] = (seen[label] + draw.random()) / counts[label]
            seen[label] += 1
        return part.subset(sorted(places, key=places.__getitem__))

    return splits.change(ordered)


def split_fraction(photos: Photos, fraction: float, *, rule: str) -> tuple[Photos, Photos]:
    """Draws a fraction (0-1) of each class; returns the drawn photos and the rest.

    At least one group of a class is drawn, and its largest is left; a single one is not drawn. A
    group that would lead away from the fraction is passed over.
    """
    drawn: Group = []
    for groups in _by_class(photos, rule).values():
        if fraction > 0 and len(groups) >= 2:
            count, taken = max(round(fraction * sum(map(len, groups))), 1), Group()
            groups.pop(max(range(len(groups)), key=lambda i: (len(groups[i]), i)))
            for group in groups:
                if abs(len(taken) + len(group) - count) < count - len(taken):
                    taken += group
            drawn += taken or min(groups, key=len)
    return _split(photos, drawn)


def draw_per_class(photos: Photos, count: int, classes: Classes, *, rule: str) -> Photos:
    """Draws `count` photos of each class; raise a ConfigError if a class has fewer."""
    members = _by_class(replace(photos, groups=None), rule)
    _check_sizes(members, classes, "train_per_class", count)
    return photos.subset(sorted(i for groups in members.values() for (i,) in groups[:count]))


def split_fold(photos: Photos, folds: int, fold: int, classes: Classes) -> tuple[Photos, Photos]:
    """Splits for k-fold cross-validation; returns the photos of the fold and the rest.

    Folds are the same for every seed; their sizes differ by one photo at most, in each class and in
    total (if no groups do). Raises a ConfigError if a class has fewer photos, or groups, than that.
    """
    members, drawn, total = _by_class(photos, "folds"), Group(), [0] * folds
    _check_sizes(members, classes, "folds", folds)
    # Dealt out like cards, one class after another, so that remainders spread evenly.
    for label in sorted(members):
        dealt = [0] * folds
        for group in sorted(members[label], key=len, reverse=True):
            place = min(range(folds), key=lambda k: (dealt[k], total[k]))
            dealt[place] += len(group)
            total[place] += len(group)
            drawn += group if place == fold else ()
    return _split(photos, drawn)


def _split(photos: Photos, drawn: list[int]) -> tuple[Photos, Photos]:
    rest = sorted(set(range(len(photos))).difference(drawn))
    return photos.subset(sorted(drawn)), photos.subset(rest)


def _check_sizes(members: Members, classes: Classes, key: str, least: int) -> None:
    size, name = min((len(members.get(label, ())), name) for label, name in enumerate(classes))
    rule = f"{size} or less, as class {name!r} has no more photos or groups to draw from; or null"
    check(least <= size, f"data.{key}", least, rule)


def _by_class(photos: Photos, rule: str) -> Members:
    """Each label's groups in the rule's order; one of several labels counts for the rarest."""
    # With the folder's name, since PetImages has Cat/0.jpg and Dog/0.jpg; without the whole path,
    # so that photos moved to another disk are split as before.
    names = photos.groups or [f"{path.parent.name}/{path.name}" for path in photos.paths]
    ranks = [sha256(f"{rule} {name}".encode("utf-8", "surrogateescape")).digest() for name in names]
    groups: dict[str | int, Group] = {}
    for _, _, index in sorted(zip(ranks, photos.paths, range(len(photos)), strict=True)):
        groups.setdefault(photos.groups[index] if photos.groups else index, []).append(index)
    sizes = Counter(photos.labels)
    members: Members = {}
    for group in groups.values():
        _, rarest = min((sizes[label], label) for label in {photos.labels[i] for i in group})
        members.setdefault(rarest, []).append(group)
    return members
