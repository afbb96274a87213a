"""Groups, their names and order, and paired differences against scipy and worked by hand."""

import math
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from made_runs import write_run
from scipy import stats

from thaw.tools.compare import best_line
from thaw.tools.compare_runs import (
    Comparison,
    Run,
    Unit,
    group_runs,
    names_of,
    paired_difference,
    read_run,
)


def units(values: dict[int, float]) -> dict[Unit, float]:
    return {Unit(seed, None): value for seed, value in values.items()}


@pytest.mark.parametrize("number", [2, 3, 20])
def test_the_interval_is_that_of_a_paired_t_test(number: int) -> None:
    a, b = np.random.default_rng(number).normal(0.8, 0.1, (2, number))
    difference = paired_difference(units(dict(enumerate(a))), units(dict(enumerate(b))))
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert difference == pytest.approx([(a - b).mean(), interval.low, interval.high])


def test_pairs_are_made_by_seed_and_not_by_order() -> None:
    a, b = units({1: 1.0, 2: 5.0, 3: 4.0, 4: 9.0}), units({5: -9.0, 3: 3.0, 1: 0.5, 2: 3.5})
    difference = paired_difference(a, b)
    # 0.5, 1.5, 1.0: standard deviation 0.5, t(0.975, 2) = 4.302653
    half = 4.302653 * 0.5 / sqrt(3)
    assert difference == pytest.approx([1, 1 - half, 1 + half], abs=1e-6)


def test_too_few_pairs_have_no_interval() -> None:
    assert paired_difference(units({0: 0.5}), units({1: 0.5})) == []
    assert paired_difference(units({0: 0.75}), units({0: 0.5})) == [0.25]
    shifted = paired_difference(units({0: 0.75, 1: 1.0}), units({0: 0.5, 1: 0.75}))
    assert shifted == [0.25, 0.25, 0.25]


def test_folds_widen_the_interval() -> None:
    """0.02, 0.04, 0.00, 0.03, 0.01 over five folds: mean 0.02, variance 0.00025; Nadeau and Bengio
    take 1/5 + 1/4 of it (a test part is a quarter of a training part), and t(0.975, 4) = 2.776445.
    """
    a = {Unit(0, fold): value for fold, value in enumerate((0.92, 0.94, 0.90, 0.93, 0.91))}
    difference = paired_difference(a, dict.fromkeys(a, 0.90), folds=5)
    half = 2.776445 * sqrt(0.00025 * 0.45)
    assert difference == pytest.approx([0.02, 0.02 - half, 0.02 + half], abs=1e-7)
    plain = paired_difference(a, dict.fromkeys(a, 0.90))
    assert plain[1] > 0 > difference[1]  # the plain one would have called it clear


def made(folder: Path, words: str = "", *, seed: int = 0, val: float | None = None,
         test: float | None = None, **scores: float) -> Run:  # fmt: skip
    """A run with these words and scores."""
    given = {"val/acc": val, "test/acc": test, **scores}
    number = len(list(folder.iterdir())) if folder.exists() else 0
    run = read_run(write_run(folder / str(number), words.split(), seed=seed,
                             scores={k: v for k, v in given.items() if v is not None}))  # fmt: skip
    assert isinstance(run, Run)
    return run


def compared(runs: list[Run], metric: str = "acc") -> Comparison:
    (comparison,) = group_runs(runs, metric)
    return comparison


FULL, HEAD = "finetune.unfreeze_epoch=1", "finetune.unfreeze_epoch=3"
VALUES = {FULL: (0.80, 0.84, 0.79), HEAD: (0.70, 0.71, 0.74)}


def test_runs_that_differ_in_the_seed_are_a_group(tmp_path: Path) -> None:
    runs = [made(tmp_path, words, seed=seed, val=VALUES[words][seed], test=VALUES[words][seed] / 2)
            for seed in range(3) for words in (HEAD, FULL)]  # fmt: skip
    comparison = compared(runs)
    assert [group.name for group in comparison.groups] == [FULL, HEAD]  # best first
    for group in comparison.groups:
        assert [run.unit.seed for run in group.runs] == [0, 1, 2]
        assert tuple(group.values("val/acc").values()) == VALUES[group.name]
    best, other = comparison.groups
    assert comparison.best is best
    difference = other.minus(best, "test/acc")
    expected = stats.ttest_rel(VALUES[HEAD], VALUES[FULL]).confidence_interval()
    assert difference[2] == pytest.approx(expected.high / 2)


def test_the_best_goes_by_validation_and_never_by_test(tmp_path: Path) -> None:
    comparison = compared([made(tmp_path, HEAD, val=0.8, test=0.95),
                           made(tmp_path, FULL, val=0.9, test=0.1)])  # fmt: skip
    assert comparison.groups[0].name == FULL
    assert best_line(comparison).endswith(f"val/acc 0.9000, seed 0, {tmp_path}/1")


def test_a_smaller_loss_is_better(tmp_path: Path) -> None:
    runs = [made(tmp_path, words, seed=seed, **{"val/loss": loss})
            for words, seed, loss in ((FULL, 0, 0.9), (HEAD, 0, 0.3), (HEAD, 1, 0.2))]  # fmt: skip
    comparison = compared(runs, "loss")
    assert [group.name for group in comparison.groups] == [HEAD, FULL]
    assert "val/loss 0.2000, seed 1" in best_line(comparison)


def test_without_validation_there_is_no_best(tmp_path: Path) -> None:
    comparison = compared([made(tmp_path, HEAD, test=0.9), made(tmp_path, FULL, test=0.5)])
    assert comparison.best is None
    assert comparison.metrics == ["test/acc"]
    assert [group.name for group in comparison.groups] == [FULL, HEAD]  # by name
    assert "no validation photos" in best_line(comparison)


def test_folds_are_one_group_with_wider_intervals(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, f"data.folds=3 data.fold={fold} {words}", seed=seed,
             val=values[fold] + seed / 100)
        for words, values in VALUES.items() for fold in range(3) for seed in (0, 1)
    ]  # fmt: skip
    best, other = compared(runs).groups
    assert (best.name, other.name) == (FULL, HEAD)
    assert [run.unit for run in best.runs] == [
        Unit(seed, fold) for seed in (0, 1) for fold in range(3)
    ]
    _, low, high = other.minus(best, "val/acc")
    expected = stats.ttest_rel([*VALUES[HEAD]] * 2, [*VALUES[FULL]] * 2).confidence_interval()
    wider = (high - low) / (expected.high - expected.low)
    assert wider == pytest.approx(((1 / 6 + 1 / 2) / (1 / 6)) ** 0.5)


def test_seeds_of_one_fold_are_not_widened(tmp_path: Path) -> None:
    runs = [made(tmp_path, f"data.folds=5 data.fold=0 {words}", seed=seed, val=value)
            for words, values in VALUES.items() for seed, value in enumerate(values)]  # fmt: skip
    best, other = compared(runs).groups
    expected = stats.ttest_rel(VALUES[HEAD], VALUES[FULL]).confidence_interval()
    assert other.minus(best, "val/acc")[1:] == pytest.approx((expected.low, expected.high))


def test_the_best_run_is_one_of_the_best_group(tmp_path: Path) -> None:
    """HEAD has the best value of all, on the fold that is easy."""
    values = {(FULL, 0): 0.9, (FULL, 1): 0.85, (HEAD, 1): 0.5, (HEAD, 0): 0.95}
    runs = [made(tmp_path, f"data.folds=2 data.fold={fold} {words}", val=value)
            for (words, fold), value in values.items()]  # fmt: skip
    assert "val/acc 0.9000, seed 0, fold 0" in best_line(compared(runs))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_run_that_diverged_is_neither_the_best_nor_in_a_mean(
    tmp_path: Path, wrong: float
) -> None:
    runs = [made(tmp_path, FULL, seed=seed, val=val) for seed, val in enumerate((wrong, 0.7, 0.8))]
    comparison = compared([*runs, made(tmp_path, HEAD, val=wrong)])
    best, other = comparison.groups
    assert best.name == FULL
    assert list(best.values("val/acc").values()) == [0.7, 0.8]
    assert "0.8000, seed 2" in best_line(comparison)
    assert other.minus(best, "val/acc") == []


def test_other_photos_are_not_compared(tmp_path: Path) -> None:
    """Batch size and few-shot change no validation photo; another root and folds do."""
    runs = [
        made(tmp_path, "data.root=cats", val=0.9),
        made(tmp_path, "data.root=cats data.batch_size=8", val=0.8),
        made(tmp_path, "data.root=cats data.train_per_class=5", val=0.7),
        made(tmp_path, "data.root=cats data.crop=pad", val=0.65),
        made(tmp_path, "data.root=dogs", val=0.5),
        made(tmp_path, "data.root=dogs data.folds=2", val=0.6),
        made(tmp_path, "data.root=dogs +trainer.limit_val_batches=1", val=0.6),
    ]
    by_photos = {each.photos: each.groups for each in group_runs(runs, "acc")}
    assert {photos: len(groups) for photos, groups in by_photos.items()} == {
        "data.root=cats": 4,
        "data.root=dogs": 1,
        "data.root=dogs, data.folds=2": 1,
        "data.root=dogs, trainer.limit_val_batches=1": 1,
    }
    (cats,) = (groups for groups in by_photos.values() if len(groups) == 4)
    assert [group.name for group in cats] == [
        "data.batch_size=4",
        "data.batch_size=8",
        "data.batch_size=4, data.train_per_class=5",
        "data.batch_size=4, data.crop=pad",
    ]
    assert compared(runs[:1]).photos == ""


def test_names_tell_what_differs_and_nothing_else() -> None:
    rows = [{"lr": rate, "epochs": 10, "head.dropout": 0.1} for rate in (0.1, 0.01)]
    assert names_of(rows, ()) == ["lr=0.1", "lr=0.01"]
    assert names_of(rows[:1], ()) == ["all"]
    assert names_of([{"a": 1}, {"a": 1, "b": 2}], ()) == ["otherwise", "b=2"]


def test_names_do_not_tell_what_follows_from_a_choice() -> None:
    rows = [
        {"backbone.name": "vit_b_16", "backbone": "vit_b_16", "backbone.image_size": 224},
        {"backbone.name": "resnet18", "backbone": "resnet18"},
        {"backbone.name": "resnet18", "backbone": "resnet18", "backbone.image_size": 160},
    ]
    assert names_of(rows[:2], {"backbone"}) == ["backbone=vit_b_16", "backbone=resnet18"]
    assert names_of(rows, {"backbone"}) == [
        "backbone=vit_b_16, backbone.image_size=224",
        "backbone=resnet18",
        "backbone=resnet18, backbone.image_size=160",
    ]


def test_names_tell_what_was_typed_though_it_follows() -> None:
    """Else the table would say that only the backbones differ."""
    rows = [{"backbone": "a", "optim.lr": 0.1}, {"backbone": "b", "optim.lr": 0.2}]
    assert names_of(rows, {"backbone", "optim.lr"})[0] == "backbone=a, optim.lr=0.1"
