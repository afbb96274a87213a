"""A plan is what its phases and the validation results say, and nothing else."""

from functools import partial
from typing import Any

import pytest
from models import small_classifier
from torch.optim import lr_scheduler

from thaw.backbones.groups import LayerGroup
from thaw.errors import ConfigError
from thaw.finetune.modes import freeze_unfreeze, gradual
from thaw.finetune.plan import PhaseSettings, Plan
from thaw.finetune.plan_table import plan_table
from thaw.finetune.plateau import Plateau

GROUPS = tuple(LayerGroup(name) for name in ("stem", "deep", "head"))
CONSTANT = PhaseSettings(1e-3, "constant")
COSINE = PhaseSettings(1.0, "cosine")


def on_plateau(patience: int, **changes: Any) -> Plan:
    return freeze_unfreeze(
        GROUPS, 8, unfreeze_epoch=5, frozen=CONSTANT, unfrozen=COSINE,
        unfreeze_on_plateau=Plateau(patience, 0.01), **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("patience", "values", "unfreeze"),
    [
        (1, [], 5),
        (1, [0.1, 0.2, 0.3, 0.4], 5),  # better each time: at unfreeze_epoch
        (1, [0.1, 0.1], 2),
        (1, [0.1, 0.105], 2),  # by less than min_delta
        (2, [0.1, 0.1], 5),
        (2, [0.1, 0.1, 0.05], 3),
        (2, [0.1, 0.1, 0.2, 0.2, 0.2], 5),
        (1, [0.1, 0.2, 0.3, 0.4, 0.4], 5),  # its last epoch is its last anyway
        (1, [0.1, 0.1, 0.1, 0.5, 0.5], 2),  # what comes after changes nothing
    ],
)
def test_a_plateau_ends_a_phase(patience: int, values: list[float], unfreeze: int) -> None:
    plan = on_plateau(patience).after(values)
    assert [(phase.start, phase.end) for phase in plan.phases] == [(0, unfreeze), (unfreeze, 8)]
    # the schedule of the last phase has the length that it really has
    assert plan.rate("head", 2 * 7, 2) == pytest.approx(
        PLAIN[unfreeze].rate("head", 2 * 7, 2)
    )  # fmt: skip


PLAIN = {
    epoch: freeze_unfreeze(GROUPS, 8, unfreeze_epoch=epoch, frozen=CONSTANT, unfrozen=COSINE)
    for epoch in (2, 3, 5)
}


def test_later_phases_come_earlier_with_their_lengths() -> None:
    plan = gradual(
        GROUPS, 12, unfreeze_epoch=4, every_epochs=4, stop_at=None, frozen=CONSTANT,
        unfrozen=CONSTANT, unfreeze_on_plateau=Plateau(1),
    )  # fmt: skip
    assert [phase.end for phase in plan.phases] == [4, 8, 12]
    assert [phase.end for phase in plan.after([1, 1]).phases] == [2, 6, 12]
    assert [phase.end for phase in plan.after([1, 1, 1, 2, 2]).phases] == [2, 5, 12]


def test_the_settings_stay_the_written_ones() -> None:
    """So the plan of a resumed run, made from all values at once, is that of one value a time."""
    plan, values = on_plateau(1), [0.1, 0.2, 0.2, 0.3]
    at_once = plan.after(values)
    assert plan.after(values[:2]).after(values).values == at_once.values
    assert at_once == plan.after(values)
    assert at_once.unfreeze_epochs == (3,)


def test_a_reduced_rate_goes_by_the_values_of_its_own_phase() -> None:
    reduced = PhaseSettings(1.0, "plateau", gamma=0.1, patience=0)
    plan = freeze_unfreeze(GROUPS, 8, unfreeze_epoch=4, frozen=CONSTANT, unfrozen=reduced)
    plan = plan.after([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.2])
    rates = [plan.rate("head", 2 * epoch, 2) for epoch in range(4, 8)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_what_waits_for_validation_needs_some() -> None:
    plan = on_plateau(1)
    plan.check(monitor="val/acc", validates=True, mixes=False)
    with pytest.raises(ConfigError, match=r"on_plateau\.patience=1: goes by val/acc.*no val"):
        plan.check(monitor="val/acc", validates=False, mixes=False)
    reduced = PhaseSettings(1.0, "plateau", gamma=0.1, patience=0)
    plan = freeze_unfreeze(GROUPS, 8, unfreeze_epoch=4, frozen=CONSTANT, unfrozen=reduced)
    with pytest.raises(ConfigError, match=r"finetune\.unfrozen\.shape=plateau: goes by val/loss"):
        plan.check(monitor="val/loss", validates=False, mixes=False)
    PLAIN[5].check(monitor="val/acc", validates=False, mixes=True)


def test_mixing_that_is_off_in_every_phase() -> None:
    off = PhaseSettings(1e-3, "constant", mix=False)
    plan = freeze_unfreeze(GROUPS, 8, unfreeze_epoch=4, frozen=off, unfrozen=off)
    with pytest.raises(ConfigError, match=r"mix: has no effect.*finetune\.unfrozen\.mix=true"):
        plan.check(monitor="val/acc", validates=True, mixes=True)


def test_the_table_names_what_is_set() -> None:
    model = small_classifier()
    make = partial(lr_scheduler.StepLR, step_size=1)
    plan = freeze_unfreeze(
        model.groups, 6, unfreeze_epoch=3, unfreeze_on_plateau=Plateau(1), batchnorm="frozen",
        frozen=PhaseSettings(1e-2, "torch", scheduler=make, augment=False),
        unfrozen=PhaseSettings(1e-3, "step", step_epochs=1, gamma=0.5, reset_optimizer=True),
    )  # fmt: skip
    text = plan_table(plan, model, 7)
    for words in ("epochs 0-2 or plateau of 1", "StepLR", "step x0.5 each 1", "no augmentation",
                  "new optimiser state", "frozen"):  # fmt: skip
        assert words in text


def test_plan_table_shows_phase_group_rate_and_parameters() -> None:
    model = small_classifier()
    plan = freeze_unfreeze(
        model.groups, 5, unfreeze_epoch=2, frozen=PhaseSettings(1e-2), unfrozen=CONSTANT,
        lr_decay=0.5,
    )  # fmt: skip
    lines = plan_table(plan, model, steps_per_epoch=7).splitlines()
    table = {line.split()[0]: line for line in lines}
    assert "frozen: epochs 0-1" in lines[0]
    assert "unfrozen: epochs 2-4" in lines[0]
    assert table["head"].split() == ["head", "36", "lr", "1.00e-02", "lr", "1.00e-03"]
    stem = 3 * 6 * 9 + 6 + 12  # convolution with bias, BatchNorm
    assert table["conv"].split() == ["conv", str(stem), "frozen", "lr", "6.25e-05"]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert f"{36 / total:.1%} trains" in table["all"]
    assert "100.0% trains" in table["all"]
    assert table["steps"].split() == ["steps", "14", "21"]
