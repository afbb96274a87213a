"""Crops of a whole batch resized at once, where the network computes.

Their bytes go to the device as they were cut; there each is resized, and mirrored, by two products
with matrices that hold the weights of torch's antialiased resize. So the host only copies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thaw.errors import ConfigError
from thaw.views import CropAndFlip

MODES = ("bilinear", "bicubic")


class Crops(NamedTuple):
    """Crops of N pictures, each in the upper left corner of a box of H x W pixels.

    pixels: uint8 (N, H, W, 3)
    sizes:  int64 (N, 2), height and width of each crop
    flips:  bool (N,), whether it is to be mirrored
    """

    pixels: Tensor
    sizes: Tensor
    flips: Tensor


def finished_on_device(transform: object) -> CropAndFlip:
    """The training view that `resize` can finish.

    Raises:
        ConfigError: the transform does more, or resizes otherwise.
    """
    if not isinstance(transform, CropAndFlip):
        raise ConfigError(
            "data.augment_on=device: allowed with an augment of a random crop and perhaps a "
            "flip alone; set data.augment_on=cpu, or augment=default"
        )
    if transform.mode not in MODES:
        raise ConfigError(
            f"data.augment_on=device: allowed with {' or '.join(MODES)} interpolation, and "
            f"this backbone's is {transform.mode}; set data.augment_on=cpu"
        )
    return transform


def gather(crops: Sequence[tuple[Tensor, bool]]) -> Crops:
    """Pairs of a crop, uint8 (3, h, w), and whether it is mirrored -> all of them, in one tensor.

    Its memory is pinned where there is a GPU: so copying to it waits for nothing.
    """
    sizes = torch.tensor([crop.shape[1:] for crop, _ in crops])
    height, width = sizes.amax(0).tolist()
    pin = torch.cuda.is_available()
    pixels = torch.empty(len(crops), height, width, 3, dtype=torch.uint8, pin_memory=pin)
    for box, (crop, _) in zip(pixels, crops, strict=True):
        _, h, w = crop.shape
        box[:h, :w] = crop.permute(1, 2, 0)
    return Crops(pixels, sizes, torch.tensor([flip for _, flip in crops]))


def resize(crops: Crops, size: int, mode: str, dtype: torch.dtype | None = None) -> Tensor:
    """Each crop at size x size pixels: uint8 (N, 3, size, size), where the crops are.

    As torch's `interpolate(antialias=True)` on uint8, to one step of brightness: that one rounds
    its weights, and once more between the two directions. The box, and with it the order of the
    sums, is the batch's: in another batch a crop may come out a step brighter or darker.

    Args:
        crops: N of them.
        size: pixels.
        mode: "bilinear" or "bicubic".
        dtype: of the products; None: float16 on a GPU, whose 11 bits hold bytes, else float32.
    """
    dtype = dtype or (torch.float16 if crops.pixels.is_cuda else torch.float32)
    height, width = crops.pixels.shape[1:3]
    rows = _weights(crops.sizes[:, 0], height, size, mode)  # N S H
    columns = _weights(crops.sizes[:, 1], width, size, mode)  # N S W
    columns = torch.where(crops.flips[:, None, None], columns.flip(1), columns)
    planes = crops.pixels.permute(0, 3, 1, 2)  # N 3 H W; what no weight touches is junk
    planes = planes.to(dtype, memory_format=torch.contiguous_format)  # as products want them
    tall = (planes @ columns.to(dtype)[:, None].mT).clamp_(0, 255)  # N 3 H S; it clips here too
    found = (rows.to(dtype)[:, None] @ tall).clamp_(0, 255)  # N 3 S S
    return found.round_().to(torch.uint8)


def _weights(lengths: Tensor, longest: int, size: int, mode: str) -> Tensor:
    """Share of each of `longest` old pixels in each of `size` new ones: (N, size, longest).

    Source: ATen/native/UpSample.h, `HelperInterpBase::_compute_indices_min_size_weights_aa`.
    """
    scale = lengths[:, None, None] / size
    stretch = scale.clamp(min=1)  # shrinking widens the filter, enlarging does not narrow it
    new = torch.arange(size, device=lengths.device)[:, None] + 0.5
    old = torch.arange(longest, device=lengths.device) + 0.5
    distance = (old - scale * new).abs() / stretch  # N size longest
    weights = _cubic(distance) if mode == "bicubic" else (1 - distance).clamp(min=0)
    weights = weights * (old < lengths[:, None, None])
    return weights / weights.sum(-1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, of distances x >= 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
