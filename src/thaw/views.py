"""The random view of a photo that training sees, decided by a seed.

A view of 128 pixels is resized in some 60 microseconds, so every call of torch and of Python
counts: torchvision's RandomResizedCrop and RandomHorizontalFlip take 300 more. And theirs draw from
torch's global generator; with a seed for each view, threads can work beside a network that does.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode

TRIES = 10  # draws of a shape that may not fit, as torchvision's
SLIM, WIDE = 3 / 4, 4 / 3  # width by height


class CropAndFlip(nn.Module):
    """A random-resized crop (He et al., arXiv:1512.03385, section 3.4), mirrored by chance.

    Drawn from the distributions of torchvision's RandomResizedCrop and RandomHorizontalFlip, and
    resized as there, to the bit; but mirrored before, so that nearest takes the other of two pixels
    as near.

    Args:
        size: side of the square that comes out, pixels.
        scale: least and greatest share 0-1 of the picture's area.
        flip: probability 0-1 of mirroring left and right.
        interpolation: nearest, bilinear or bicubic; antialiased but for the first.
    """

    def __init__(
        self, size: int, *, scale: tuple[float, float], flip: float,
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size = size
        self.scale = scale
        self.flip = flip
        self.mode = interpolation.value
        self.antialias = not self.mode.startswith("nearest")

    def forward(self, image: Tensor, seed: int | None = None) -> Tensor:
        """uint8 (3, H, W) -> uint8 (3, size, size); None: from torch's global generator."""
        return self.resize(*self.cut(image, seed))

    def cut(self, image: Tensor, seed: int | None = None) -> tuple[Tensor, bool]:
        """uint8 (3, H, W) -> a part of it (3, h, w), and whether that is to be mirrored."""
        _, all_height, all_width = image.shape
        top, left, height, width, flip = self.draw(all_height, all_width, seed)
        plane, row, pixel = image.stride()
        # image[:, top : top + height, left : left + width], in half the time
        start = image.storage_offset() + top * row + left * pixel
        return image.as_strided((3, height, width), (plane, row, pixel), start), flip

    def resize(self, part: Tensor, flip: bool) -> Tensor:
        """What `cut` gave -> uint8 (3, size, size).

        First the part is copied, for torch resizes fastest, by half, where the three bytes of a
        pixel lie together without gaps, and the strides of a batch of one are those of a larger.
        """
        whole = part[None].contiguous(memory_format=torch.channels_last)
        whole = whole.flip(-1) if flip else whole
        size = (self.size, self.size)
        return interpolate(whole, size, mode=self.mode, antialias=self.antialias)[0]

    def draw(
        self, all_height: int, all_width: int, seed: int | None = None
    ) -> tuple[int, int, int, int, bool]:
        """Top, left, height, width: the first draw that fits, else the centre; and the flip."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        flip, down, right, *rest = torch.rand(3 + 2 * TRIES, generator=generator).tolist()
        least, most = self.scale
        shape = iter(rest)
        for share, lean in zip(shape, shape, strict=True):
            area = (least + share * (most - least)) * all_height * all_width
            ratio = SLIM * (WIDE / SLIM) ** lean  # evenly in its logarithm
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= all_height and 0 < width <= all_width:
                top = int(down * (all_height - height + 1))
                left = int(right * (all_width - width + 1))
                return top, left, height, width, flip < self.flip
        height = min(all_height, round(all_width / SLIM))
        width = min(all_width, round(all_height * WIDE))
        top, left = (all_height - height) // 2, (all_width - width) // 2
        return top, left, height, width, flip < self.flip

    def extra_repr(self) -> str:
        return f"{self.size}, scale={self.scale}, flip={self.flip}, {self.mode}"
