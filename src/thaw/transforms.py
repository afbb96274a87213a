"""Training and evaluation transforms, built from the backbone's input spec.

Both take a decoded picture, uint8 (3, H, W) of any size, and give uint8 (3, size, size), which is
faster to resize and to copy than float. `normalise` makes float32 of a whole batch on the device.
"""

from collections.abc import Callable
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from thaw.backbones.backbone import Crop, InputSpec
from thaw.errors import check


def eval_transform(spec: InputSpec) -> v2.Compose:
    """The view for validation, test and use, in one of three ways to make a picture square.

    "center" resizes the short side and crops the centre, as the weights were evaluated. The others
    show the whole picture: "squash" resizes both sides to `size`, and "pad" resizes the long side
    and puts the mean colour, which is zero after normalising, evenly beside the short one. timm's
    crop_mode=squash|border means these too, but then crops the share that the weights crop.
    """
    check(spec.crop in get_args(Crop), "data.crop", spec.crop, ", ".join(get_args(Crop)))
    if spec.crop == "pad":
        grey = [round(255 * channel) for channel in spec.mean]
        return v2.Compose([LongSide(spec.size, spec.interpolation, grey)])
    sides = [spec.size, spec.size] if spec.crop == "squash" else spec.resize
    resize = v2.Resize(sides, interpolation=spec.interpolation, antialias=True)
    return v2.Compose([resize, v2.CenterCrop(spec.size)])


def normalise(spec: InputSpec) -> v2.Compose:
    """uint8 (N, 3, H, W) -> float32, normalised with mean and standard deviation of the weights."""
    scale = v2.Normalize(mean=list(spec.mean), std=list(spec.std), inplace=True)
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), scale])


class LongSide(v2.Transform):
    """Resizes the long side to S pixels, the short one in proportion, and fills up to a square.

    The colour lies on both sides of the picture; of an odd number of lines, one more behind it.
    None fills nothing.
    """

    def __init__(self, size: int, mode: InterpolationMode, colour: list[int] | None = None) -> None:
        super().__init__()
        self.size, self.interpolation, self.colour = size, mode, colour

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, S, S), or (3, H', W') without a colour."""
        height, width = inpt.shape[-2:]
        fitting = [max(1, round(self.size * n / max(height, width))) for n in (height, width)]
        resized = v2.functional.resize(inpt, fitting, self.interpolation, antialias=True)
        spare = [self.size - n for n in fitting[::-1]]  # of the width and of the height
        padding = [n // 2 for n in spare] + [n - n // 2 for n in spare]
        return v2.functional.pad(resized, padding, fill=self.colour) if self.colour else resized  # pyright: ignore[reportArgumentType]


class Shrink(nn.Module):
    """Makes a picture as small as evaluation needs it; its evaluation view stays the same bits."""

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        pads, steps = spec.crop == "pad", eval_transform(spec).transforms
        self.resize = LongSide(spec.size, spec.interpolation) if pads else cast(nn.Module, steps[0])

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, H', W')."""
        resized = self.resize(image)
        return resized if resized.numel() < image.numel() else image


def train_transform(
    spec: InputSpec, *, crop_scale: tuple[float, float] | None = (0.35, 1.0),
    horizontal_flip: float = 0.5, rotation: float = 0.0, shear: float = 0.0,
    color_jitter: float = 0.0, policy: Literal["none", "trivial", "rand"] = "none",
    erasing: float = 0.0,
) -> v2.Compose:  # fmt: skip
    """Random views for training; conf/augment/default.yaml explains the settings.

    `crop_scale` is 0.08-1 in arXiv:1512.03385; small data sets want more of the picture. Sources of
    the others: arXiv:2103.10158 (trivial), arXiv:1909.13719 (rand), arXiv:1708.04896 (erasing).
    """
    grey = [round(255 * channel) for channel in spec.mean]
    steps: list[Callable] = [*eval_transform(spec).transforms]
    if crop_scale:
        low, high = crop_scale
        rule = "[low, high] within 0-1, or null"
        check(0 < low <= high <= 1, "augment.crop_scale", [low, high], rule)
        steps = [v2.RandomResizedCrop(spec.size, (low, high), interpolation=spec.interpolation)]
    if horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(horizontal_flip))
    if rotation or shear:  # in one step, so that the picture is resampled once
        how: Any = {"interpolation": InterpolationMode.BILINEAR, "fill": grey}
        steps.append(v2.RandomAffine([-rotation, rotation], shear=shear or None, **how))
    if color_jitter:
        steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter))
    if policy != "none":
        steps.append(v2.TrivialAugmentWide() if policy == "trivial" else v2.RandAugment())
    if erasing:
        steps.append(v2.RandomErasing(erasing, value=grey))  # pyright: ignore[reportArgumentType]
    return v2.Compose(steps)
