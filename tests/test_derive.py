"""The rate that `finetune.unfrozen.lr=auto` stands for."""

from functools import cache
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from runs import draw_photos, run_small

from thaw.backbones.backbone import Backbone
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.finetune import rates
from thaw.finetune.rates import unfrozen_lr


@cache
def backbone(name: str) -> Backbone:
    with torch.device("meta"):
        return torchvision_backbone(name, None)


@pytest.mark.parametrize(
    ("photos", "classes", "rate"),
    [
        (40, 2, 1e-4),
        (2500, 2, 2.5e-4),
        (5000, 2, 1e-3),
        (512, 32, 2.621e-4),
        (860, 102, 1.317e-3),
        (1020, 102, 1.5e-3),
    ],
)
def test_labels_that_say_little_have_a_lower_rate(photos: int, classes: int, rate: float) -> None:
    lr, why = unfrozen_lr(backbone("mobilenet_v2"), photos, classes)
    assert lr == pytest.approx(rate, rel=1e-3)
    assert why == f"for {photos:,} photos of {classes} classes"


def test_transformers_have_the_rate_of_their_literature() -> None:
    lr, why = unfrozen_lr(backbone("vit_b_32"), 1_000, 102)
    assert lr == pytest.approx(1e-4)
    assert why == "for linear layers"


def test_a_small_network_has_little_to_lose() -> None:
    small: Backbone = tiny_backbone(weights=None)
    assert unfrozen_lr(small, 160, 16) == (1e-3, "for a small network")


@pytest.mark.parametrize(("photos", "rate"), [(50, 1e-5), (5000, 1e-4)])
def test_a_network_without_normalisation_takes_a_tenth(photos: int, rate: float) -> None:
    lr, why = unfrozen_lr(backbone("squeezenet1_0"), photos, 2)
    assert lr == pytest.approx(rate)
    assert why == f"for {photos:,} photos of 2 classes, no norm"


@pytest.mark.parametrize(("epochs", "times"), [(1, 2), (2, 2), (4, 1.25), (5, 1), (12, 1)])
def test_few_epochs_have_a_higher_rate(epochs: int, times: float) -> None:
    lr, why = unfrozen_lr(backbone("mobilenet_v2"), 40, 2, epochs)
    assert lr == pytest.approx(times * 1e-4)
    assert why.endswith(f", x {times:.3g} for {epochs} epochs") == (times > 1)
    most = unfrozen_lr(backbone("mobilenet_v2"), 1_020, 102, epochs)[0]
    assert most == pytest.approx(min(2e-3, times * 1.5e-3))
    small: Backbone = tiny_backbone(weights=None)
    assert unfrozen_lr(small, 160, 16, epochs)[0] == pytest.approx(times * 1e-3)
    assert unfrozen_lr(backbone("vit_b_32"), 1_000, 102, epochs)[0] == pytest.approx(1e-4)


def test_a_run_has_the_rate_of_its_photos_and_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = Mock(return_value=(2e-4, "for a reason"))
    monkeypatch.setattr(rates, "unfrozen_lr", rule)
    run_small(draw_photos(tmp_path / "photos"), tmp_path / "run", "finetune.unfrozen.lr=auto")
    assert rule.call_args.args[1:] == (24, 3, 2)
    plan = (tmp_path / "run" / "plan.txt").read_text("utf-8")
    assert "finetune.unfrozen.lr=auto is 2.0e-04 for a reason" in plan
