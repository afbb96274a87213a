"""Pipelines: what the weights were evaluated with, and views that depend on the seed alone."""

import pytest
import torch
from torchvision.models import ResNet18_Weights
from torchvision.transforms import InterpolationMode

from thaw.backbone import InputSpec
from thaw.errors import ConfigError
from thaw.transforms import denormalise, eval_transform, train_transform

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
    ours, theirs = eval_transform(spec)(image), preset(image)
    assert ours.shape == (3, 224, 224)
    assert (ours - theirs).abs().max() < 0.02  # rounding of uint8: one of 255 steps is 0.017


def test_views_are_random_and_seeded() -> None:
    transform = train_transform(SPEC, color_jitter=0.3, rotation=10, policy="trivial", erasing=0.5)
    views = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        views.append(transform(picture()))
    assert views[0].shape == (3, 32, 32)
    assert torch.equal(views[0], views[2])
    assert not torch.equal(views[0], views[1])


def test_no_augmentation_is_the_evaluation_view() -> None:
    plain = train_transform(SPEC, crop_scale=None, horizontal_flip=0)
    assert torch.equal(plain(picture()), eval_transform(SPEC)(picture()))


def test_denormalise_inverts() -> None:
    image = torch.full((3, 40, 40), 51, dtype=torch.uint8)  # 51 / 255 = 0.2
    back = denormalise(eval_transform(SPEC)(image)[None], SPEC)
    assert torch.allclose(back, torch.full_like(back, 0.2), atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.9, 0.5)),
        ("horizontal_flip", 1.5),
        ("rotation", -1),
        ("policy", "auto"),
        ("erasing", 2),
    ],
)
def test_values_out_of_range(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"augment\.{setting}=.*allowed"):
        train_transform(SPEC, **{setting: value})
