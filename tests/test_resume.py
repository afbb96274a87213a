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
    BATCH,
    EPOCHS,
    MODES,
    STEPS,
    Data,
    Save,
    difference,
    fit,
    module_of,
    plan_of,
    settings,
)
from torch.optim import lr_scheduler

from thaw.errors import ConfigError
from thaw.finetune.plan import Plan
from thaw.mixing import mixing
from thaw.training.averaging import EMA

SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": settings(schedule="constant"),
    "step": settings(schedule="step", step_epochs=1, gamma=0.5),
    "cosine": settings(warmup_epochs=0.5),
    "plateau": settings(schedule="plateau", gamma=0.5, patience=0),
    "StepLR": settings(schedule=partial(lr_scheduler.StepLR, step_size=1, gamma=0.5)),
    "CosineAnnealingWarmRestarts": settings(
        schedule=partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2)
    ),
}
slow = partial(pytest.param, marks=pytest.mark.slow)


def prove(
    folder: Path, plan: Plan, *callbacks: Any, module: Any = None, offset: int = 0, step: int = 1,
    **trainer: Any,
) -> None:  # fmt: skip
    """Whole, then from checkpoints of the end and of the middle of each epoch: eleven in all."""
    module = module or {}
    steps_per_epoch = -(-STEPS // trainer.get("accumulate_grad_batches", 1))
    middles = [epoch * steps_per_epoch + 1 for epoch in range(EPOCHS)]
    save = Save(folder, middles)
    fit(module_of(plan, **module), folder, save, *(make() for make in callbacks), **trainer)
    whole = torch.load(folder / f"epoch{EPOCHS - 1}.ckpt", weights_only=True)
    starts = sorted(folder.glob("*.ckpt"))
    assert len(starts) == 2 * EPOCHS
    starts.remove(folder / f"epoch{EPOCHS - 1}.ckpt")
    for start in starts[offset::step]:
        again = folder / start.stem
        fit(module_of(plan, **module), again, *(make() for make in callbacks), resume=start,
            **trainer)  # fmt: skip
        resumed = torch.load(again / f"epoch{EPOCHS - 1}.ckpt", weights_only=True)
        assert difference(whole, resumed) == [], start.stem


# Each mode and each schedule once, some of them fast.
FAST = ("freeze_unfreeze", "gradual", "phases", "on_plateau")
SEVERAL = (*FAST, "partial")
PAIRS = [("feature_extraction", "constant"), ("freeze_unfreeze", "plateau"), ("full", "cosine"),
         ("from_scratch", "StepLR"), ("partial", "step"), ("classifier", "constant"),
         ("gradual", "CosineAnnealingWarmRestarts"), ("phases", "cosine"),
         ("on_plateau", "cosine")]  # fmt: skip


def test_the_pairs_have_every_mode_and_every_schedule() -> None:
    assert {mode for mode, _ in PAIRS} == set(MODES)
    assert {schedule for _, schedule in PAIRS} == set(SCHEDULES)


@pytest.mark.parametrize(
    ("mode", "schedule"), [pair if pair[0] in FAST else slow(*pair) for pair in PAIRS]
)
def test_every_mode_and_every_schedule(tmp_path: Path, mode: str, schedule: str) -> None:
    """From every third checkpoint, and others in the mode after it."""
    offset = PAIRS.index((mode, schedule)) % 3
    prove(tmp_path, plan_of(mode, SCHEDULES[schedule]), offset=offset, step=3)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "schedule"), [pair for pair in PAIRS if pair[0] in SEVERAL])
def test_every_checkpoint_of_modes_of_several_phases(
    tmp_path: Path, mode: str, schedule: str
) -> None:
    prove(tmp_path, plan_of(mode, SCHEDULES[schedule]))


@pytest.mark.parametrize(
    ("mode", "callbacks", "module", "trainer"),
    [
        ("freeze_unfreeze", (partial(EMA, 0.9),), {}, {}),
        ("freeze_unfreeze", (), {"mix": mixing(4, mixup_alpha=0.4, cutmix_alpha=1.0)}, {}),
        slow("freeze_unfreeze", (), {"fused": False}, {"precision": "bf16-mixed"}),
        slow("on_plateau", (partial(EMA, 0.9),), {}, {}),
        slow("partial", (partial(EMA, 0.9),), {}, {"accumulate_grad_batches": 2}),
    ],
    ids=["ema", "mix", "bf16", "ema-plateau", "ema-accumulate"],
)
def test_with(tmp_path: Path, mode: str, callbacks: Any, module: Any, trainer: Any) -> None:
    prove(tmp_path, plan_of(mode), *callbacks, module=module, offset=1, step=3, **trainer)


def test_a_plan_that_goes_by_values_which_the_checkpoint_lacks(tmp_path: Path) -> None:
    """Resumed with another metric, or with a plateau that the run was not started with."""
    plan = plan_of("freeze_unfreeze")
    fit(module_of(plan), tmp_path)
    start = tmp_path / "epoch1.ckpt"
    watching = plan_of("on_plateau")
    fit(module_of(watching), tmp_path / "a", resume=start)  # it has the values of all epochs
    with pytest.raises(ConfigError, match=r"2 values of val/acc .* goes by val/loss of each"):
        fit(module_of(watching, monitor="val/loss"), tmp_path / "b", resume=start)
    other = plan_of("full")
    with pytest.raises(ConfigError, match=r"^ckpt_path: its optimiser has the groups conv conv, "):
        fit(module_of(other), tmp_path / "d", resume=start)
    saved = torch.load(start, weights_only=True)
    saved["plan"]["values"].clear()
    torch.save(saved, start)
    with pytest.raises(ConfigError, match=r"0 values of val/acc after epoch 2, .* goes by val/acc"):
        fit(module_of(watching), tmp_path / "c", resume=start)


def test_a_plateau_moved_the_unfreeze_and_the_resumed_run_knows(tmp_path: Path) -> None:
    """Else the proof above would prove nothing of it."""
    module = module_of(plan_of("on_plateau"))
    fit(module, tmp_path)
    assert module.plan.unfreeze_epochs != module.written_plan.unfreeze_epochs
    assert module.plan.unfreeze_epochs[0] >= 2
    assert len(module.plan.values) == EPOCHS


def test_the_comparison_finds_a_changed_bit(tmp_path: Path) -> None:
    module = module_of(plan_of("full"))
    fit(module, tmp_path)
    one, two = (torch.load(tmp_path / "epoch5.ckpt", weights_only=True) for _ in range(2))
    assert difference(one, two) == []
    state = two["optimizer_states"][0]["state"][0]["exp_avg"]
    state.view(-1)[0] = torch.nextafter(state.view(-1)[0], torch.tensor(1.0))
    assert difference(one, two) == ["/optimizer_states/0/state/0/exp_avg"]


def test_it_depends_on_the_state_that_is_saved(tmp_path: Path) -> None:
    """A run resumed without its optimiser state ends elsewhere."""
    plan = plan_of("freeze_unfreeze")
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


class Rates(pl.Callback):
    """The rate of each layer group in each batch, with its place in the run."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, dict[str, float]]] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        share = batch_idx // trainer.accumulate_grad_batches / steps
        groups = trainer.optimizers[0].param_groups
        rates = {name: group["lr"] for group in groups for name in group["layer_groups"]}
        self.seen.append((trainer.current_epoch, share, rates))


UNLIKE: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {  # (batch size, accumulation)
    "fewer": ((4, 1), (16, 1)), "more": ((16, 1), (4, 1)), "accumulated": ((4, 1), (4, 4)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "schedule"),
    [("fewer", "cosine"), ("more", "CosineAnnealingWarmRestarts"), slow("accumulated", "step")],
)
def test_rates_go_on_with_another_number_of_steps(tmp_path: Path, how: str, schedule: str) -> None:
    """As after out of memory at the unfreeze: 16 steps an epoch, then 4, or the other way round.

    A rate is a function of (epoch, share of the epoch), whatever the number of steps is, so at the
    places that both runs visit it is the same.
    """
    warm = {**SCHEDULES[schedule], "warmup_epochs": 1.0}
    plan = plan_of("freeze_unfreeze", SCHEDULES[schedule], unfrozen=warm)
    (batch, every), (new_batch, new_every) = UNLIKE[how]
    assert BATCH == 4
    whole, again = Rates(), Rates()
    fit(module_of(plan), tmp_path, whole, data=Data(batch, 16), accumulate_grad_batches=every)
    module = module_of(plan)
    start = tmp_path / "epoch2.ckpt"
    fit(module, tmp_path / "again", again, data=Data(new_batch, 16), resume=start,
        accumulate_grad_batches=new_every)  # fmt: skip
    assert len({share for _, share, _ in again.seen}) == 64 // new_batch // new_every
    known = {(epoch, share): rates for epoch, share, rates in whole.seen}
    both = [(known[epoch, share], rates) for epoch, share, rates in again.seen
            if (epoch, share) in known]  # fmt: skip
    assert len({rates["deep"] for _, rates in both}) >= 3
    assert {epoch for epoch, _, _ in again.seen} == {3, 4, 5}
    for before, after in both:
        assert before == after
    for epoch, share, rates in again.seen:  # all of them, and none is zero after the unfreeze
        for name, rate in rates.items():
            assert rate == module.plan.learning_rate(name, epoch, share) > 0, (epoch, share, name)
    assert module.plan.steps_per_epoch == 64 // batch // every


def test_inside_an_epoch_the_number_of_batches_stays(tmp_path: Path) -> None:
    """Which photos the epoch has left could not be said."""
    plan = plan_of("freeze_unfreeze")
    fit(module_of(plan), tmp_path, Save(tmp_path, [4 * 16 + 3]), data=Data(4, 16))
    start = tmp_path / "step67.ckpt"
    fit(module_of(plan), tmp_path / "a", data=Data(4, 16), resume=start)
    with pytest.raises(ConfigError, match=r"after 3 of 16 batches of an epoch, which has 4 now"):
        fit(module_of(plan), tmp_path / "b", data=Data(16, 16), resume=start)
