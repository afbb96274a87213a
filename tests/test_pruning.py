"""The median rule, what it compares, and that a run ends by it."""

import json
import math
import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from fits import EPOCHS, fit, module_of, plans, settings
from runs import SMALL, configuration, draw_photos

import train
from thaw.errors import ConfigError
from thaw.report import make_results
from thaw.training import pruning
from thaw.training.pruning import PruneByMedian, falls_behind, value_at

UNFREEZE = 3  # the epoch at which `plans` unfreezes


@pytest.mark.parametrize(
    ("values", "others", "behind"),
    [
        ([0.1, 0.5, 0.3], [0.4, 0.6], False),  # its best equals the median
        ([0.1, 0.49, 0.3], [0.4, 0.6], True),
        ([0.1], [0.2, 0.05, 0.0], False),
        ([0.1], [], False),
        ([math.nan, 0.1], [0.2, math.nan], True),
        ([math.nan], [0.2], True),
        ([0.1], [math.nan], False),
    ],
)
def test_the_median_stopping_rule(values: list[float], others: list[float], behind: bool) -> None:
    assert falls_behind(values, others) == behind


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_it_is_the_rule_of_optuna(direction: str) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    draw = random.Random(0)
    verdicts = []
    for _ in range(60):
        pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
        study = optuna.create_study(direction=direction, pruner=pruner)
        others = [[draw.random() for _ in range(4)] for _ in range(draw.randint(1, 6))]
        for row in others:
            trial = study.ask()
            for step, value in enumerate(row):
                trial.report(value, step)
            study.tell(trial, row[-1])
        trial, values = study.ask(), [draw.random() for _ in range(3)]
        for step, value in enumerate(values):
            trial.report(value, step)
        sign = 1 if direction == "maximize" else -1
        ours = falls_behind([sign * value for value in values], [sign * row[2] for row in others])
        assert ours == trial.should_prune()
        verdicts.append(ours)
    assert {True, False} == set(verdicts)


def history(values: list[float], unfreeze: int = UNFREEZE) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "phase": "frozen" if epoch < unfreeze else "unfrozen", "val/loss": value}
        for epoch, value in enumerate(values)
    ]


def test_only_its_last_phase_is_held_against_others() -> None:
    rows = history([0.5, 0.4, 0.3, 0.2, 0.1])
    found = [value_at(rows, epoch, "val/loss") for epoch in range(6)]
    assert found == [None, None, None, 0.2, 0.1, None]
    assert value_at(history([0.5, 0.4], unfreeze=9), 1, "val/loss") == 0.4  # one phase only
    assert value_at(rows, 3, "val/acc") is None


def job(sweep: Path, name: str, rows: list[dict[str, Any]], **results: Any) -> None:
    folder = sweep / name
    folder.mkdir(parents=True)
    (folder / "history.json").write_text(json.dumps(rows))
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "multirun.yaml").touch()
    return tmp_path


def train_beside(sweep: Path, **settings_: Any) -> tuple[pl.Trainer, Any]:
    module = module_of(plans(settings())["freeze_unfreeze"])
    trainer = fit(module, sweep / "here", PruneByMedian(**{"startup_jobs": 1, **settings_}))
    return trainer, pruning._record(trainer)


@pytest.mark.parametrize(
    ("unfreeze", "value", "changes", "ended"),
    [
        (UNFREEZE, 0.0, {}, 4),  # unfrozen at 3; the first epoch of the phase is let pass
        (1, 0.0, {}, 4),  # as far behind from the start; but judged when unfrozen
        (UNFREEZE, 0.0, {"warmup_epochs": 0}, 3),
        (5, 0.0, {}, EPOCHS - 1),  # the other was frozen until the last epoch
        (UNFREEZE, 99.0, {}, EPOCHS - 1),  # the other is worse
        (UNFREEZE, 0.0, {"startup_jobs": 2}, EPOCHS - 1),
    ],
)
def test_a_run_ends_when_it_falls_behind(
    sweep: Path, unfreeze: int, value: float, changes: dict[str, int], ended: int
) -> None:
    job(sweep, "other", history([value] * EPOCHS, unfreeze))
    trainer, record = train_beside(sweep, **changes)
    assert record.history[-1]["epoch"] == ended
    if ended == EPOCHS - 1:
        assert record.pruned is None
        return
    best = min(row["val/loss"] for row in record.history)
    said = f"epoch {ended}: best val/loss {best:.4f}, median of 1 jobs 0.0000"
    assert record.pruned == said
    module = trainer.lightning_module
    assert make_results(module.classifier, record, {})["pruned"] == said


def test_neither_pruned_nor_unfinished_jobs_count(sweep: Path) -> None:
    good = history([0.0] * EPOCHS)
    job(sweep, "pruned", good, pruned="epoch 3: behind")
    job(sweep, "killed", good)
    (sweep / "killed" / "results.json").unlink()
    _, record = train_beside(sweep)
    assert record.pruned is None


def test_a_pruned_run_that_is_resumed_does_not_train_on(sweep: Path) -> None:
    job(sweep, "other", history([0.0] * EPOCHS))
    train_beside(sweep)
    module = module_of(plans(settings())["freeze_unfreeze"])
    again = sweep / "again"
    trainer = fit(module, again, PruneByMedian(), resume=sweep / "here" / "epoch4.ckpt")
    assert not list(again.glob("epoch*.ckpt"))
    assert pruning._record(trainer).pruned is not None


def test_epochs_before_the_first_validation_are_not_judged(sweep: Path) -> None:
    job(sweep, "other", history([0.0] * EPOCHS))
    module = module_of(plans(settings())["freeze_unfreeze"])
    prune = PruneByMedian(startup_jobs=1, warmup_epochs=0)
    trainer = fit(module, sweep / "here", prune, check_val_every_n_epoch=5)
    record = pruning._record(trainer)
    assert [row["epoch"] for row in record.history if "val/loss" in row] == [4]
    assert record.pruned is not None
    assert record.pruned.startswith("epoch 4: ")


def test_without_validation_there_is_nothing_to_go_by(sweep: Path) -> None:
    module = module_of(plans(settings())["freeze_unfreeze"])
    with pytest.raises(ConfigError, match=r"prune: .*; set data\.val_fraction=0\.2 and no"):
        fit(module, sweep / "here", PruneByMedian(), limit_val_batches=0)


@pytest.mark.parametrize("wrong", [{"startup_jobs": 0}, {"warmup_epochs": -1}])
def test_numbers_that_cannot_be(wrong: dict[str, int]) -> None:
    (key,) = wrong
    with pytest.raises(ConfigError, match=rf"callbacks\.prune\.{key}=.*a whole number from"):
        PruneByMedian(**wrong)


def test_a_run_of_no_sweep_cannot_be_pruned(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    words = [word for word in SMALL if word != "callbacks=none"]
    cfg = configuration(tmp_path / "run", *words, f"data.root={photos}", "callbacks=prune",
                        "callbacks.progress=null", "finetune.unfreeze_epoch=2")  # fmt: skip
    with pytest.raises(ConfigError, match=r"callbacks\.prune: .*is of none; start a sweep with -m"):
        train.run(cfg)
