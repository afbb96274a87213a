"""Schedules against formulas written out by hand and against torch's own."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from thaw.errors import ConfigError
from thaw.finetune.rates import Schedule


def shares(schedule: Schedule, steps: int, epochs: int, values: Any = ()) -> list[float]:
    """At each optimiser step of a phase of so many epochs of so many steps."""
    return [
        schedule.share(step // steps, step % steps / steps, epochs=epochs, steps_per_epoch=steps,
                       values=values)
        for step in range(steps * epochs)
    ]  # fmt: skip


def test_cosine_with_warmup() -> None:
    schedule = Schedule(1.0, "cosine", warmup_epochs=0.5)
    cosine = [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert shares(schedule, 4, 2) == pytest.approx([0.5, 1.0, *cosine])


@pytest.mark.parametrize("steps", [3, 7, 49, 107])
def test_places_are_whole_steps_to_the_bit(steps: int) -> None:
    """The numbers of the formulas in steps, although a place is a share of an epoch."""
    schedule = Schedule(1.0, "cosine", warmup_epochs=1.0)
    expected = [
        (step + 1) / steps if step < steps
        else 0.5 * (1 + math.cos(math.pi * ((step - steps) / (3 * steps))))
        for step in range(4 * steps)
    ]  # fmt: skip
    assert shares(schedule, steps, 4) == expected


def test_step() -> None:
    schedule = Schedule(1.0, "step", step_epochs=2, gamma=0.1)
    expected = [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]
    assert shares(schedule, 2, 5) == pytest.approx(expected)
    assert shares(Schedule(1.0, "step", step_epochs=7, gamma=0.1), 1, 5) == [1] * 5  # a short run


def test_constant() -> None:
    assert shares(Schedule(1.0, "constant"), 3, 2) == [1.0] * 6


@pytest.mark.parametrize(("epochs", "used"), [(1, 0.5), (2, 1.0), (3, 1.5), (8, 3.0)])
def test_the_warmup_has_at_most_half_of_the_phase(epochs: int, used: float) -> None:
    schedule = Schedule(1.0, "constant", warmup_epochs=3.0)
    schedule.check("finetune.frozen")
    assert schedule.warmup(epochs) == used
    number = int(used * 10)
    rise = [(step + 1) / number for step in range(number)]
    assert shares(schedule, 10, epochs) == rise + [1.0] * (10 * epochs - number)


def test_plateau_drops_when_validation_is_no_better() -> None:
    """The same as torch's own, given the same values."""
    values = [0.1, 0.3, 0.2, 0.3, 0.4, 0.4, 0.3, 0.2, 0.1, 0.1]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", factor=0.1, patience=1, threshold=0.0, threshold_mode="abs"
    )
    schedule = Schedule(1.0, "plateau", gamma=0.1, patience=1)
    ours = shares(schedule, 2, len(values), values)
    for epoch in range(len(values)):
        assert ours[2 * epoch + 1] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        theirs.step(values[epoch])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3)


TORCH = {
    "StepLR": partial(lr_scheduler.StepLR, step_size=2, gamma=0.1),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[1, 3]),
    "CosineAnnealingWarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=2),
    "PolynomialLR": partial(lr_scheduler.PolynomialLR, total_iters=4),
    "CyclicLR": partial(
        lr_scheduler.CyclicLR, base_lr=1e-3, max_lr=1e-2, step_size_up=3, cycle_momentum=False
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_any_scheduler_of_torch(name: str) -> None:
    """The numbers that it gives the head in a loop of one's own; at any step, in any order."""
    make = TORCH[name]
    schedule = Schedule(0.02, make)
    schedule.check("finetune.frozen")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.02)
    theirs = make(optimizer)
    expected = []
    for step in range(15):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % 3 == 2:
            theirs.step()
    ours = [0.02 * share for share in shares(schedule, 3, 5)]
    assert ours == pytest.approx(expected, rel=1e-12)


def test_what_follows_the_warmup_begins_after_it() -> None:
    """torch's scheduler at its own first value, the plateau's count at the first warm epoch."""
    make = partial(lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.5, total_iters=2)
    schedule = Schedule(1.0, make, warmup_epochs=1)
    expected = [0.5, 1, 1, 1, 0.75, 0.75]
    assert shares(schedule, 2, 3) == pytest.approx(expected)
    plateau = Schedule(1.0, "plateau", gamma=0.1, patience=0, warmup_epochs=2)
    values = shares(plateau, 4, 6, [0.3, 0.2, 0.1, 0.1, 0.2])[::4]
    assert values == pytest.approx([1 / 8, 5 / 8, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=4, cycle_momentum=False),
         r"schedule=OneCycleLR in a phase of 5 epochs: Tried to step"),
        (partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=5), "momentum"),
        (partial(lr_scheduler.ReduceLROnPlateau), "metrics"),
        (partial(lr_scheduler.StepLR), "step_size"),
    ],
)  # fmt: skip
def test_a_scheduler_of_torch_that_cannot_work(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        shares(Schedule(1.0, make), 2, 5)
    fits = partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=5, cycle_momentum=False)
    assert max(shares(Schedule(1.0, fits), 1, 5)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 0.0}, "lr=0.0: allowed is a positive rate"),
        ({"schedule": "step", "step_epochs": 2, "gamma": 2.0}, "gamma=2.0: allowed is a factor"),
        ({"schedule": "plateau", "gamma": 0.1}, "patience=null: allowed is 0 or more epochs"),
        ({"schedule": partial(lr_scheduler.StepLR, step_size=1), "patience": 2}, "patience=2: all"),
        ({"schedule": {"step_size": 2}}, "or a scheduler of torch, like {_target_"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Schedule(**{"lr": 1e-3, **settings}).check("finetune.frozen")
    assert "finetune.frozen." in str(error.value)
    assert words in str(error.value)
