"""Training and evaluation pipelines, made from the backbone's input spec.

Both take a decoded picture, uint8 (3, H, W) of any size, and give uint8 (3, size, size): there
torch's antialiased resize is several times faster than on float, and a quarter of the bytes goes to
the device. `normalise` makes float32 of a whole batch there.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode, v2

from thaw.backbones.backbone import InputSpec
from thaw.errors import ConfigError

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Policy = Literal["none", "trivial", "rand"]


def normalise(spec: InputSpec) -> v2.Compose:
    """A batch, uint8 (N, 3, H, W) -> float32, as the weights want it."""
    return v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=list(spec.mean), std=list(spec.std), inplace=True),
        ]
    )


class Shrink(v2.Resize):
    """Makes a picture's short side as small as evaluation needs it; smaller ones stay as they are.

    The evaluation view of the result is that of the picture, to the bit.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__(spec.resize, interpolation=spec.interpolation, antialias=True)
        self.short_side = spec.resize

    def forward(self, image: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """uint8 (3, H, W) -> uint8 (3, H', W')."""
        return image if min(image.shape[-2:]) <= self.short_side else super().forward(image)


class RandomResizedCrop(v2.RandomResizedCrop):
    """torchvision's: the same crop from the same random numbers, in half to two thirds of the time.

    torch resizes fastest where the three bytes of a pixel lie together without gaps, and a crop has
    gaps; and a call of torchvision's is made for boxes and videos too. Places are computed in
    double precision, torchvision's in single: one in some 100,000 is a pixel off.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size)."""
        crop = self.cut(image, generator)[None].contiguous(memory_format=torch.channels_last)
        antialias = bool(self.antialias) and not self.mode.startswith("nearest")
        return interpolate(crop, self.size, mode=self.mode, antialias=antialias)[0]

    @property
    def mode(self) -> str:
        """Interpolation, as torch names it."""
        return InterpolationMode(self.interpolation).value

    @property
    def side(self) -> int:
        """Of the square that comes out, pixels."""
        return self.size[0]  # pyright: ignore[reportIndexIssue]  a list, its declaration is wrong

    def cut(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 (3, H, W) -> a part of it (3, h, w), not resized yet."""
        top, left, height, width = self._place(*image.shape[-2:], generator=generator)
        return image[:, top : top + height, left : left + width]

    def _place(
        self, all_height: int, all_width: int, *, generator: torch.Generator | None
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width: the first of ten draws that fits, else the centre."""
        (least, most), (slim, wide) = self.scale, self.ratio
        for _ in range(10):
            share, lean = torch.rand(2, generator=generator).tolist()
            area = (least + share * (most - least)) * all_height * all_width
            ratio = slim * (wide / slim) ** lean  # evenly in its logarithm
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= all_height and 0 < width <= all_width:
                top = int(torch.randint(all_height - height + 1, (1,), generator=generator))
                left = int(torch.randint(all_width - width + 1, (1,), generator=generator))
                return top, left, height, width
        height, width = (
            min(all_height, round(all_width / slim)),
            min(all_width, round(all_height * wide)),
        )
        return (all_height - height) // 2, (all_width - width) // 2, height, width


class RandomHorizontalFlip(v2.RandomHorizontalFlip):
    """torchvision's, for one picture."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, H, W)."""
        return image.flip(-1) if self.draw(generator) else image

    def draw(self, generator: torch.Generator | None = None) -> bool:
        """Whether to."""
        return float(torch.rand(1, generator=generator)) < self.p


SEEDABLE = (RandomResizedCrop, RandomHorizontalFlip)  # take a generator
CONSTANT = (v2.Resize, v2.CenterCrop)  # draw nothing


class View(v2.Compose):
    """Steps one after the other, from a decoded picture to what the network sees.

    Attributes:
        seedable: whether a generator that is given decides everything: no step is one of
            torchvision's that draw, for those know torch's global generator only.
    """

    def __init__(self, steps: Sequence[torch.nn.Module]) -> None:
        super().__init__(steps)
        self.seedable = all(isinstance(step, (*SEEDABLE, *CONSTANT)) for step in steps)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); without a generator, from the global one."""
        for step in self.transforms:
            image = step(image, generator) if isinstance(step, SEEDABLE) else step(image)
        return image

    @property
    def crop(self) -> RandomResizedCrop | None:
        """The first step, where nothing but a flip may follow: then `cut` is all there is."""
        first, *rest = self.transforms
        simple = not rest or (len(rest) == 1 and self.flip is not None)
        return first if isinstance(first, RandomResizedCrop) and simple else None

    @property
    def flip(self) -> RandomHorizontalFlip | None:
        """The last step, if it is one."""
        last = self.transforms[-1]
        return last if isinstance(last, RandomHorizontalFlip) else None

    def cut(self, image: Tensor, generator: torch.Generator) -> tuple[Tensor, bool]:
        """uint8 (3, H, W) -> the part (3, h, w) that `crop` resizes, and whether it is mirrored."""
        crop, flip = self.crop, self.flip
        assert crop is not None
        return crop.cut(image, generator), flip is not None and flip.draw(generator)


def eval_transform(spec: InputSpec) -> View:
    """Resize the short side, crop the centre: what the weights were evaluated with."""
    return View(
        [
            v2.Resize(spec.resize, interpolation=spec.interpolation, antialias=True),
            v2.CenterCrop(spec.size),
        ]
    )


def train_transform(
    spec: InputSpec,
    *,
    crop_scale: tuple[float, float] | None = (0.35, 1.0),
    horizontal_flip: float = 0.5,
    rotation: float = 0.0,
    shear: float = 0.0,
    color_jitter: float = 0.0,
    policy: Policy = "none",
    erasing: float = 0.0,
) -> View:
    """Random views for training.

    Args:
        spec: of the backbone.
        crop_scale: share of the picture's area that the random-resized crop covers, from-to, each
            0-1 (He et al., arXiv:1512.03385, use 0.08-1 on 1.28 million pictures; small sets want
            more of the object); None takes the evaluation crop.
        horizontal_flip: probability 0-1.
        rotation: degrees, drawn from -rotation to +rotation.
        shear: degrees that upright lines lean, drawn from -shear to +shear.
        color_jitter: strength 0-1 of brightness, contrast and saturation jitter.
        policy: "none", "trivial" (TrivialAugmentWide, arXiv:2103.10158) or "rand" (RandAugment,
            arXiv:1909.13719).
        erasing: probability 0-1 of erasing a random box (arXiv:1708.04896).

    Raises:
        ConfigError: a value out of its range.
    """
    for key, value in (
        ("horizontal_flip", horizontal_flip),
        ("color_jitter", color_jitter),
        ("erasing", erasing),
    ):
        if not 0 <= value <= 1:
            raise ConfigError(f"augment.{key}={value}: allowed is 0 to 1")
    if not 0 <= rotation <= 180:
        raise ConfigError(f"augment.rotation={rotation}: allowed is 0 to 180 degrees")
    if not 0 <= shear <= 60:
        raise ConfigError(f"augment.shear={shear}: allowed is 0 to 60 degrees")
    if policy not in ("none", "trivial", "rand"):
        raise ConfigError(f"augment.policy={policy}: allowed are none, trivial, rand")
    steps: list[torch.nn.Module] = []
    if crop_scale is None:
        steps += [
            v2.Resize(spec.resize, interpolation=spec.interpolation, antialias=True),
            v2.CenterCrop(spec.size),
        ]
    else:
        low, high = crop_scale
        if not 0 < low <= high <= 1:
            raise ConfigError(
                f"augment.crop_scale={list(crop_scale)}: allowed is [low, high] with "
                "0 < low <= high <= 1, or null for no random crop"
            )
        steps.append(
            RandomResizedCrop(
                spec.size, scale=(low, high), interpolation=spec.interpolation, antialias=True
            )
        )
    if horizontal_flip:
        steps.append(RandomHorizontalFlip(horizontal_flip))
    grey = [round(255 * channel) for channel in spec.mean]  # zero after normalising
    degrees = [-rotation, rotation]
    if shear:  # with the rotation in it: the picture is resampled once
        affine = {"shear": shear, "interpolation": InterpolationMode.BILINEAR, "fill": grey}
        steps.append(v2.RandomAffine(degrees, **affine))
    elif rotation:
        steps.append(v2.RandomRotation(degrees, InterpolationMode.BILINEAR, fill=grey))
    if color_jitter:
        steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter))
    if policy == "trivial":
        steps.append(v2.TrivialAugmentWide())
    elif policy == "rand":
        steps.append(v2.RandAugment())
    if erasing:
        steps.append(v2.RandomErasing(erasing, value=grey))  # pyright: ignore[reportArgumentType]
    return View(steps)


def mixing(
    num_classes: int, *, mixup_alpha: float | None = None, cutmix_alpha: float | None = None
) -> Mix:
    """(images (N, 3, H, W), labels (N,)) -> mixed images and their soft labels (N, K).

    Args:
        num_classes: K.
        mixup_alpha: of the Beta distribution that a weighted mean of two pictures is drawn from
            (mixup, arXiv:1710.09412, uses 0.1-0.4 on ImageNet); None: no mixup.
        cutmix_alpha: of the one that the area of a pasted box is drawn from (CutMix,
            arXiv:1905.04899, uses 1); None: no CutMix. With both, each batch gets one of them.

    Raises:
        ConfigError: neither, or an alpha that is not positive.
    """
    for key, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if alpha is not None and not alpha > 0:
            raise ConfigError(f"mix.{key}={alpha}: allowed is above 0, like 0.2, or null")
    chosen: list[v2.Transform] = []
    if mixup_alpha is not None:
        chosen.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_classes))
    if cutmix_alpha is not None:
        chosen.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes))
    if not chosen:
        raise ConfigError("mix.mixup_alpha=null and mix.cutmix_alpha=null: give one, or mix=none")
    return chosen[0] if len(chosen) == 1 else v2.RandomChoice(chosen)
