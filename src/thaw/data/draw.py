"""Seeded draws of photos, class by class.

A photo's place in the draw is the hash of the rule and of the photo's own name. So a draw is the
same on every machine, for every order of the file system and version of torch; 5 photos per class
are among the 10 of the same rule; and a photo added or taken away moves only itself.
"""

from hashlib import sha256
from pathlib import Path

from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError


def draw(photos: Photos, fraction: float, *, rule: str) -> tuple[Photos, Photos]:
    """Split into (drawn, rest): `fraction` (0-1) of each class, rounded.

    At least one photo of each class is drawn and at least one is left, where it has two. One that
    is alone stays in the rest: a class without a training photo could not be learned.
    """
    drawn: list[int] = []
    for members in _by_class(photos, rule).values():
        if fraction > 0 and len(members) >= 2:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            drawn += members[:count]
    rest = sorted(set(range(len(photos))).difference(drawn))
    return photos.pick(sorted(drawn)), photos.pick(rest)


def draw_per_class(photos: Photos, count: int, classes: tuple[str, ...], *, rule: str) -> Photos:
    """`count` photos of each class. ConfigError where a class has fewer."""
    members = _by_class(photos, rule)
    have = {name: len(members.get(label, [])) for label, name in enumerate(classes)}
    name = min(have, key=lambda name: have[name])
    if have[name] < count:
        raise ConfigError(
            f"data.train_per_class={count} is not allowed: class {name!r} has only {have[name]} "
            f"training photos. Give {have[name]} or less, or null for all photos."
        )
    return photos.pick(sorted(i for m in members.values() for i in m[:count]))


def draw_fold(
    photos: Photos, folds: int, fold: int, classes: tuple[str, ...]
) -> tuple[Photos, Photos]:
    """Split into (held out, rest): part `fold` of `folds`, stratified.

    The parts are disjoint and make up all photos. Each class has, up to one photo, as many in each
    part, and so has the whole. The rule is fixed, not seeded: runs of several seeds agree on the
    parts. Here a photo that is added moves others too.

    Args:
        fold: from 0 to `folds` - 1.

    Raises:
        ConfigError: a class has fewer photos than there are parts.
    """
    members = _by_class(photos, "folds")
    have = {name: len(members.get(label, [])) for label, name in enumerate(classes)}
    name = min(have, key=lambda name: have[name])
    if have[name] < folds:
        remedy = f"give {have[name]} or less, or" if have[name] >= 2 else "folds need two or more:"
        raise ConfigError(
            f"data.folds={folds} is not allowed: class {name!r} has only {have[name]} photos to "
            f"train and validate on; {remedy} add photos of it, or set data.folds=null."
        )
    # dealt out class after class without a break, so that what does not divide spreads evenly
    dealt = [index for label in sorted(members) for index in members[label]]
    held = set(dealt[fold::folds])
    rest = [index for index in range(len(photos)) if index not in held]
    return photos.pick(sorted(held)), photos.pick(rest)


def with_test(splits: Splits, fraction: float) -> Splits:
    """Hold out `fraction` (0-1) of the training photos for testing, where the source has none.

    The rule is fixed, not seeded: runs of several seeds are tested on the same photos, and no run
    trains on what another one was tested on.
    """
    if fraction == 0:
        return splits
    if splits.test is not None:
        raise ConfigError(
            f"data.test_fraction={fraction} has no effect: there are {len(splits.test)} test "
            "photos already. Set data.test_fraction=0."
        )
    test, train = draw(splits.train, fraction, rule="test")
    return Splits(splits.classes, train, splits.val, test)


def _by_class(photos: Photos, rule: str) -> dict[int, list[int]]:
    """Indices of each label's photos, in the order in which the rule draws them."""

    def place(index: int) -> tuple[bytes, Path]:
        path = photos.paths[index]
        # the folder's name too: PetImages has Cat/0.jpg and Dog/0.jpg. Not the whole path: a data
        # set that moves to another disk keeps its draws.
        name = f"{rule} {path.parent.name}/{path.name}"
        return sha256(name.encode("utf-8", "surrogateescape")).digest(), path

    members: dict[int, list[int]] = {}
    for index in sorted(range(len(photos)), key=place):
        members.setdefault(photos.labels[index], []).append(index)
    return members
