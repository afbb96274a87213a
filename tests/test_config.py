"""Nothing the user wrote is ignored: each slip stops the run and names what was meant."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
from omegaconf import OmegaConf

from thaw import config
from thaw.backbones.groups import LayerGroup
from thaw.errors import ConfigError
from thaw.finetune.rates import Schedule

HEAD = {"_target_": "thaw.head.linear", "dropout": 0.0, "init": "zeros"}
FEATURES = {
    "_target_": f"{__name__}.one_phase",
    "frozen": {"_target_": "thaw.finetune.rates.Schedule", "lr": 0.1},
}
BAR = {"_target_": "lightning.pytorch.callbacks.TQDMProgressBar", "refresh_rate": 5}
GROUPS = (LayerGroup("stem"), LayerGroup("head"))
KEEP = {"_target_": f"{__name__}.keep"}


def one_phase(groups: object, max_epochs: int, *, frozen: Schedule) -> Schedule:
    """A constructor with a node inside."""
    return frozen


def keep(**arguments: object) -> dict[str, object]:
    """Whatever it is called with."""
    return arguments


def refused(node: object, key: str = "head", **arguments: object) -> str:
    """What `build` says."""
    with pytest.raises(ConfigError) as error:
        config.build(node, key, **arguments)  # pyright: ignore[reportArgumentType]
    return str(error.value)


def test_a_node_becomes_what_its_target_makes() -> None:
    layer = config.build(OmegaConf.create(HEAD), "head", in_features=8, num_classes=3)
    assert (layer.in_features, layer.out_features) == (8, 3)


def test_an_unknown_key_names_the_near_ones() -> None:
    message = refused({**HEAD, "dropuot": 0.5}, in_features=8, num_classes=3)
    assert message.startswith("head.dropuot=0.5: nothing reads this key; did you mean dropout?")
    # what thaw computes is not on offer
    assert message.endswith("Allowed: dropout, init")


def test_nested_nodes_are_built_and_checked() -> None:
    plan = config.build(FEATURES, "finetune", groups=GROUPS, max_epochs=2)
    assert plan == Schedule(0.1)
    slip = {**FEATURES, "frozen": {**FEATURES["frozen"], "lrr": 0.1}}
    message = refused(slip, "finetune", groups=GROUPS, max_epochs=2)
    assert message.startswith("finetune.frozen.lrr=0.1: nothing reads this key; did you mean lr?")


@pytest.mark.parametrize("node", [None, 3, "linear", ["linear"], {"dropout": 0.1}, {}])
def test_a_node_without_a_target(node: object) -> None:
    message = refused(node)
    assert message == f"head={node}: has no _target_; see conf/head/"


def test_what_thaw_computes_is_not_given() -> None:
    message = refused({**HEAD, "num_classes": 7}, in_features=8, num_classes=3)
    assert message == "head.num_classes=7: is set by thaw itself; leave it out"


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({**HEAD, "dropout": "???"}, "head.dropout"),
        ({**FEATURES, "frozen": {**FEATURES["frozen"], "lr": "???"}}, "head.frozen.lr"),
    ],
)
def test_a_value_that_must_be_given(node: dict, key: str) -> None:
    message = refused(OmegaConf.create(node), groups=GROUPS, max_epochs=2)
    assert message == f"{key}: has no value yet; give it as {key}=VALUE"


def test_an_argument_that_is_needed() -> None:
    assert refused(HEAD, in_features=8) == (
        "head.num_classes: is needed by thaw.head.linear and not given"
    )
    nested = {**FEATURES, "frozen": {"_target_": "thaw.finetune.rates.Schedule"}}
    message = refused(nested, "finetune", groups=GROUPS, max_epochs=2)
    assert message.startswith("finetune.frozen.lr: is needed by thaw.finetune.rates.")


def every_kind(
    whole: int = 1, truth: bool = True, text: str | None = None, word: Literal["a", 2] = "a",
    pair: tuple[float, float] = (0, 1), some: Sequence[str] | int = 1, size: Path | None = None,
    table: dict[str, int] | None = None, tensor: torch.Tensor | float = 1.0, open: object = None,
) -> None:  # fmt: skip
    """Arguments of the kinds that constructors have."""


@pytest.mark.parametrize(
    ("name", "wrong", "allowed", "right"),
    [
        ("whole", [1.5, "1", None, True, [1]], "a whole number", [0, -5]),
        ("truth", ["maybe", 1, None], "true or false", [False]),
        ("text", [3, True, ["a"]], "text, or null", ["x", None]),
        ("word", ["b", "2", None, True], "a, 2", ["a", 2]),
        ("pair", [[1], [1, 2, 3], ["a", 1], 1, "ab"], "a list of 2", [[0, 1.5]]),
        ("some", ["ab", [1], 1.5], "a list, or a whole number", [["a"], [], 3]),
        ("size", [1], "a path, or null", ["a", None]),
        ("table", [[1], "a"], "a mapping, or null", [{"a": 1}, None]),
        ("tensor", ["abc", [1.0]], "a number", [1, 0.5]),
        ("open", [], "", ["a", 1, None, [1]]),
    ],
)
def test_a_value_is_of_the_kind_that_the_constructor_says(
    name: str, wrong: list, allowed: str, right: list
) -> None:
    node = {"_target_": f"{__name__}.every_kind"}
    for value in wrong:
        place = f"x.{name}={'null' if value is None else value}"
        assert refused({**node, name: value}, "x") == f"{place}: allowed is {allowed}"
    for value in right:
        config.build({**node, name: value}, "x")


def test_what_a_library_refuses_is_told_with_its_setting() -> None:
    node = {"_target_": "torch.optim.AdamW", "eps": -1, "weight_decay": 0.5}
    make = config.build({**node, "_partial_": True}, "optim")
    with pytest.raises(ConfigError) as error:
        make([torch.zeros(1, requires_grad=True)])
    assert str(error.value) == (
        "optim.eps=-1: torch.optim.AdamW refuses it: ValueError: Invalid epsilon value: -1"
    )


def test_a_mistake_in_ones_own_class_keeps_its_stack() -> None:
    with pytest.raises(ZeroDivisionError):
        config.build({"_target_": f"{__name__}.divide"}, "x")


def divide() -> float:
    return 1 / 0


def test_a_partial_node_takes_the_rest_later() -> None:
    node = {"_target_": "thaw.head.linear", "_partial_": True, "dropout": 0.5}
    made = config.build(node, "head", in_features=8)
    assert isinstance(made, functools.partial)
    assert made(num_classes=3)[1].weight.shape == (3, 8)


def test_objects_that_thaw_passes_arrive_as_they_are() -> None:
    """Hydra's instantiate would turn a dataclass that it is handed into a mapping."""
    schedule = Schedule(0.1)
    assert config.build(KEEP, "x", computed=schedule)["computed"] is schedule


def test_lists_and_mappings_are_plain_python() -> None:
    node = OmegaConf.create({**KEEP, "a": [1, [2]], "b": {"c": [3]}})
    made = config.build(node, "x", d=4)
    assert made == {"a": [1, [2]], "b": {"c": [3]}, "d": 4}
    assert [type(made["a"]), type(made["a"][1]), type(made["b"]), type(made["b"]["c"])] == [
        list, list, dict, list,
    ]  # fmt: skip
    settings = config.plain(OmegaConf.create({"tags": ["a"], "one": 1, "same": "${one}"}))
    assert settings == {"tags": ["a"], "one": 1, "same": 1}
    assert type(settings["tags"]) is list


def test_an_error_of_a_nested_node_keeps_its_words() -> None:
    """Hydra would wrap it in words of its own."""
    node = {**KEEP, "inner": {"_target_": f"{__name__}.refuse"}}
    assert refused(node, "x") == "x.inner: is refused"


def refuse() -> None:
    raise ConfigError("x.inner: is refused")


def test_all_nodes_of_a_mapping_are_built_and_null_is_off() -> None:
    made = config.build_all(OmegaConf.create({"bar": BAR, "other": None}), "callbacks")
    assert list(made) == ["bar"]
    assert made["bar"].refresh_rate == 5
    assert config.build_all(None, "callbacks") == {}


def test_a_misspelt_callback_stops_the_run() -> None:
    """Hydra's own template would skip both of these without a word."""
    nodes = OmegaConf.create({"bar": BAR, "early_stoping": {"patience": 1}})
    with pytest.raises(ConfigError) as error:
        config.build_all(nodes, "callbacks")
    assert str(error.value) == (
        "callbacks.early_stoping={'patience': 1}: has no _target_; did you mean early_stopping?; "
        "see conf/callbacks/"
    )
    with pytest.raises(ConfigError, match=r"callbacks\.bar\.refresh=1: .*did you mean refresh_"):
        config.build_all({"bar": {**BAR, "refresh": 1}}, "callbacks")
