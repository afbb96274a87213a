"""Rates against formulas written out by hand."""

import pytest

from thaw.backbones.groups import LayerGroup
from thaw.finetune.builder import layer_rates
from thaw.finetune.plan import Phase

NAMES = ("stem", "middle", "deep", "head")
GROUPS = [LayerGroup(name, depth=depth) for name, depth in zip(NAMES, (0, 0.5, 1, 1), strict=True)]


def test_exponential_rates() -> None:
    rates = layer_rates(GROUPS, Phase(1e-3, lr_decay=0.5))
    assert rates == {"stem": 1.25e-4, "middle": 2.5e-4, "deep": 5e-4, "head": 1e-3}


def test_linear_rates() -> None:
    rates = layer_rates(GROUPS, Phase(1e-3, min_lr_ratio=0.1))
    expected = {"stem": 1e-4, "middle": 5.5e-4, "deep": 1e-3, "head": 1e-3}
    assert rates == pytest.approx(expected)


def test_one_rate_without_decay() -> None:
    assert set(layer_rates(GROUPS, Phase(1e-3)).values()) == {1e-3}


def test_rates_by_name_replace_the_rule() -> None:
    groups = [LayerGroup(name) for name in ("features.0", "features.1", "neck", "head")]
    rates = layer_rates(groups, Phase(1e-3, lr_decay=0.5, rates={"features": 1e-6, "neck": 1e-4}))
    assert rates == {"features.0": 1e-6, "features.1": 1e-6, "neck": 1e-4, "head": 1e-3}
