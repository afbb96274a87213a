"""Rates against formulas written out by hand; every parameter in exactly one optimiser group."""

import math
from typing import Any

import pytest
import torch
from models import small_classifier

from thaw.errors import ConfigError
from thaw.optim import Schedule, factor, layer_rates, parameter_groups

NAMES = ("stem", "middle", "deep", "head")


def test_exponential_rates() -> None:
    rates = layer_rates(NAMES, 1e-3, lr_decay=0.5)
    assert rates == {"stem": 1.25e-4, "middle": 2.5e-4, "deep": 5e-4, "head": 1e-3}


def test_linear_rates() -> None:
    rates = layer_rates(NAMES, 1e-3, min_lr_ratio=0.1)
    expected = {"stem": 1e-4, "middle": 4e-4, "deep": 7e-4, "head": 1e-3}
    assert rates == pytest.approx(expected)


def test_one_rate_without_decay() -> None:
    assert set(layer_rates(NAMES, 1e-3).values()) == {1e-3}


def test_cosine_with_warmup() -> None:
    schedule = Schedule(1.0, "cosine", warmup_epochs=0.5, floor=0.1)
    values = [factor(schedule, step, steps_per_epoch=4, epochs=2) for step in range(8)]
    cosine = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert values == pytest.approx([0.5, 1.0, *cosine])


def test_step() -> None:
    schedule = Schedule(1.0, "step", step_epochs=2, gamma=0.1)
    values = [factor(schedule, step, steps_per_epoch=2, epochs=5) for step in range(10)]
    assert values == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


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


def test_parameter_groups_hold_everything_once() -> None:
    model = small_classifier()
    model.set_trainable({"head"}, "eval")  # frozen parameters are in it as well
    groups = parameter_groups(model)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert len(groups) <= 2 * len(model.groups)
    assert [group["name"] for group in groups][:2] == ["conv", "conv/vectors"]


def test_norms_and_biases_take_no_decay() -> None:
    groups: list[dict[str, Any]] = parameter_groups(small_classifier())
    for group in groups:
        is_vector = group["name"].endswith("/vectors")
        assert all((parameter.ndim <= 1) == is_vector for parameter in group["params"])
        assert (group.get("weight_decay") == 0.0) == is_vector


@pytest.mark.parametrize(
    ("schedule", "key", "words"),
    [
        (Schedule(0.0), "lr=0.0", "positive"),
        (Schedule(1e-3, "linear"), "shape=linear", "constant, step, cosine"),  # pyright: ignore[reportArgumentType]
        (Schedule(1e-3, warmup_epochs=5), "warmup_epochs=5", "below 5"),
        (Schedule(1e-3, "step"), "step_epochs=None", "1 to 4"),
        (Schedule(1e-3, "step", step_epochs=5, gamma=0.1), "step_epochs=5", "never comes"),
        (Schedule(1e-3, "step", step_epochs=2, gamma=2.0), "gamma=2.0", "below 1"),
        (Schedule(1e-3, "cosine", step_epochs=2), "step_epochs=2", "no effect"),
        (Schedule(1e-3, "cosine", gamma=0.1), "gamma=0.1", "no effect"),
        (Schedule(1e-3, "constant", floor=0.1), "floor=0.1", "no effect"),
        (Schedule(1e-3, "cosine", floor=2.0), "floor=2.0", "0 to 1"),
    ],
)
def test_settings_that_cannot_work(schedule: Schedule, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        schedule.check("finetune.frozen", epochs=5)
    assert f"finetune.frozen.{key}" in str(error.value)
    assert words in str(error.value)
