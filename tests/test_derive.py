"""What `auto` stands for in the settings of finetune."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from thaw.backbones.backbone import Backbone
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.finetune.rates import derive


@cache
def backbone(name: str) -> Backbone:
    with torch.device("meta"):
        return torchvision_backbone(name, None)


@pytest.mark.parametrize(
    ("photos", "rate"), [(40, 1e-4), (100, 1e-4), (500, 2.5e-4), (1000, 1e-3), (50_000, 1e-3)]
)
def test_few_photos_have_a_lower_rate(photos: int, rate: float) -> None:
    lr, _, why = derive(backbone("mobilenet_v2"), photos)
    assert lr == pytest.approx(rate)
    assert why == f"for {photos:,} photos"


def test_transformers_have_the_rate_of_their_literature() -> None:
    lr, _, why = derive(backbone("vit_b_32"), 1_000)
    assert lr == pytest.approx(1e-4)
    assert why == "for linear layers"


def test_a_small_network_has_little_to_lose() -> None:
    small: Backbone = tiny_backbone(weights=None)
    assert derive(small, 160) == (1e-3, None, "for a small network")


@pytest.mark.parametrize(("photos", "rate"), [(50, 1e-5), (1000, 1e-4)])
def test_a_network_without_normalisation_takes_a_tenth(photos: int, rate: float) -> None:
    lr, _, why = derive(backbone("squeezenet1_0"), photos)
    assert lr == pytest.approx(rate)
    assert why == f"for {photos:,} photos, no norm"


@pytest.mark.parametrize(
    ("name", "photos", "weights", "top"),
    [
        ("mobilenet_v2", 40, "DEFAULT", 0.5),
        ("mobilenet_v2", 4_999, "DEFAULT", 0.5),
        ("mobilenet_v2", 5_000, "DEFAULT", None),
        ("mobilenet_v2", 40, "random", None),  # there is nothing in it to keep
        ("squeezenet1_0", 40, "DEFAULT", 0.5),
        ("vit_b_32", 40, "DEFAULT", None),
    ],
)
def test_half_the_body_is_enough_for_few_photos(
    name: str, photos: int, weights: str, top: float | None
) -> None:
    assert derive(replace(backbone(name), weights=weights), photos).top == top
