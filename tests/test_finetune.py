"""Modes write phases; which groups train, at which rate, is a function of epoch and step."""

import pytest
from models import small_classifier

from thaw.errors import ConfigError
from thaw.finetune import feature_extraction, freeze_unfreeze, from_scratch, full
from thaw.groups import LayerGroup
from thaw.plan import PhaseSettings, plan_table

NAMES = ("stem", "middle", "deep", "head")
GROUPS = tuple(
    LayerGroup(name, depth=depth) for name, depth in zip(NAMES, (0, 0.5, 1, 1), strict=True)
)
CONSTANT = PhaseSettings(1e-3, "constant")


def test_freeze_unfreeze() -> None:
    plan = freeze_unfreeze(
        GROUPS, 5, unfreeze_epoch=2, frozen=PhaseSettings(1e-2, "constant"), unfrozen=CONSTANT,
        lr_decay=0.5,
    )  # fmt: skip
    assert [plan.phase_at(epoch).name for epoch in range(5)] == ["frozen"] * 2 + ["unfrozen"] * 3
    assert plan.unfreeze_epochs == (2,)
    rates = {name: [plan.rate(name, step, steps_per_epoch=2) for step in (0, 3, 4, 9)]
             for name in NAMES}  # fmt: skip
    assert rates == {
        "stem": [0, 0, 1.25e-4, 1.25e-4],
        "middle": [0, 0, 2.5e-4, 2.5e-4],
        "deep": [0, 0, 5e-4, 5e-4],
        "head": [1e-2, 1e-2, 1e-3, 1e-3],
    }


def test_each_phase_has_a_schedule_of_its_own() -> None:
    """Warm-up and cosine begin anew at the unfreeze."""
    plan = freeze_unfreeze(
        GROUPS, 4, unfreeze_epoch=2, frozen=PhaseSettings(1.0, "cosine"),
        unfrozen=PhaseSettings(1.0, "cosine", warmup_epochs=1),
    )  # fmt: skip
    rates = [plan.rate("head", step, steps_per_epoch=2) for step in range(8)]
    assert rates == pytest.approx([1, 0.853553, 0.5, 0.146447, 0.5, 1.0, 1.0, 0.5], abs=1e-6)


def test_other_modes() -> None:
    features = feature_extraction(GROUPS, 3, frozen=CONSTANT)
    assert features.phases[0].rates == {"head": 1e-3}
    everything = full(GROUPS, 3, unfrozen=CONSTANT, min_lr_ratio=0.1)
    assert everything.rate("stem", 0, 1) == pytest.approx(1e-4)
    assert everything.phases[0].batchnorm == "train"
    scratch = from_scratch(GROUPS, 3, unfrozen=CONSTANT)
    assert set(scratch.phases[0].rates.values()) == {1e-3}
    assert scratch.phases[0].batchnorm == "train"


@pytest.mark.parametrize("epoch", [0, 5, 9, -1])
def test_unfreeze_epoch_outside_the_run(epoch: int) -> None:
    with pytest.raises(ConfigError) as error:
        freeze_unfreeze(GROUPS, 5, unfreeze_epoch=epoch, frozen=CONSTANT, unfrozen=CONSTANT)
    for word in (f"finetune.unfreeze_epoch={epoch}", "1 to 4", "trainer.max_epochs=5", "full"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr_decay": 0.5, "min_lr_ratio": 0.1}, "give one"),
        ({"lr_decay": 1.5}, r"finetune\.lr_decay=1\.5"),
        ({"min_lr_ratio": 0.0}, r"finetune\.min_lr_ratio=0\.0"),
        ({"batchnorm": "freeze"}, r"finetune\.batchnorm=freeze"),
    ],
)
def test_bad_settings(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        full(GROUPS, 3, unfrozen=CONSTANT, **arguments)


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
