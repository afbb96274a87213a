"""Every parameter is in exactly one optimiser group."""

from typing import Any

import pytest
from models import small_classifier

from thaw.classifier import Classifier
from thaw.finetune.builder import layer_rates
from thaw.finetune.plan import Phase
from thaw.finetune.rates import parameter_groups


def rates_of(model: Classifier, lr_decay: float | None) -> list[dict[str, float]]:
    """A frozen phase and an unfrozen one."""
    return [{"head": 1e-3}, layer_rates(model.groups, Phase(1e-3, lr_decay=lr_decay))]


@pytest.mark.parametrize(("lr_decay", "number"), [(0.5, 10), (None, 4)])
def test_parameter_groups_hold_everything_once(lr_decay: float | None, number: int) -> None:
    """Layer groups of one rate in every phase are one; frozen parameters are in it as well."""
    model = small_classifier()
    model.set_trainable({"head"}, "eval", "train")
    groups = parameter_groups(model, rates_of(model, lr_decay))
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())
    assert len(groups) == number  # matrices and vectors of each rate
    layers = {name for group in groups for name in group["layer_groups"]}
    assert layers == set(model.group_names)
    first = "conv" if lr_decay else "conv..deep"
    assert [group["name"] for group in groups][:2] == [first, f"{first}/vectors"]


def test_norms_and_biases_take_no_decay() -> None:
    model = small_classifier()
    groups: list[dict[str, Any]] = parameter_groups(model, rates_of(model, 0.5))
    for group in groups:
        is_vector = group["name"].endswith("/vectors")
        assert all((parameter.ndim <= 1) == is_vector for parameter in group["params"])
        assert (group.get("weight_decay") == 0.0) == is_vector
