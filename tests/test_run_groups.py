"""Groups: which runs are one, on which photos, in which order, against which baseline."""

import math
from pathlib import Path

import pytest
from made_runs import write_run
from scipy import stats

from thaw.compare.paired import spread
from thaw.compare.run_groups import (
    Section,
    check_samples,
    group_runs,
    last_of_each,
    with_baseline,
)
from thaw.compare.runs import Run, Unit, ignore, read
from thaw.errors import ConfigError


def made(folder: Path, words: str = "", *, seed: int = 0, val: float | None = None,
         test: float | None = None, **facts: object) -> Run:  # fmt: skip
    """A run with these words and scores."""
    given = {"val/acc": val, "test/acc": test}
    scores = {name: value for name, value in given.items() if value is not None}
    choices = dict(word.split("=") for word in words.split() if "." not in word)
    name = f"{len(list(folder.iterdir())) if folder.exists() else 0}"
    run = read(write_run(folder / name, words.split(), seed=seed, scores=scores, choices=choices,
                         **facts))  # fmt: skip
    assert isinstance(run, Run)
    return run


def only(sections: tuple[Section, ...]) -> Section:
    (section,) = sections
    return section


FULL, HEAD = "finetune.unfreeze_epoch=1", "finetune.unfreeze_epoch=3"
VALUES = {FULL: (0.80, 0.84, 0.79), HEAD: (0.70, 0.71, 0.74)}


def six(folder: Path) -> list[Run]:
    return [
        made(folder, words, seed=seed, val=value, test=value - 0.1)
        for seed in range(3) for words, values in VALUES.items()
        for value in values[seed : seed + 1]
    ]  # fmt: skip


def test_runs_that_differ_in_the_seed_are_a_group(tmp_path: Path) -> None:
    section = only(group_runs(six(tmp_path), "acc"))
    assert [group.name for group in section.groups] == [FULL, HEAD]  # best first
    for group in section.groups:
        assert [run.unit.seed for run in group.runs] == [0, 1, 2]
        assert tuple(group.values("val/acc").values()) == VALUES[group.name]
    assert section.baseline is section.groups[0]
    difference = section.groups[1].minus(section.groups[0], "test/acc")
    expected = stats.ttest_rel(VALUES[HEAD], VALUES[FULL])
    assert difference.p == pytest.approx(expected.pvalue)
    assert difference.high == pytest.approx(expected.confidence_interval().high)


def test_the_best_goes_by_validation_and_never_by_test(tmp_path: Path) -> None:
    runs = [made(tmp_path, FULL, val=0.9, test=0.1), made(tmp_path, HEAD, val=0.8, test=0.95)]
    section = only(group_runs(runs, "acc"))
    assert section.best is not None
    assert section.best[1] is runs[0]
    assert section.groups[0].runs == (runs[0],)


def test_a_smaller_loss_is_better(tmp_path: Path) -> None:
    runs = [made(tmp_path, FULL), made(tmp_path, HEAD)]
    runs = [
        Run(run.folder, run.settings, run.choices, run.typed, run.unit, None, "val/loss",
            {"val/loss": loss})
        for run, loss in zip(runs, (0.9, 0.3), strict=True)
    ]  # fmt: skip
    section = only(group_runs(runs, "loss"))
    assert [group.name for group in section.groups] == [HEAD, FULL]
    assert section.best is not None
    assert section.best[1] is runs[1]


def test_without_validation_there_is_no_best_and_no_baseline(tmp_path: Path) -> None:
    runs = [made(tmp_path, words, test=value) for words, value in ((FULL, 0.5), (HEAD, 0.9))]
    section = only(group_runs(runs, "acc"))
    assert (section.best, section.baseline) == (None, None)
    assert [group.name for group in section.groups] == [FULL, HEAD]  # by name
    assert section.measured_by_all("test")
    assert not section.measured_by_all("val")


def test_folds_are_one_group_with_wider_intervals(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, f"data.folds=3 data.fold={fold} {words}", seed=seed,
             val=values[fold] + seed / 100)
        for words, values in VALUES.items() for fold in range(3) for seed in (0, 1)
    ]  # fmt: skip
    section = only(group_runs(runs, "acc"))
    assert [group.name for group in section.groups] == [FULL, HEAD]
    units = [run.unit for run in section.groups[0].runs]
    assert units == [Unit(seed, seed, fold) for seed in (0, 1) for fold in range(3)]
    difference = section.groups[1].minus(section.groups[0], "val/acc")
    expected = stats.ttest_rel([*VALUES[HEAD]] * 2, [*VALUES[FULL]] * 2).confidence_interval()
    assert difference.high is not None
    assert difference.low is not None
    wider = (difference.high - difference.low) / (expected.high - expected.low)
    assert wider == pytest.approx(((1 / 6 + 1 / 2) / (1 / 6)) ** 0.5)


def test_seeds_of_one_fold_are_not_widened(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, f"data.folds=5 data.fold=0 {words}", seed=seed, val=value)
        for words, values in VALUES.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    section = only(group_runs(runs, "acc"))
    difference = section.groups[1].minus(section.groups[0], "val/acc")
    expected = stats.ttest_rel(VALUES[HEAD], VALUES[FULL]).confidence_interval()
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))


def test_over_folds_the_best_run_is_of_the_best_group(tmp_path: Path) -> None:
    """HEAD has the best value of all, on the fold that is easy."""
    values = {(FULL, 0): 0.9, (FULL, 1): 0.85, (HEAD, 1): 0.5, (HEAD, 0): 0.95}
    runs = {
        key: made(tmp_path, f"data.folds=2 data.fold={key[1]} {key[0]}", val=value)
        for key, value in values.items()
    }
    section = only(group_runs(list(runs.values()), "acc"))
    assert section.over_folds
    assert section.best == (section.groups[0], runs[FULL, 0])
    alone = only(group_runs([runs[FULL, 0], runs[HEAD, 0]], "acc"))
    assert not alone.over_folds
    assert alone.best == (alone.groups[0], runs[HEAD, 0])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_run_that_diverged_is_neither_the_best_nor_in_a_mean(
    tmp_path: Path, wrong: float
) -> None:
    runs = [made(tmp_path, FULL, seed=seed, val=val) for seed, val in enumerate((wrong, 0.7, 0.8))]
    runs.append(made(tmp_path, HEAD, val=wrong))
    section = only(group_runs(runs, "acc"))
    assert section.best == (section.groups[0], runs[2])
    assert section.groups[0].spread("val/acc") == spread([0.7, 0.8])
    assert section.groups[0].diverged("val/acc") == runs[:1]
    assert section.groups[1].minus(section.groups[0], "val/acc").mean is None


def test_other_photos_make_another_section(tmp_path: Path) -> None:
    """Their numbers do not compare; batch size and few-shot change no validation photo."""
    runs = [
        made(tmp_path, "data.root=cats", val=0.9),
        made(tmp_path, "data.root=cats data.batch_size=8", val=0.8),
        made(tmp_path, "data.root=cats data.train_per_class=5", val=0.7),
        made(tmp_path, "data.root=dogs", val=0.5),
        made(tmp_path, "data.root=dogs data.folds=2", val=0.6),
    ]
    sections = group_runs(runs, "acc")
    assert [(section.name, len(section.groups)) for section in sections] == [
        ("data.root=cats", 3), ("data.root=dogs", 1), ("data.root=dogs, data.folds=2", 1),
    ]  # fmt: skip
    assert [section.best[1] for section in sections if section.best] == [runs[0], runs[3], runs[4]]
    assert [[group.name for group in section.groups] for section in sections] == [
        ["data.batch_size=4, data.train_per_class=null",
         "data.batch_size=8, data.train_per_class=null",
         "data.batch_size=4, data.train_per_class=5"],
        ["all"], ["all"],
    ]  # fmt: skip


def test_choices_name_groups(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, f"backbone={name} backbone.weights={weights}", val=0.5)
        for name, weights in (("tiny", "DEFAULT"), ("resnet18", "IMAGENET1K_V1"))
    ]
    assert sorted(group.name for group in only(group_runs(runs, "acc")).groups) == [
        "backbone=resnet18, backbone.weights=IMAGENET1K_V1",
        "backbone=tiny, backbone.weights=DEFAULT",
    ]


def test_of_runs_that_repeat_each_other_the_last_counts(tmp_path: Path) -> None:
    runs = six(tmp_path)
    again = made(tmp_path, FULL, seed=1, val=0.2)
    times = {id(run): place for place, run in enumerate([*runs, again])}
    timed = [
        Run(run.folder, run.settings, run.choices, run.typed, run.unit, run.folds, run.monitor,
            run.results, (), float(times[id(run)]))
        for run in [again, *runs]
    ]  # fmt: skip
    last, repeated = last_of_each(timed)
    assert len(last) == 6
    assert timed[0] in last
    assert [(each.run.results["val/acc"], each.by) for each in repeated] == [(0.84, timed[0])]


def test_ignoring_makes_no_two_runs_one_sample(tmp_path: Path) -> None:
    """They are no repeats of each other: which one counted would be a matter of chance."""
    runs = [made(tmp_path, f"finetune.unfrozen.lr={rate}", seed=seed, val=0.5)
            for rate, seed in ((0.1, 0), (0.2, 1), (0.2, 0))]  # fmt: skip
    check_samples(runs)
    check_samples(ignore(runs[:2], ["finetune.unfrozen.lr"]))
    with pytest.raises(ConfigError, match=r"--ignore: .*/0 and .*/2 have the same seed and fold"):
        check_samples(ignore(runs, ["finetune.unfrozen.lr"]))


def test_a_baseline_is_named_by_its_settings(tmp_path: Path) -> None:
    both = [f"{words} finetune.unfrozen.lr={rate}" for words in VALUES for rate in (0.1, 0.2)]
    sections = group_runs([made(tmp_path, words, val=0.5) for words in both], "acc")
    chosen = only(with_baseline(sections, f"{HEAD}, finetune.unfrozen.lr=0.2")).baseline
    assert chosen is not None
    assert chosen.name == f"{HEAD}, finetune.unfrozen.lr=0.2"
    with pytest.raises(ConfigError, match=r"--baseline .*=3: is more than one group: .*lr=0\.1; "):
        with_baseline(sections, HEAD)
    with pytest.raises(ConfigError, match=r"--baseline full: no group .*=1, finetune\.unfrozen"):
        with_baseline(sections, "full")


def test_a_baseline_that_one_section_only_has(tmp_path: Path) -> None:
    words = ["data.root=cats", f"data.root=dogs {FULL}", f"data.root=dogs {HEAD}"]
    sections = group_runs([made(tmp_path, word, val=0.5) for word in words], "acc")
    chosen = [section.baseline for section in with_baseline(sections, FULL)]
    assert chosen[0] is None
    assert chosen[1] is not None
    assert FULL in chosen[1].name
