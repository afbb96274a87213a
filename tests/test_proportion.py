"""The order of photos where a run reads only some batches."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from thaw.data.photos import Photos, Splits
from thaw.data.proportion import in_proportion


def photos(*counts: int) -> Photos:
    """So many photos of each class, class by class."""
    return Photos.of(
        (Path(f"{label}/{number}.png"), label)
        for label, count in enumerate(counts)
        for number in range(count)
    )


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
    assert Counter(test.labels[:30])[2] in (18, 19, 20)


def test_a_whole_run_keeps_the_order_of_the_files() -> None:
    limits = {"overfit_batches": 0.0, "limit_val_batches": None}
    assert in_proportion(SPLITS, limits, seed=0) is SPLITS
