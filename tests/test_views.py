"""Crops and flips are drawn as torchvision's, resized as torchvision's, and a seed decides them."""

import pytest
import torch
from scipy.stats import ks_2samp
from test_transforms import SPEC, picture
from torchvision.transforms import InterpolationMode, v2

from thaw.transforms import train_transform
from thaw.views import CropAndFlip

SIZES = [(60, 90), (33, 33), (400, 300), (20, 200), (200, 20)]
SCALE = (0.35, 1.0)


@pytest.mark.parametrize(
    "interpolation",
    [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC, InterpolationMode.NEAREST],
)
@pytest.mark.parametrize("size", SIZES)
def test_views_are_torchvisions_to_the_bit(
    interpolation: InterpolationMode, size: tuple[int, int]
) -> None:
    view = CropAndFlip(32, scale=SCALE, flip=0.5, interpolation=interpolation)
    image = picture(*size)
    decoded = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # so its bytes lie in memory
    flips = 0
    for seed in range(60):
        top, left, height, width, flip = view.draw(*size, seed)
        cut = image[:, top : top + height, left : left + width]
        expected = v2.functional.resize(
            cut.flip(-1) if flip else cut, [32, 32], interpolation, antialias=True
        )
        assert torch.equal(view(decoded, seed), expected), seed
        flips += flip
    assert 15 < flips < 45  # four standard deviations are 15


@pytest.mark.parametrize("size", SIZES)
def test_places_are_drawn_as_torchvision_draws_them(size: tuple[int, int]) -> None:
    """Also where few draws fit, or none: a share of 0.35 of 20 x 200 pixels is wider than 4 : 3."""
    view, theirs = CropAndFlip(32, scale=SCALE, flip=0.5), v2.RandomResizedCrop(32, scale=SCALE)
    found = [view.draw(*size, seed)[:4] for seed in range(4000)]
    torch.manual_seed(0)
    drawn = [theirs.make_params([picture(*size)]) for _ in found]
    for name, values in zip(
        ("top", "left", "height", "width"), zip(*found, strict=True), strict=True
    ):
        expected = [each[name] for each in drawn]
        assert ks_2samp(values, expected).pvalue > 0.001, name


def test_a_seed_decides_and_leaves_the_global_generator_alone() -> None:
    view = CropAndFlip(32, scale=SCALE, flip=0.5)
    torch.manual_seed(5)
    expected, state = view(picture()), torch.get_rng_state()
    assert torch.equal(view(picture(), 5), expected)
    assert not torch.equal(view(picture(), 6), expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_training_draws_by_default_is_a_crop_and_a_flip_alone() -> None:
    assert isinstance(train_transform(SPEC), CropAndFlip)
    assert isinstance(train_transform(SPEC, horizontal_flip=0), CropAndFlip)
    for setting in ("rotation", "shear", "color_jitter", "erasing"):
        assert not isinstance(train_transform(SPEC, **{setting: 0.5}), CropAndFlip)
    assert not isinstance(train_transform(SPEC, crop_scale=None), CropAndFlip)


def test_flips_without_a_crop() -> None:
    straight = train_transform(SPEC, crop_scale=None, horizontal_flip=0)(picture())
    mirrored = train_transform(SPEC, crop_scale=None, horizontal_flip=1)(picture())
    assert torch.equal(mirrored, straight.flip(-1))
