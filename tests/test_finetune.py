"""Modes write phases; which groups train, at which rate, is a function of epoch and step."""

from typing import Any

import pytest

from thaw.backbones.groups import LayerGroup
from thaw.errors import ConfigError
from thaw.finetune.modes import (
    classifier,
    feature_extraction,
    freeze_unfreeze,
    from_scratch,
    full,
    gradual,
    partial,
)
from thaw.finetune.phase_list import phases
from thaw.finetune.plan import PhaseSettings, Plan
from thaw.finetune.plateau import Plateau

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


BOTH: dict[str, Any] = {"frozen": CONSTANT, "unfrozen": CONSTANT}


def trained(plan: Plan) -> list[tuple[int, int, list[str]]]:
    return [(phase.start, phase.end, list(phase.rates)) for phase in plan.phases]


def test_gradual_unfreezes_from_the_head_down() -> None:
    plan = gradual(
        GROUPS, 9, unfreeze_epoch=2, every_epochs=2, stop_at=None, lr_decay=0.5, **BOTH
    )  # fmt: skip
    assert trained(plan) == [
        (0, 2, ["head"]), (2, 4, ["head", "deep"]), (4, 6, ["head", "deep", "middle"]),
        (6, 9, ["head", "deep", "middle", "stem"]),
    ]  # fmt: skip
    assert [phase.name for phase in plan.phases] == ["frozen", "deep", "middle", "stem"]
    # a group has one rate from its unfreeze on
    assert [phase.rates.get("deep") for phase in plan.phases] == [None, 5e-4, 5e-4, 5e-4]
    stopped = gradual(GROUPS, 9, unfreeze_epoch=2, every_epochs=2, stop_at="middle", **BOTH)
    assert trained(stopped)[-1] == (4, 9, ["head", "deep", "middle"])


@pytest.mark.parametrize(
    ("top", "names"),
    [
        (1, {"deep"}), (2, {"deep", "middle"}), (0.34, {"deep"}), (1.0, {"deep", "middle", "stem"}),
        ("middle", {"deep", "middle"}), (["stem", "deep"], {"stem", "deep"}),
    ],
)  # fmt: skip
def test_partial_trains_the_top(top: Any, names: set[str]) -> None:
    plan = partial(GROUPS, 4, top=top, unfreeze_epoch=2, lr_decay=0.5, **BOTH)
    assert set(plan.phases[0].rates) == {"head"}
    assert set(plan.phases[1].rates) == {"head", *names}
    full_rates = freeze_unfreeze(GROUPS, 4, unfreeze_epoch=2, lr_decay=0.5, **BOTH).phases[1].rates
    assert plan.phases[1].rates.items() <= full_rates.items()


def test_classifier_trains_the_old_one_and_the_new_layer() -> None:
    groups = (*GROUPS[:2], LayerGroup("classifier.0", is_classifier=True), GROUPS[-1])
    plan = classifier(groups, 3, frozen=CONSTANT)
    assert plan.phases[0].rates == {"classifier.0": 1e-3, "head": 1e-3}
    with pytest.raises(ConfigError, match=r"single last layer.*finetune=feature_extraction"):
        classifier(GROUPS, 3, frozen=CONSTANT)


def test_phases_of_ones_own() -> None:
    plan = phases(
        GROUPS, 6,
        phases=[
            {"groups": 0, "lr": 1e-2, "shape": "constant", "augment": False, "mix": False},
            {"name": "top", "start": 2, "groups": 1, "lr": 1e-3, "batchnorm": "frozen"},
            {"start": 4, "lr": 1e-3, "min_lr_ratio": 0.1, "reset_optimizer": True,
             "rates": {"stem": 1e-6}},
        ],
    )  # fmt: skip
    assert trained(plan) == [(0, 2, ["head"]), (2, 4, ["deep", "head"]), (4, 6, list(NAMES))]
    assert [phase.name for phase in plan.phases] == ["phase 0", "top", "phase 2"]
    assert [phase.settings.augment for phase in plan.phases] == [False, True, True]
    assert [phase.settings.reset_optimizer for phase in plan.phases] == [False, False, True]
    assert plan.phases[1].batchnorm == "frozen"
    assert plan.phases[2].rates["stem"] == 1e-6


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "at least one phase"),
        ([{"start": 1, "lr": 0.1}], r"start at epochs \[1\].*must start at 0"),
        ([{"lr": 0.1}, {"start": 6, "lr": 0.1}], r"all below trainer\.max_epochs=6"),
        ([{}], r"finetune\.phases\.0\.lr: is needed"),
        ([{"lr": 0.1, "agument": False}], r"phases\.0\.agument=False.*did you mean augment"),
        ([{"lr": 0.1, "groups": ["dep"]}], r"phases\.0\.groups=dep.*did you mean deep"),
        ([{"lr": 0.1, "groups": 7}], r"phases\.0\.groups=7: .*1 to 3"),
        ([{"lr": 0.1, "rates": {"stm": 1e-3}}], r"phases\.0\.rates=stm.*did you mean stem"),
        ([{"lr": 0.1, "batchnorm": "off"}], r"phases\.0\.batchnorm=off: allowed are eval,"),
        ([{"lr": 0.1, "plateau": {"patience": 5}}, {"start": 5, "lr": 0.1}],
         r"phases\.0\.plateau\.patience=5: can never"),
        ([{"lr": 0.1, "plateau": {"patience": 2}}], r"plateau\.patience=2: has no effect.*last"),
        ([{"lr": 0.1, "plateau": {"patinece": 2}}], r"0\.plateau\.patinece=2.*mean patience"),
        ([{"lr": 0.1, "plateau": 2}], r"0\.plateau=2: allowed is a mapping of patience, min"),
        ([0.1], r"finetune\.phases\.0=0\.1: allowed is a mapping of lr"),
        ([{"lr": 0.1, "groups": None}], r"groups=null: leave it out"),
        ([{"lr": 0.1, "groups": 0, "lr_decay": 0.5}], r"0\.lr_decay=0\.5: has no effect"),
        ([{"lr": 0.1, "groups": 0, "batchnorm": "eval"}], r"0\.batchnorm=eval: has no effect"),
        ([{"lr": 0.1, "groups": 1, "rates": {"stem": 1e-3}}], r"0\.rates\.stem: has no effect"),
        ([{"lr": 0.1, "reset_optimizer": True}], r"0\.reset_optimizer=true: has no effect"),
        ([{"lr": 0.1, "shape": "step"}], r"finetune\.phases\.0\.step_epochs=null"),
    ],
)  # fmt: skip
def test_phases_that_cannot_work(items: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        phases(GROUPS, 6, phases=items)


@pytest.mark.parametrize(
    ("mode", "arguments", "words"),
    [
        (gradual, {"every_epochs": 0, "stop_at": None}, r"every_epochs=0: allowed is 1"),
        (gradual, {"every_epochs": 2, "stop_at": None}, r"max_epochs=6: unfreezing 3 gr.* 7 or"),
        (gradual, {"every_epochs": 1, "stop_at": "midle"}, r"stop_at=midle: .*mean middle"),
        (gradual, {"every_epochs": 1, "stop_at": None, "unfreeze_on_plateau": Plateau(1)},
         r"on_plateau\.patience=1: can never.*2 epochs.*raise it"),
        (gradual, {"every_epochs": 1, "stop_at": "head"}, r"stop_at=head: no such layer group"),
        (gradual, {"every_epochs": 1, "stop_at": "deep", "rates": {"stem": 1e-4}},
         r"rates\.stem: has no effect, since stem stays frozen"),
        (freeze_unfreeze, {"unfreeze_on_plateau": Plateau(None, 0.1)}, r"min_delta=0\.1: has no"),
        (partial, {"top": 0}, r"finetune\.top=0: .*from 1 to 3"),
        (partial, {"top": "dep"}, r"finetune\.top=dep: .*did you mean deep"),
        (partial, {"top": 1, "rates": {"stem": 1e-4}}, r"finetune\.rates\.stem: has no effect"),
        (freeze_unfreeze, {"unfreeze_on_plateau": Plateau(1)}, r"patience=1: can never.*2 epochs"),
        (freeze_unfreeze, {"rates": {"deep": 0.0}}, r"finetune\.rates\.deep=0\.0: allowed"),
    ],
)  # fmt: skip
def test_modes_that_cannot_work(mode: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        mode(GROUPS, 6, unfreeze_epoch=2, **BOTH, **arguments)


@pytest.mark.parametrize("epoch", [0, 5, 9, -1, 3.7])
def test_unfreeze_epoch_outside_the_run(epoch: float) -> None:
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
