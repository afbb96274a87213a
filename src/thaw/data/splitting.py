"""Seeded splits of photos, class by class.

A photo's rank in a split is the hash of the split's rule and of the photo's own name. So a split is
the same on every machine; 5 photos per class are among the 10 of the same rule; and adding or
removing a photo moves only that photo. Photos of one group stay together, ranked by its name.
"""

from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError

Classes = tuple[str, ...]  # names, in the order of the labels
Group = list[int]  # indices of photos that stay together; without groups, of one


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
    photos = replace(photos, groups=None)
    _check_sizes(photos, classes, "train_per_class", count)
    members = _by_class(photos, rule).values()
    return photos.subset(sorted(i for groups in members for (i,) in groups[:count]))


def split_fold(photos: Photos, folds: int, fold: int, classes: Classes) -> tuple[Photos, Photos]:
    """Splits for k-fold cross-validation; returns the photos of the fold and the rest.

    Folds are the same for every seed; their sizes differ by one photo at most, in each class and in
    total (if no groups do). Raises a ConfigError if a class has fewer photos, or groups, than that.
    """
    _check_sizes(photos, classes, "folds", folds)
    members, drawn, total = _by_class(photos, "folds"), Group(), [0] * folds
    # Dealt out like cards, one class after another, so that remainders spread evenly.
    for label in sorted(members):
        dealt = [0] * folds
        for group in sorted(members[label], key=len, reverse=True):
            place = min(range(folds), key=lambda k: (dealt[k], total[k]))
            dealt[place] += len(group)
            total[place] += len(group)
            drawn += group if place == fold else ()
    return _split(photos, drawn)


def add_test_split(splits: Splits, fraction: float) -> Splits:
    """Takes a fraction (0-1) of the training photos to test on, the same photos for every seed."""
    if fraction == 0:
        return splits
    if splits.test is not None:
        raise ConfigError(
            f"data.test_fraction={fraction} has no effect: there are {len(splits.test)} test "
            "photos already. Set data.test_fraction=0."
        )
    test, train = split_fraction(splits.train, fraction, rule="test")
    return replace(splits, train=train, test=test)


def _split(photos: Photos, drawn: list[int]) -> tuple[Photos, Photos]:
    rest = sorted(set(range(len(photos))).difference(drawn))
    return photos.subset(sorted(drawn)), photos.subset(rest)


def _check_sizes(photos: Photos, classes: Classes, key: str, least: int) -> None:
    groups, what = photos.groups or range(len(photos)), "groups" if photos.groups else "photos"
    sizes = Counter(label for _, label in {*zip(groups, photos.labels, strict=True)})
    size, name = min((sizes[label], name) for label, name in enumerate(classes))
    if size < least:
        raise ConfigError(
            f"data.{key}={least} is not allowed: class {name!r} has only {size} {what} to draw "
            f"from. Give less, add photos of it, or set data.{key}=null."
        )


def _by_class(photos: Photos, rule: str) -> dict[int, list[Group]]:
    """Each label's groups, in the order in which the rule draws them.

    A group of photos of several labels counts for the rarest of them.
    """

    def rank(index: int) -> tuple[bytes, Path]:
        path = photos.paths[index]
        # With the folder's name, since PetImages has Cat/0.jpg and Dog/0.jpg; without the whole
        # path, so that photos moved to another disk are split as before.
        name = photos.groups[index] if photos.groups else f"{path.parent.name}/{path.name}"
        return sha256(f"{rule} {name}".encode("utf-8", "surrogateescape")).digest(), path

    groups: dict[str | int, Group] = {}
    for index in sorted(range(len(photos)), key=rank):
        groups.setdefault(photos.groups[index] if photos.groups else index, []).append(index)
    sizes = Counter(photos.labels)
    members: dict[int, list[Group]] = {}
    for group in groups.values():
        _, rarest = min((sizes[label], label) for label in {photos.labels[i] for i in group})
        members.setdefault(rarest, []).append(group)
    return members
