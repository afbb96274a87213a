"""Seeded splits of photos, class by class.

A photo's rank in a split is the hash of the split's rule and of the photo's own name. So a split is
the same on every machine; 5 photos per class are among the 10 of the same rule; and adding or
removing a photo moves only that photo.
"""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError

Classes = tuple[str, ...]  # names, in the order of the labels
Members = dict[int, list[int]]  # label -> indices of its photos


def split_fraction(photos: Photos, fraction: float, *, rule: str) -> tuple[Photos, Photos]:
    """Draws a fraction (0-1) of each class; returns the drawn photos and the rest.

    At least one photo of a class is drawn and at least one is left; a single one is not drawn.
    """
    drawn: list[int] = []
    for members in _by_class(photos, rule).values():
        if fraction > 0 and len(members) >= 2:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            drawn += members[:count]
    return _split(photos, drawn)


def draw_per_class(photos: Photos, count: int, classes: Classes, *, rule: str) -> Photos:
    """Draws `count` photos of each class; raise a ConfigError if a class has fewer."""
    members = _by_class(photos, rule)
    _check_sizes(members, classes, "train_per_class", count)
    return photos.subset(sorted(i for group in members.values() for i in group[:count]))


def split_fold(photos: Photos, folds: int, fold: int, classes: Classes) -> tuple[Photos, Photos]:
    """Splits for k-fold cross-validation; returns the photos of the fold and the rest.

    Folds are the same for every seed; their sizes differ by one photo at most, in each class and in
    total. Raises a ConfigError if a class has fewer photos than there are folds.
    """
    members = _by_class(photos, "folds")
    _check_sizes(members, classes, "folds", folds)
    # Dealt out like cards, one class after another, so that remainders spread evenly.
    dealt = [index for label in sorted(members) for index in members[label]]
    return _split(photos, dealt[fold::folds])


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


def _check_sizes(members: Members, classes: Classes, key: str, least: int) -> None:
    size, name = min((len(members.get(label, ())), name) for label, name in enumerate(classes))
    if size < least:
        raise ConfigError(
            f"data.{key}={least} is not allowed: class {name!r} has only {size} photos to draw "
            f"from. Give less, add photos of it, or set data.{key}=null."
        )


def _by_class(photos: Photos, rule: str) -> Members:
    """The indices of each label's photos, in the order in which the rule draws them."""

    def rank(index: int) -> tuple[bytes, Path]:
        path = photos.paths[index]
        # With the folder's name, since PetImages has Cat/0.jpg and Dog/0.jpg; without the whole
        # path, so that photos moved to another disk are split as before.
        name = f"{rule} {path.parent.name}/{path.name}"
        return sha256(name.encode("utf-8", "surrogateescape")).digest(), path

    members: Members = {}
    for index in sorted(range(len(photos)), key=rank):
        members.setdefault(photos.labels[index], []).append(index)
    return members
