"""Proof 2: stopped anywhere and resumed, a run ends with the same bits as one that was not.

Weights, buffers, optimiser state, rates, averages and what the plan remembers are compared, after
each epoch in turn and in the middle of epochs.
"""

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fits import (
    EPOCHS,
    STEPS,
    Save,
    difference,
    fit,
    gradual,
    module_of,
    on_plateau,
    plans,
    settings,
)
from torch.optim import lr_scheduler

from thaw.errors import ConfigError
from thaw.finetune.plan import PhaseSettings, Plan
from thaw.training.averaging import EMA, SWA
from thaw.transforms import mixing

SCHEDULES: dict[str, PhaseSettings] = {
    "constant": settings(shape="constant"),
    "step": settings(shape="step", step_epochs=1, gamma=0.5),
    "exponential": settings(shape="exponential", gamma=0.7),
    "cosine": settings(shape="cosine", warmup_epochs=0.5, floor=0.1),
    "one_cycle": settings(shape="one_cycle", warmup_epochs=0.7),
    "plateau": settings(shape="plateau", gamma=0.5, patience=0),
    "StepLR": settings(
        shape="torch", scheduler=partial(lr_scheduler.StepLR, step_size=1, gamma=0.5)
    ),
    "CosineAnnealingWarmRestarts": settings(
        shape="torch", interval="step",
        scheduler=partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    ),
}  # fmt: skip
slow = partial(pytest.param, marks=pytest.mark.slow)
MODES = [*plans(settings()), "gradual", "on_plateau"]
SHORT = {"step", "plateau"}  # refused in a phase of one or two epochs


def plan_of(mode: str, schedule: PhaseSettings) -> Plan:
    if mode == "gradual":
        return gradual(schedule)
    return on_plateau(schedule) if mode == "on_plateau" else plans(schedule)[mode]


def prove(folder: Path, plan: Plan, *callbacks: Any, module: Any = None, **trainer: Any) -> None:
    """Whole, then from a checkpoint of each epoch and of the middle of three."""
    module = module or {}
    steps_per_epoch = -(-STEPS // trainer.get("accumulate_grad_batches", 1))
    middles = [epoch * steps_per_epoch + 1 for epoch in range(EPOCHS)]
    save = Save(folder, middles)
    fit(module_of(plan, **module), folder, save, *(make() for make in callbacks), **trainer)
    whole = torch.load(folder / f"epoch{EPOCHS - 1}.ckpt", weights_only=True)
    starts = sorted(folder.glob("*.ckpt"))
    assert len(starts) == 2 * EPOCHS
    for start in starts:
        if start.stem == f"epoch{EPOCHS - 1}":
            continue
        again = folder / start.stem
        fit(module_of(plan, **module), again, *(make() for make in callbacks), resume=start,
            **trainer)  # fmt: skip
        resumed = torch.load(again / f"epoch{EPOCHS - 1}.ckpt", weights_only=True)
        assert difference(whole, resumed) == [], start.stem


PAIRS = [
    (mode, schedule)
    for mode in MODES
    for schedule in SCHEDULES
    if not (mode in ("gradual", "phases") and schedule in SHORT)
]
# Each mode and each schedule once; all pairs are slow.
QUICK = [("feature_extraction", "constant"), ("freeze_unfreeze", "plateau"), ("full", "one_cycle"),
         ("from_scratch", "exponential"), ("partial", "step"), ("classifier", "StepLR"),
         ("gradual", "CosineAnnealingWarmRestarts"), ("phases", "cosine"),
         ("on_plateau", "cosine")]  # fmt: skip


def test_the_quick_ones_have_every_mode_and_every_schedule() -> None:
    assert {mode for mode, _ in QUICK} == set(MODES)
    assert {schedule for _, schedule in QUICK} == set(SCHEDULES)
    assert set(QUICK) < set(PAIRS)


@pytest.mark.parametrize(
    ("mode", "schedule"),
    [pair if pair in QUICK else slow(*pair) for pair in PAIRS],
)
def test_every_mode_and_schedule(tmp_path: Path, mode: str, schedule: str) -> None:
    prove(tmp_path, plan_of(mode, SCHEDULES[schedule]))


@pytest.mark.parametrize(
    ("mode", "callbacks", "module", "trainer"),
    [
        ("freeze_unfreeze", (partial(EMA, 0.9),), {}, {}),
        ("freeze_unfreeze", (partial(SWA, 3),), {}, {}),
        ("freeze_unfreeze", (), {"mix": mixing(4, mixup_alpha=0.4, cutmix_alpha=1.0)}, {}),
        ("freeze_unfreeze", (), {}, {"accumulate_grad_batches": 2}),
        ("freeze_unfreeze", (), {}, {"precision": "bf16-mixed"}),
        slow("on_plateau", (partial(EMA, 0.9),), {}, {}),
        slow("phases", (partial(EMA, 0.9),), {}, {}),
        slow("partial", (partial(EMA, 0.9),), {}, {"accumulate_grad_batches": 2}),
    ],
    ids=["ema", "swa", "mix", "accumulate", "bf16", "ema-plateau", "ema-reset", "ema-accumulate"],
)
def test_with(tmp_path: Path, mode: str, callbacks: Any, module: Any, trainer: Any) -> None:
    prove(tmp_path, plan_of(mode, settings()), *callbacks, module=module, **trainer)


def test_a_plan_that_goes_by_values_which_the_checkpoint_lacks(tmp_path: Path) -> None:
    """Resumed with another metric, or with a plateau that the run was not started with."""
    plan = plan_of("freeze_unfreeze", settings())
    fit(module_of(plan), tmp_path)
    start = tmp_path / "epoch1.ckpt"
    watching = on_plateau(settings())
    fit(module_of(watching), tmp_path / "a", resume=start)  # it has the values of all epochs
    with pytest.raises(ConfigError, match=r"goes by val/acc of every epoch.* 2 values of val/loss"):
        fit(module_of(watching, monitor="val/acc"), tmp_path / "b", resume=start)
    other = plans(settings())["full"]
    with pytest.raises(
        ConfigError, match=r"ckpt_path: .*conv, conv/vectors.*this run has conv\.\."
    ):
        fit(module_of(other), tmp_path / "d", resume=start)
    saved = torch.load(start, weights_only=True)
    saved["plan"]["values"].clear()
    torch.save(saved, start)
    with pytest.raises(ConfigError, match=r"patience=1: .*epoch 1 knows 0 values"):
        fit(module_of(watching), tmp_path / "c", resume=start)


def test_a_plateau_moved_the_unfreeze_and_the_resumed_run_knows(tmp_path: Path) -> None:
    """Else the proof above would prove nothing of it."""
    module = module_of(on_plateau(settings()))
    fit(module, tmp_path)
    assert module.plan.unfreeze_epochs != module.written_plan.unfreeze_epochs
    assert module.plan.unfreeze_epochs[0] >= 2
    assert len(module.plan.values) == EPOCHS


def test_the_comparison_finds_a_changed_bit(tmp_path: Path) -> None:
    module = module_of(plan_of("full", settings()))
    fit(module, tmp_path)
    one, two = (torch.load(tmp_path / "epoch5.ckpt", weights_only=True) for _ in range(2))
    assert difference(one, two) == []
    state = two["optimizer_states"][0]["state"][0]["exp_avg"]
    state.view(-1)[0] = torch.nextafter(state.view(-1)[0], torch.tensor(1.0))
    assert difference(one, two) == ["/optimizer_states/0/state/0/exp_avg"]


def test_it_depends_on_the_state_that_is_saved(tmp_path: Path) -> None:
    """A run resumed without its optimiser state ends elsewhere."""
    plan = plan_of("freeze_unfreeze", settings())
    fit(module_of(plan), tmp_path)

    class Forget(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.optimizers[0].state.clear()

    fit(module_of(plan), tmp_path / "again", Forget(), resume=tmp_path / "epoch3.ckpt")
    one, two = (
        torch.load(folder / "epoch5.ckpt", weights_only=True)
        for folder in (tmp_path, tmp_path / "again")
    )
    assert difference(one, two)
