"""Schedules against formulas written out by hand and against torch's own."""

import math
from functools import partial
from typing import Literal

import pytest
import torch
from torch.optim import lr_scheduler

from thaw.errors import ConfigError
from thaw.finetune.schedule import Schedule, factor


def test_cosine_with_warmup() -> None:
    schedule = Schedule(1.0, "cosine", warmup_epochs=0.5, floor=0.1)
    values = [factor(schedule, step, steps_per_epoch=4, epochs=2) for step in range(8)]
    cosine = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert values == pytest.approx([0.5, 1.0, *cosine])


def test_step() -> None:
    schedule = Schedule(1.0, "step", step_epochs=2, gamma=0.1)
    values = [factor(schedule, step, steps_per_epoch=2, epochs=5) for step in range(10)]
    assert values == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_exponential() -> None:
    schedule = Schedule(1.0, "exponential", gamma=0.5)
    values = [factor(schedule, step, steps_per_epoch=2, epochs=3) for step in range(6)]
    assert values == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_plateau_drops_when_validation_is_no_better() -> None:
    """The same as torch's own, given the same values."""
    values = [0.1, 0.3, 0.2, 0.3, 0.4, 0.4, 0.3, 0.2, 0.1, 0.1]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=0.1, patience=1, threshold=0.0, threshold_mode="abs"
    )
    schedule = Schedule(1.0, "plateau", gamma=0.1, patience=1)
    for epoch in range(len(values)):
        ours = factor(schedule, 2 * epoch + 1, 2, len(values), values[:epoch])
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), epoch
        theirs.step(values[epoch])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)
    held = Schedule(1.0, "plateau", gamma=0.1, patience=1, floor=0.05)
    assert factor(held, 19, 2, len(values), values) == 0.05


def test_one_cycle_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=20, pct_start=0.3, cycle_momentum=False
    )
    schedule = Schedule(1.0, "one_cycle", warmup_epochs=1.5)
    for step in range(20):
        ours = factor(schedule, step, steps_per_epoch=4, epochs=5)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        theirs.step()


TORCH = {
    "StepLR": partial(lr_scheduler.StepLR, step_size=2, gamma=0.1),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[1, 3]),
    "CosineAnnealingWarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    "PolynomialLR": partial(lr_scheduler.PolynomialLR, total_iters=4),
    "CyclicLR": partial(
        lr_scheduler.CyclicLR, base_lr=1e-3, max_lr=1e-2, step_size_up=3, cycle_momentum=False
    ),
}


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", TORCH)
def test_any_scheduler_of_torch(name: str, interval: Literal["epoch", "step"]) -> None:
    """The numbers that it gives the head in a loop of one's own; at any step, in any order."""
    make = TORCH[name]
    schedule = Schedule(0.02, "torch", scheduler=make, interval=interval)
    schedule.check("finetune.frozen", 5)
    schedule.check_length("finetune.frozen", 3, 5)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.02)
    theirs = make(optimizer)
    expected = []
    for step in range(15):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if interval == "step" or step % 3 == 2:
            theirs.step()
    ours = [0.02 * factor(schedule, step, 3, 5) for step in reversed(range(15))]
    assert ours[::-1] == pytest.approx(expected, rel=1e-12)


def test_what_follows_the_warmup_begins_after_it() -> None:
    """torch's scheduler at its own first value, the plateau's count at the first warm epoch."""
    make = partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.5, total_iters=8)
    schedule = Schedule(1.0, "torch", warmup_epochs=1, scheduler=make, interval="step")
    values = [factor(schedule, step, steps_per_epoch=4, epochs=3) for step in range(12)]
    assert values == pytest.approx([0.25, 0.5, 0.75, 1, *(1 - step / 16 for step in range(8))])
    plateau = Schedule(1.0, "plateau", gamma=0.1, patience=0, warmup_epochs=2)
    values = [factor(plateau, 4 * epoch, 4, 6, [0.3, 0.2, 0.1, 0.1, 0.2]) for epoch in range(6)]
    assert values == pytest.approx([1 / 8, 5 / 8, 1, 1, 0.1, 0.1])


def test_a_length_that_is_not_known_before() -> None:
    make = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=50, cycle_momentum=False)
    schedule = Schedule(1.0, "torch", scheduler=make, interval="step")
    schedule.check_length("finetune.unfrozen", 10, 5)
    with pytest.raises(ConfigError, match=r"total_steps=50: .*plateau.*shape=one_cycle"):
        schedule.check_length("finetune.unfrozen", 10, 5, grows=True)


def test_a_scheduler_that_cannot_be_made() -> None:
    schedule = Schedule(1.0, "torch", scheduler=partial(lr_scheduler.StepLR))
    with pytest.raises(ConfigError, match=r"finetune\.frozen\.scheduler: .*step_size"):
        schedule.check("finetune.frozen", 5)


def test_a_scheduler_made_for_another_length() -> None:
    make = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=40, cycle_momentum=False)
    schedule = Schedule(1.0, "torch", scheduler=make, interval="step")
    schedule.check("finetune.unfrozen", 5)
    with pytest.raises(ConfigError, match=r"total_steps=40: the phase has 50 optimiser steps.*=50"):
        schedule.check_length("finetune.unfrozen", 10, 5)
    schedule.check_length("finetune.unfrozen", 8, 5)


def test_a_scheduler_that_would_move_the_momentum_too() -> None:
    make = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=50)
    schedule = Schedule(1.0, "torch", scheduler=make, interval="step")
    with pytest.raises(ConfigError, match=r"cycle_momentum=true: has no effect"):
        schedule.check_length("finetune.unfrozen", 10, 5)


def test_constant() -> None:
    assert {factor(Schedule(1.0, "constant"), step, 3, 2) for step in range(6)} == {1.0}


def test_torchs_own_schedulers_agree() -> None:
    """The same numbers as CosineAnnealingLR and StepLR, which many will compare with."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for step in range(12):
        ours = factor(Schedule(1.0, "cosine"), step, steps_per_epoch=4, epochs=3)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        cosine.step()


@pytest.mark.parametrize(
    ("schedule", "key", "words"),
    [
        (Schedule(0.0), "lr=0.0", "positive"),
        (Schedule(1e-3, "linear"), "shape=linear", "constant, step, exp"),  # pyright: ignore[reportArgumentType]
        (Schedule(1e-3, warmup_epochs=5), "warmup_epochs=5", "below 5"),
        (Schedule(1e-3, "step"), "step_epochs=null", "1 or more"),
        (Schedule(1e-3, "step", step_epochs=5, gamma=0.1), "step_epochs=5", "never comes"),
        (Schedule(1e-3, "step", step_epochs=2, gamma=2.0), "gamma=2.0", "below 1"),
        (Schedule(1e-3, "cosine", step_epochs=2), "step_epochs=2", "no effect"),
        (Schedule(1e-3, "cosine", gamma=0.1), "gamma=0.1", "no effect"),
        (Schedule(1e-3, "exponential"), "gamma=null", "below 1"),
        (Schedule(1e-3, "exponential", gamma=0.9, patience=2), "patience=2", "shape=plateau"),
        (Schedule(1e-3, "plateau", gamma=0.1), "patience=null", "2 below the 5"),
        (Schedule(1e-3, "plateau", gamma=0.1, patience=4), "patience=4", "never comes"),
        (Schedule(1e-3, "one_cycle"), "warmup_epochs=0", "usual is 1.5"),
        (Schedule(1e-3, "torch"), "scheduler=null", "_target_:torch.optim.lr_scheduler.StepLR"),
        (Schedule(1e-3, "cosine", scheduler=TORCH["StepLR"]), "scheduler=", "shape=torch"),
        (Schedule(1e-3, "cosine", interval="step"), "interval=step", "shape=torch"),
        (
            Schedule(1e-3, "torch", scheduler=partial(lr_scheduler.ReduceLROnPlateau)),
            "scheduler=ReduceLROnPlateau",
            "needs a metric",
        ),
        (Schedule(1e-3, "constant", floor=0.1), "floor=0.1", "no effect"),
        (Schedule(1e-3, "cosine", floor=2.0), "floor=2.0", "0 to 1"),
    ],
)
def test_settings_that_cannot_work(schedule: Schedule, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        schedule.check("finetune.frozen", epochs=5)
    assert f"finetune.frozen.{key}" in str(error.value)
    assert words in str(error.value)
