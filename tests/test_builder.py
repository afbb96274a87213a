"""Settings of conf/finetune/ -> phases: which groups train, in which epochs, at which rate."""

from typing import Any
from unittest.mock import Mock

import pytest

from thaw.backbones.groups import LayerGroup
from thaw.errors import ConfigError
from thaw.finetune.builder import build_plan
from thaw.finetune.plan import MODES, Plan

NAMES = ("stem", "middle", "deep", "head")
GROUPS = tuple(
    LayerGroup(name, depth=depth) for name, depth in zip(NAMES, (0, 0.5, 1, 1), strict=True)
)
CONSTANT: dict[str, Any] = {"lr": 1e-3, "schedule": "constant"}
BOTH: dict[str, Any] = {
    "frozen": CONSTANT,
    "unfrozen": CONSTANT,
    "batchnorm": "train",
    "depthwise": "train",
}


def phases_of(plan: Plan) -> list[tuple[int, int, set[str]]]:
    return [(phase.start, phase.end, set(phase.rates)) for phase in plan.phases]


def refused(max_epochs: int = 6, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        build_plan(GROUPS, max_epochs, **settings)
    return str(error.value)


def test_freeze_unfreeze() -> None:
    plan = build_plan(
        GROUPS, 5, mode="freeze_unfreeze", unfreeze_epoch=2, lr_decay=0.5,
        frozen={**CONSTANT, "lr": 1e-2}, unfrozen=CONSTANT, batchnorm="train", depthwise="train",
    )  # fmt: skip
    assert [plan.phase_at(epoch).name for epoch in range(5)] == ["frozen"] * 2 + ["unfrozen"] * 3
    assert plan.unfreeze_epochs == (2,)
    places = ((0, 0.0), (1, 0.5), (2, 0.0), (4, 0.5))
    rates = {name: [plan.learning_rate(name, *place) for place in places] for name in NAMES}
    assert rates == {
        "stem": [0, 0, 1.25e-4, 1.25e-4],
        "middle": [0, 0, 2.5e-4, 2.5e-4],
        "deep": [0, 0, 5e-4, 5e-4],
        "head": [1e-2, 1e-2, 1e-3, 1e-3],
    }


def test_modes_of_one_phase() -> None:
    features = build_plan(GROUPS, 3, mode="feature_extraction", frozen=CONSTANT)
    assert features.phases[0].rates == {"head": 1e-3}
    everything = build_plan(GROUPS, 3, mode="full", unfrozen=CONSTANT, min_lr_ratio=0.1,
                            batchnorm="eval", depthwise="train")  # fmt: skip
    assert everything.phases[0].rates["stem"] == pytest.approx(1e-4)
    assert everything.phases[0].batchnorm == "eval"
    scratch = build_plan(GROUPS, 3, mode="from_scratch", unfrozen=CONSTANT)
    assert scratch.phases[0].rates == dict.fromkeys(NAMES, 1e-3)
    assert scratch.phases[0].batchnorm == "train"  # random weights have no statistics to keep
    assert scratch.phases[0].depthwise == "train"


def test_a_derived_rate_goes_by_the_epochs_that_may_be_unfrozen() -> None:
    """A plateau may unfreeze after the first epoch."""
    for settings, epochs in (({}, 2), ({"unfreeze_on_plateau": 1}, 9)):
        rule = Mock(return_value=(2e-4, "for a reason"))
        build_plan(GROUPS, 9, mode="freeze_unfreeze", unfreeze_epoch=7, frozen=CONSTANT,
                   unfrozen={**CONSTANT, "lr": "auto"}, batchnorm="eval", derived_lr=rule,
                   depthwise="train", **settings)  # fmt: skip
        rule.assert_called_once_with(epochs)


def test_gradual_unfreezes_from_the_head_down() -> None:
    gradual = {"mode": "gradual", "unfreeze_epoch": 2, "every_epochs": 2, **BOTH}
    plan = build_plan(GROUPS, 9, lr_decay=0.5, **gradual)
    assert phases_of(plan) == [
        (0, 2, {"head"}), (2, 4, {"head", "deep"}), (4, 6, {"head", "deep", "middle"}),
        (6, 9, set(NAMES)),
    ]  # fmt: skip
    assert [phase.name for phase in plan.phases] == ["frozen", "deep", "middle", "stem"]
    # a group has one rate from its unfreeze on
    assert [phase.rates.get("deep") for phase in plan.phases] == [None, 5e-4, 5e-4, 5e-4]
    stopped = build_plan(GROUPS, 9, top="middle", **gradual)
    assert phases_of(stopped)[-1] == (4, 9, {"head", "deep", "middle"})


@pytest.mark.parametrize(
    ("top", "names"),
    [
        (1, {"deep"}), (2, {"deep", "middle"}), (0.34, {"deep"}), (1.0, {"deep", "middle", "stem"}),
        ("middle", {"deep", "middle"}), (["stem", "deep"], {"stem", "deep"}),
    ],
)  # fmt: skip
def test_partial_trains_the_top(top: Any, names: set[str]) -> None:
    settings = {**BOTH, "unfreeze_epoch": 2, "lr_decay": 0.5}
    plan = build_plan(GROUPS, 4, mode="partial", top=top, **settings)
    assert set(plan.phases[0].rates) == {"head"}
    assert set(plan.phases[1].rates) == {"head", *names}
    whole = build_plan(GROUPS, 4, mode="freeze_unfreeze", **settings).phases[1].rates
    assert plan.phases[1].rates.items() <= whole.items()


def test_classifier_trains_the_old_one_and_the_new_layer() -> None:
    groups = (*GROUPS[:2], LayerGroup("classifier.0", is_classifier=True), GROUPS[-1])
    settings = {
        "mode": "classifier",
        "unfrozen": CONSTANT,
        "top": "classifier",
        "batchnorm": "train",
        "depthwise": "train",
    }
    plan = build_plan(groups, 3, **settings)
    assert plan.phases[0].rates == {"classifier.0": 1e-3, "head": 1e-3}
    assert "single last layer, which the head replaces; use finetune=feat" in refused(**settings)


def test_phases_of_ones_own() -> None:
    items = [
        {"epochs": 2, "top": 0, **CONSTANT, "augment": False, "mix": False},
        {"epochs": 2, "name": "top", "top": 1, "lr": 1e-3, "batchnorm": "frozen"},
        {"lr": 1e-3, "min_lr_ratio": 0.1, "rates": {"stem": 1e-6}},
    ]
    plan = build_plan(GROUPS, 6, mode="phases", phases=items, mixes=True)
    assert phases_of(plan) == [(0, 2, {"head"}), (2, 4, {"deep", "head"}), (4, 6, set(NAMES))]
    assert [phase.name for phase in plan.phases] == ["phase 1", "top", "phase 3"]
    assert [phase.augment for phase in plan.phases] == [False, True, True]
    assert [phase.mix for phase in plan.phases] == [False, True, True]
    assert [phase.batchnorm for phase in plan.phases] == ["eval", "frozen", "eval"]
    assert plan.phases[2].rates["stem"] == 1e-6
    assert not any(phase.mix for phase in build_plan(GROUPS, 6, mode="phases", phases=items).phases)


def test_the_list_can_say_what_a_mode_says() -> None:
    items = [
        {"name": "frozen", "epochs": 2, "top": 0, **CONSTANT},
        {"name": "unfrozen", **CONSTANT, "lr_decay": 0.5},
    ]
    written = build_plan(GROUPS, 6, mode="phases", phases=items, cache_features="auto")
    named = build_plan(
        GROUPS, 6, mode="freeze_unfreeze", unfreeze_epoch=2, lr_decay=0.5, cache_features="auto",
        **{**BOTH, "batchnorm": "eval", "depthwise": "frozen"},
    )  # fmt: skip
    for one, two in zip(written.phases, named.phases, strict=True):
        assert {**vars(one), "top": None} == {**vars(two), "top": None}


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"lr": 0.1}, {"lr": 0.1}], "phases.0.epochs=0: allowed is 1 to 5; 6 of trainer.max_ep"),
        ([{"lr": 0.1, "epochs": 6}, {"lr": 0.1}], "phases.0.epochs=6: allowed is 1 to 5"),
        ([{"lr": 0.1, "epochs": 2}, {"lr": 0.1, "epochs": 2}], "1.epochs=2: allowed is 4, or none"),
        ([{}], "finetune.phases.0.lr=null: allowed is a positive"),
        ([{"lr": 0.1, "agument": False}], "phases.0.agument=False: nothing reads this key; did"),
        ([{"lr": 0.1, "augment": 3}], "phases.0.augment=3: allowed is true or false"),
        ([{"lr": 0.1, "top": ["dep"]}], "phases.0.top=dep: allowed is a layer group: stem"),
        ([{"lr": 0.1, "top": 7}], "phases.0.top=7: allowed is a number of layer groups to 3"),
        ([{"lr": 0.1, "rates": {"stm": 1e-3}}], "phases.0.rates=stm: allowed is a layer group: "),
        ([{"lr": 0.1, "batchnorm": "off"}], "phases.0.batchnorm=off: allowed is eval, train, fro"),
        ([{"lr": 0.1, "end_on_plateau": 0}], "phases.0.end_on_plateau=0: allowed is 1 or more"),
        ([{"lr": 0.1, "start": 2}], "phases.0.start=2: nothing reads this key"),
        ([0.1], "finetune.phases.0=0.1: allowed is a mapping of lr"),
        ([{"lr": 0.1, "end_on_plateau": 2}], "0.end_on_plateau=2: allowed is null in the last"),
        ([{"lr": 0.1, "epochs": 2, "name": "a"}, {"lr": 0.1, "name": "a"}], "1.name=a: allowed"),
        ([{"lr": 0.1, "top": 1, "rates": {"stem": 1e-3}}], "phases.0.rates.stem=0.001: allowed is"),
        ([{"lr": 0.1, "schedule": "step"}], "finetune.phases.0.step_epochs=null: allowed is 1"),
    ],
)  # fmt: skip
def test_phases_that_cannot_work(items: Any, words: str) -> None:
    """test_bad_input.py has more of them."""
    assert words in refused(mode="phases", phases=items)


@pytest.mark.parametrize(
    ("mode", "settings", "words"),
    [
        ("gradual", {"every_epochs": 2}, "so that 3 groups start after epoch 2"),
        ("gradual", {"every_epochs": 1, "top": "midle"}, "top=midle: allowed is a layer group: "),
        ("gradual", {"every_epochs": 1, "top": "head"}, "finetune.top=head: allowed is a layer"),
        ("partial", {"top": True}, "finetune.top=True: allowed is a number of layer groups"),
        ("freeze_unfreeze", {"rates": {"deep": 0.0}}, "finetune.rates.deep=0.0: allowed is a pos"),
        ("freeze_unfreeze", {"min_lr_ratio": 0.0}, "finetune.min_lr_ratio=0.0: allowed"),
        ("freeze_unfreeze", {"frozen": None}, "finetune.frozen=null: allowed is a mapping of lr"),
        ("freeze_unfreeze", {"frozen": {**CONSTANT, "top": 1}}, "frozen.top=1: nothing reads"),
        ("freeze_unfreeze", {"depthwise": None}, "finetune.depthwise=null: allowed is train, fr"),
        ("freeze_unfreeze", {"batchnorm": None}, "finetune.batchnorm=null: allowed is eval, train"),
        ("partial", {"top": 1, "rates": {"stem": 1e-3}}, "never trains; deep, head train"),
        ("gradual", {"every_epochs": 1, "top": 0}, "finetune.top=0: allowed is 1 or more layer gr"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(mode: str, settings: dict[str, Any], words: str) -> None:
    assert words in refused(**{"mode": mode, "unfreeze_epoch": 2, **BOTH, **settings})


@pytest.mark.parametrize("mode", MODES)
def test_a_setting_that_a_mode_does_not_have_names_those_that_do(mode: str) -> None:
    """All files of conf/finetune/ have all keys, so a sweep over modes gets as far as here."""
    nothing = {"lr": None, "schedule": None}
    values: dict[str, Any] = {
        "frozen": {**nothing, "lr": 0.1}, "unfrozen": {**nothing, "lr": 0.1}, "unfreeze_epoch": 1,
        "unfreeze_on_plateau": 2, "top": 2, "every_epochs": 1,
        "lr_decay": 0.5, "min_lr_ratio": 0.1, "rates": {"deep": 1e-3}, "batchnorm": "eval",
        "depthwise": "frozen", "cache_features": True, "cached_views": 4, "phases": [{"lr": 0.1}],
    }  # fmt: skip
    own = MODES[mode]
    assert {name for names in MODES.values() for name in names} == values.keys()
    for name in values.keys() - set(own):
        others = [other for other, names in MODES.items() if name in names]
        needed = {part: CONSTANT for part in ("frozen", "unfrozen") if part in own}
        message = refused(mode=mode, **needed, **{name: values[name]})
        assert message.startswith(f"finetune={mode} finetune.{name}")
        assert f": allowed is null: this mode has {', '.join(own)}; or choose" in message
        assert message.endswith(f"finetune={' or '.join(others)}")


def test_a_feature_extraction_that_is_told_to_unfreeze() -> None:
    message = refused(mode="feature_extraction", frozen=CONSTANT, unfreeze_epoch=1)
    assert message == (
        "finetune=feature_extraction finetune.unfreeze_epoch=1: allowed is null: this mode has "
        "frozen, cache_features, cached_views; or choose finetune=freeze_unfreeze or partial or "
        "gradual"
    )
    message = refused(mode="feature_extraction", frozen=CONSTANT, unfrozen={"lr": 0.1, "mix": None})
    assert message.startswith("finetune=feature_extraction finetune.unfrozen={'lr': 0.1}: ")


@pytest.mark.parametrize(
    ("epochs", "changes", "cached"),
    [
        (5, {}, [2, 0]),
        (5, {"cached_views": 4}, [4, 0]),
        (2, {}, [0, 0]),  # two passes are no more than two views cost
        (2, {"cache_features": True}, [2, 0]),
        (5, {"cache_features": False}, [0, 0]),
        (5, {"frozen": {**CONSTANT, "augment": False}}, [1, 0]),
        (5, {"mixes": True}, [0, 0]),
        (5, {"mixes": True, "cache_features": True}, [0, 0]),
        (5, {"mixes": True, "frozen": {**CONSTANT, "mix": False}}, [2, 0]),
        (5, {"limits_batches": True}, [0, 0]),
        (5, {"limits_batches": True, "cache_features": True}, [0, 0]),
    ],
)
def test_which_phases_train_on_cached_features(
    epochs: int, changes: dict[str, Any], cached: list[int]
) -> None:
    settings = {**BOTH, "cache_features": "auto", "unfreeze_epoch": epochs, **changes}
    plan = build_plan(GROUPS, 8, mode="freeze_unfreeze", **settings)
    assert [phase.cached_views for phase in plan.phases] == cached


def test_a_body_that_was_trained_is_not_cached() -> None:
    items = [{"lr": 0.1, "epochs": 4, "top": 1}, {"lr": 0.1, "top": 0}]
    plan = build_plan(GROUPS, 8, mode="phases", phases=items, cache_features=True)
    assert [phase.cached_views for phase in plan.phases] == [0, 0]
