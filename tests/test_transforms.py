"""Pipelines: what the weights were evaluated with, and views that depend on the seed alone."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torchvision.models import ResNet18_Weights
from torchvision.transforms import InterpolationMode, v2

from thaw.backbones.backbone import Crop, InputSpec
from thaw.transforms import Shrink, eval_transform, normalise, train_transform

SPEC = InputSpec(32, 40, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(height: int = 60, width: int = 90) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def test_evaluation_is_torchvisions_preset() -> None:
    preset = ResNet18_Weights.DEFAULT.transforms()
    spec = InputSpec(
        preset.crop_size[0], preset.resize_size[0], tuple(preset.mean), tuple(preset.std),
        InterpolationMode.BILINEAR,
    )  # fmt: skip
    image = picture(300, 400)
    ours, theirs = normalise(spec)(eval_transform(spec)(image)[None])[0], preset(image)
    assert ours.shape == (3, 224, 224)
    assert (ours - theirs).abs().max() < 0.02  # rounding of uint8: one of 255 steps is 0.017


def ramp(height: int, width: int) -> torch.Tensor:
    """Red grows from left to right over all of 0-255, green from top to bottom; blue is 200."""
    red = torch.linspace(0, 255, width).expand(height, width)
    green = torch.linspace(0, 255, height)[:, None].expand(height, width)
    return torch.stack([red, green, torch.full_like(red, 200)]).round().byte()


@pytest.mark.parametrize("interpolation", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
@pytest.mark.parametrize(("height", "width"), [(60, 240), (240, 60), (96, 96), (20, 10)])
def test_squash_and_pad_show_the_whole_picture_and_center_does_not(
    height: int, width: int, interpolation: InterpolationMode
) -> None:
    spec, image = replace(SPEC, interpolation=interpolation), ramp(height, width)
    views = {crop: eval_transform(replace(spec, crop=crop))(image) for crop in get_args(Crop)}
    assert {view.shape for view in views.values()} == {(3, 32, 32)}
    assert {view.dtype for view in views.values()} == {torch.uint8}
    edge = 255 / 10 / 2  # half a pixel of the result, of the smallest picture
    for channel in (0, 1):
        squashed = views["squash"][channel]
        assert squashed.min() < edge
        assert squashed.max() > 255 - edge
    long = 0 if width > height else 1
    if max(height, width) >= 4 * min(height, width):  # the centre is at most a quarter of it
        assert views["center"][long].min() > 90
        assert views["center"][long].max() < 165


@pytest.mark.parametrize(("height", "width"), [(60, 240), (240, 60), (31, 96), (98, 96), (1, 90)])
def test_pad_keeps_the_proportions_and_fills_evenly_with_the_mean_colour(
    height: int, width: int
) -> None:
    """Against a resized picture that is pasted into the middle of a grey one."""
    spec = replace(SPEC, crop="pad")
    view, image = eval_transform(spec)(picture(height, width)), picture(height, width)
    tall, wide = (max(1, round(32 * side / max(height, width))) for side in (height, width))
    small = v2.functional.resize(image, [tall, wide], InterpolationMode.BILINEAR, antialias=True)
    grey = torch.tensor([124, 116, 104], dtype=torch.uint8)
    expected = grey[:, None, None].repeat(1, 32, 32)
    top, left = (32 - tall) // 2, (32 - wide) // 2
    expected[:, top : top + tall, left : left + wide] = small
    assert torch.equal(view, expected)
    assert normalise(spec)(grey.view(1, 3, 1, 1)).abs().max() < 0.01


def test_squash_is_one_resize_of_both_sides() -> None:
    image = picture(50, 90)
    view = eval_transform(replace(SPEC, crop="squash"))(image)
    assert torch.equal(view, v2.functional.resize(image, [32, 32], antialias=True))


def test_views_are_random_and_seeded() -> None:
    transform = train_transform(SPEC, color_jitter=0.3, rotation=10, policy="trivial", erasing=0.5)
    views = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        views.append(transform(picture()))
    assert views[0].shape == (3, 32, 32)
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])


@pytest.mark.parametrize("crop", get_args(Crop))
def test_no_augmentation_is_the_evaluation_view(crop: Crop) -> None:
    spec = replace(SPEC, crop=crop)
    plain = train_transform(spec, crop_scale=None, horizontal_flip=0)
    assert torch.equal(plain(picture()), eval_transform(spec)(picture()))


def test_flips_without_a_crop() -> None:
    straight = train_transform(SPEC, crop_scale=None, horizontal_flip=0)(picture())
    mirrored = train_transform(SPEC, crop_scale=None, horizontal_flip=1)(picture())
    assert torch.equal(mirrored, straight.flip(-1))


def test_the_repr_names_every_setting() -> None:
    """Cached features are told apart by it."""
    settings = {
        "crop_scale": (0.2, 1.0), "horizontal_flip": 0.3, "rotation": 10, "shear": 5,
        "color_jitter": 0.3, "policy": "rand", "erasing": 0.5,
    }  # fmt: skip
    shown = {repr(train_transform(SPEC, **{key: value})) for key, value in settings.items()}
    assert len(shown | {repr(train_transform(SPEC))}) == len(settings) + 1
    other = InputSpec(32, 36, SPEC.mean, SPEC.std)
    assert repr(eval_transform(other)) != repr(eval_transform(SPEC))
    assert repr(Shrink(other)) != repr(Shrink(SPEC))
    specs = [replace(SPEC, crop=crop) for crop in get_args(Crop)]
    specs.append(replace(specs[-1], size=36))
    assert len({repr(eval_transform(spec)) for spec in specs}) == 4
    assert len({repr(Shrink(spec)) for spec in specs}) == 4


def test_views_are_bytes_and_normalise_makes_floats_of_a_batch() -> None:
    views = torch.stack([train_transform(SPEC, erasing=1.0)(picture()) for _ in range(2)])
    assert views.dtype == torch.uint8
    batch = views.clone()
    found = normalise(SPEC)(batch)
    assert torch.equal(batch, views)  # the batch is left as it is
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (SPEC.mean, SPEC.std))
    assert torch.allclose(found, (views / 255 - mean) / std, atol=1e-5)


def test_erased_boxes_are_the_mean_colour() -> None:
    view = train_transform(SPEC, crop_scale=None, horizontal_flip=0, erasing=1.0)(picture())
    box = (view == torch.tensor([124, 116, 104], dtype=torch.uint8).view(3, 1, 1)).all(0)
    assert 0.02 <= box.float().mean() <= 0.4  # RandomErasing's own limits are 0.02 and 0.33


def test_shear_leans_what_is_upright_and_nothing_else() -> None:
    spec = InputSpec(65, 65, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    upright = torch.zeros(3, 65, 65, dtype=torch.uint8)
    upright[:, :, 31:34] = 255
    transform = train_transform(spec, crop_scale=None, horizontal_flip=0, shear=20)
    degrees = []
    for seed in range(40):
        torch.manual_seed(seed)
        rows = (transform(upright)[0] > 150).float()  # H W
        place = (rows * torch.arange(65.0)).sum(1) / rows.sum(1)  # H, of the line
        lean = (place[52] - place[12]) / 40
        degrees.append(math.degrees(math.atan(lean)))
        torch.manual_seed(seed)
        level = transform(upright.mT)[0]
        assert (level[31:34] > 150).float().mean() > 0.95
    assert -20.5 < min(degrees) < -15
    assert 15 < max(degrees) < 20.5


@pytest.mark.parametrize("size", [(300, 400), (401, 333), (40, 90), (60, 41), (30, 20)])
@pytest.mark.parametrize("crop", get_args(Crop))
def test_the_evaluation_view_of_a_shrunken_picture_is_that_of_the_picture(
    crop: Crop, size: tuple[int, int]
) -> None:
    image, spec = picture(*size), replace(SPEC, crop=crop)
    small = Shrink(spec)(image)
    assert small.numel() <= image.numel()
    if crop == "center":
        assert min(small.shape[1:]) == min(40, *size)  # never enlarged
    assert small.numel() <= 3 * 40 * 91
    assert torch.equal(eval_transform(spec)(small), eval_transform(spec)(image))
