"""Draws of photos: shares, seeds, and what they must not depend on."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from thaw.data.photos import Photos, Splits
from thaw.data.splitting import draw_per_class, in_proportion, split_fraction
from thaw.errors import ConfigError


def photos(*counts: int, root: str = "/data") -> Photos:
    """`counts[k]` photos of class k."""
    pairs = [(Path(f"{root}/{k}/{i}.jpg"), k) for k, n in enumerate(counts) for i in range(n)]
    return Photos(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))


def pairs(photos: Photos) -> set[tuple[Path, int]]:
    return set(zip(photos.paths, photos.labels, strict=True))


def counts(photos: Photos, classes: int) -> list[int]:
    return [photos.labels.count(label) for label in range(classes)]


def test_a_share_of_each_class_and_the_rest() -> None:
    whole = photos(10, 50, 4, 3, 2, 1)
    drawn, rest = split_fraction(whole, 0.2, rule="r")
    # rounded, but one at least, and never the only one
    assert counts(drawn, 6) == [2, 10, 1, 1, 1, 0]
    assert pairs(drawn) | pairs(rest) == pairs(whole)
    assert not pairs(drawn) & pairs(rest)
    assert counts(split_fraction(whole, 0.99, rule="r")[1], 6) == [1, 1, 1, 1, 1, 1]
    assert len(split_fraction(whole, 0, rule="r")[0]) == 0


def test_the_rule_decides_and_nothing_else() -> None:
    whole = photos(30, 30)
    drawn, _ = split_fraction(whole, 0.3, rule="val 0")
    shuffled = list(zip(whole.paths, whole.labels, strict=True))
    random.Random(0).shuffle(shuffled)
    other_order = Photos(tuple(p for p, _ in shuffled), tuple(label for _, label in shuffled))
    assert pairs(split_fraction(other_order, 0.3, rule="val 0")[0]) == pairs(drawn)
    elsewhere, _ = split_fraction(photos(30, 30, root="/other/disk"), 0.3, rule="val 0")
    assert [p.parts[-2:] for p in elsewhere.paths] == [p.parts[-2:] for p in drawn.paths]
    assert pairs(split_fraction(whole, 0.3, rule="val 1")[0]) != pairs(drawn)


def test_the_draw_of_today_is_the_draw_of_tomorrow() -> None:
    """Written down: a change here changes everybody's validation photos."""
    drawn, _ = split_fraction(photos(10), 0.3, rule="val 0")
    assert [p.name for p in drawn.paths] == ["6.jpg", "8.jpg", "9.jpg"]


def test_the_order_of_the_photos_is_kept() -> None:
    for part in split_fraction(photos(20, 20), 0.5, rule="r"):
        assert list(part.paths) == [p for p in photos(20, 20).paths if p in part.paths]


def test_few_are_among_more() -> None:
    whole = photos(20, 30)
    five = draw_per_class(whole, 5, ("a", "b"), rule="r")
    ten = draw_per_class(whole, 10, ("a", "b"), rule="r")
    assert counts(five, 2) == [5, 5]
    assert pairs(five) < pairs(ten)


def test_too_few_photos_for_few_shot() -> None:
    message = r"data\.train_per_class=5: allowed is 3 or less, as class 'b' has no more photos"
    with pytest.raises(ConfigError, match=message):
        draw_per_class(photos(9, 3), 5, ("a", "b"), rule="r")


SPLITS = Splits(("a", "b", "c"), photos(30, 30, 30), photos(8, 8, 8), photos(2, 20, 38))


@pytest.mark.parametrize(
    "limit", ["overfit_batches", "limit_train_batches", "limit_val_batches", "limit_test_batches"]
)
def test_the_first_photos_are_of_all_classes(limit: str) -> None:
    ordered = in_proportion(SPLITS, {limit: 3}, seed=0)
    assert ordered == in_proportion(SPLITS, {limit: 3}, seed=0)
    assert ordered != in_proportion(SPLITS, {limit: 3}, seed=1)
    for (name, before), (_, after) in zip(SPLITS.items(), ordered.items(), strict=True):
        assert sorted(before.pairs()) == sorted(after.pairs()), name
    assert Counter(ordered.train.labels[:12]) == {0: 4, 1: 4, 2: 4}
    test: Any = ordered.test
    assert Counter(test.labels[:30])[2] in (18, 19, 20)  # 38 of 60


def test_many_rare_classes_are_among_the_first() -> None:
    part = photos(1000, *[5] * 100)
    splits = Splits(tuple(map(str, range(101))), part, None, None)
    first = Counter(in_proportion(splits, {"overfit_batches": 3}, seed=0).train.labels[:192])
    assert 110 < first[0] < 146  # 128 in proportion


def test_a_whole_run_keeps_the_order_of_the_files() -> None:
    limits = {"overfit_batches": 0.0, "limit_val_batches": None}
    assert in_proportion(SPLITS, limits, seed=0) is SPLITS
