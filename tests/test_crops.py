"""Crops resized in one go are those that torch resizes one by one."""

from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode

from thaw.data.crops import finished_on_device, gather, resize
from thaw.errors import ConfigError
from thaw.views import CropAndFlip


def crops(number: int) -> list[tuple[Tensor, bool]]:
    """Noise, where each pixel matters, of all shapes; and one of as many pixels as come out."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 150, (number, 2), generator=generator).tolist()
    sizes[0] = [40, 40]
    noise = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes
    ]
    return [(crop, index % 3 == 1) for index, crop in enumerate(noise)]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_they_are_torchs_to_one_step_of_brightness(
    mode: Literal["bilinear", "bicubic"], dtype: torch.dtype
) -> None:
    """float16 is what a GPU takes."""
    each = crops(40)
    found = resize(gather(each), 40, mode, dtype)
    assert found.shape == (40, 3, 40, 40)
    assert found.dtype == torch.uint8
    assert torch.equal(found[0], each[0][0])  # nothing to do
    for view, (crop, flip) in zip(found, each, strict=True):
        expected = interpolate(crop[None], (40, 40), mode=mode, antialias=True)[0]
        expected = expected.flip(-1) if flip else expected
        assert (view.int() - expected.int()).abs().max() <= 1


def test_a_view_that_torch_resizes_without_weights_is_refused() -> None:
    view = CropAndFlip(32, scale=(0.35, 1), flip=0.5, interpolation=InterpolationMode.NEAREST)
    with pytest.raises(ConfigError, match=r"data\.augment_on=device: .*bicubic.* is nearest"):
        finished_on_device(view)


def test_sums_are_exact_on_a_cpu() -> None:
    """float16 is for GPUs, and a CPU takes eight times as long over it."""
    each = gather(crops(40))
    found = resize(each, 40, "bilinear")
    assert torch.equal(found, resize(each, 40, "bilinear", torch.float32))
    assert not torch.equal(found, resize(each, 40, "bilinear", torch.float16))


def test_a_crop_does_not_depend_on_the_others_of_its_batch() -> None:
    each = crops(6)
    together = resize(gather(each), 32, "bilinear")
    alone = torch.cat([resize(gather([crop]), 32, "bilinear") for crop in each])
    assert (together.int() - alone.int()).abs().max() <= 1  # sums in another order
    assert (together == alone).float().mean() > 0.999
