"""A plan is what its phases and the validation results say, and nothing else."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from models import small_classifier
from torch.optim import lr_scheduler

from thaw.backbones.groups import LayerGroup
from thaw.errors import ConfigError
from thaw.finetune.builder import build_plan
from thaw.finetune.plan import Plan, plan_table

GROUPS = tuple(LayerGroup(name) for name in ("stem", "deep", "head"))
CONSTANT: dict[str, Any] = {"lr": 1e-3, "schedule": "constant"}
COSINE: dict[str, Any] = {"lr": 1.0, "schedule": "cosine"}
REDUCED: dict[str, Any] = {"lr": 1.0, "schedule": "plateau", "gamma": 0.1, "patience": 0}


def two_phases(unfreeze_epoch: int = 5, unfrozen: Any = None, **changes: Any) -> Plan:
    return build_plan(
        GROUPS, 8, mode="freeze_unfreeze", batchnorm="train", unfreeze_epoch=unfreeze_epoch,
        depthwise="train", frozen=CONSTANT, unfrozen=unfrozen or COSINE, **changes,
    )  # fmt: skip


def on_plateau(patience: int) -> Plan:
    return two_phases(unfreeze_on_plateau=patience)


@pytest.mark.parametrize(
    ("patience", "values", "unfreeze"),
    [
        (1, [], 5),
        (1, [0.1, 0.2, 0.3, 0.4], 5),  # better each time: at unfreeze_epoch
        (1, [0.1, 0.1], 2),
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
    assert plan.learning_rate("head", 7, 0.0) == two_phases(unfreeze).learning_rate("head", 7, 0.0)


def test_later_phases_come_earlier_with_their_lengths() -> None:
    plan = build_plan(
        GROUPS, 12, mode="gradual", batchnorm="train", unfreeze_epoch=4, every_epochs=4,
        depthwise="train", frozen=CONSTANT, unfrozen=CONSTANT, unfreeze_on_plateau=1,
    )  # fmt: skip
    assert [phase.end for phase in plan.phases] == [4, 8, 12]
    assert [phase.end for phase in plan.after([1, 1]).phases] == [2, 6, 12]
    assert [phase.end for phase in plan.after([1, 1, 1, 2, 2]).phases] == [2, 5, 12]


def test_each_phase_has_a_schedule_of_its_own() -> None:
    """Warm-up and cosine begin anew at the unfreeze."""
    plan = build_plan(
        GROUPS, 4, mode="freeze_unfreeze", batchnorm="train", unfreeze_epoch=2, frozen=COSINE,
        depthwise="train", unfrozen={**COSINE, "warmup_epochs": 1},
    )  # fmt: skip
    plan = replace(plan, steps_per_epoch=2)
    rates = [plan.learning_rate("head", step // 2, step % 2 / 2) for step in range(8)]
    assert rates == pytest.approx([1, 0.853553, 0.5, 0.146447, 0.5, 1.0, 1.0, 0.5], abs=1e-6)


def test_a_reduced_rate_goes_by_the_values_of_its_own_phase() -> None:
    plan = two_phases(4, REDUCED).after([0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.2])
    rates = [plan.learning_rate("head", epoch, 0.5) for epoch in range(4, 8)]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_what_waits_for_validation_needs_some() -> None:
    plan = on_plateau(1)
    plan.check(monitor="val/acc", validates=True)
    for kept in ({"validates": False}, {"validates": True, "validate_every": 2}):
        items = [{**CONSTANT, "epochs": 2, "end_on_plateau": 1}, CONSTANT]
        listed = build_plan(GROUPS, 8, mode="phases", phases=items)
        for waits in (plan, two_phases(4, REDUCED), listed):
            with pytest.raises(ConfigError, match=r"finetune=.*: waits for a plateau of val/loss"):
                waits.check(monitor="val/loss", **kept)
    two_phases().check(monitor="val/acc", validates=False)


def test_the_table_shows_phase_group_rate_and_parameters() -> None:
    """Epochs are counted from 1, and the warm-up is the one that is used."""
    model = small_classifier()
    plan = build_plan(
        model.groups, 5, mode="freeze_unfreeze", batchnorm="train", unfreeze_epoch=2,
        frozen={"lr": 1e-2}, unfrozen={**CONSTANT, "warmup_epochs": 4.0}, lr_decay=0.5,
        depthwise="train",
    )  # fmt: skip
    lines = plan_table(plan, model, steps_per_epoch=7).splitlines()
    table = {line.split()[0]: line for line in lines}
    assert "frozen: epochs 1-2" in lines[0]
    assert "unfrozen: epochs 3-5" in lines[0]
    assert table["head"].split() == ["head", "36", "lr", "1.00e-02", "lr", "1.00e-03"]
    stem = 3 * 6 * 9 + 6 + 12  # convolution with bias, BatchNorm
    assert table["conv"].split() == ["conv", str(stem), "frozen", "lr", "6.25e-05"]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert f"{36 / total:.1%} trains" in table["all"]
    assert "100.0% trains" in table["all"]
    assert table["steps"].split() == ["steps", "14", "21"]
    assert table["schedule"].split() == ["schedule", "cosine", "constant,", "warm-up", "1.5"]
    assert table["trains"].split() == ["trains", "on", "photos", "photos"]
    assert table["depthwise"].split() == ["depthwise", "none", "none"]


def test_the_table_names_what_is_set() -> None:
    model = small_classifier()
    make = partial(lr_scheduler.StepLR, step_size=1)
    plan = build_plan(
        model.groups, 4, mode="freeze_unfreeze", unfreeze_epoch=3, batchnorm="frozen", mixes=True,
        depthwise="train", unfreeze_on_plateau=1, cache_features=True,
        frozen={"lr": 1e-2, "schedule": make, "augment": False, "mix": False},
        unfrozen={"lr": 1e-3, "schedule": "step", "step_epochs": 1, "gamma": 0.5},
    )  # fmt: skip
    text = plan_table(plan, model, 7)
    for words in ("epochs 1-3 or plateau of 1", "unfrozen: epoch 4\n", "StepLR",
                  "1 view each, not augmented", "step", "mixed photos"):  # fmt: skip
        assert words in text
