"""Decoded pictures in memory, so that each photo is decoded once (data.cache=ram).

They are kept at the size that the evaluation view needs, a fraction of the photo's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from thaw.data.decode import decode
from thaw.data.photos import Photos

BLOCK_BYTES = 1 << 26  # pictures lie in blocks of about this size
READ_AT_ONCE = 16  # photos that a worker decodes before it hands them over
SAMPLE_SIZE = 32  # photos that the size of all is estimated from
FREE_SHARE = 0.8  # of the free memory: the most that pictures may take


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures of different sizes, uint8 (3, H, W) each; in memory as H, W, C.

    Worker processes read them without copying: a forked one sees its parent's memory, and for a
    spawned one torch moves the blocks into shared memory, once.

    Attributes:
        blocks: the bytes of many pictures one after the other, uint8 (bytes,) each.
        places: block, first byte, H and W of each of P pictures, int64 (P, 4).
        shrunk: how the pictures were made smaller, for fingerprints.
    """

    blocks: Sequence[Tensor]
    places: Tensor
    shrunk: str

    def __getitem__(self, index: int) -> Tensor:
        block, start, height, width = self.places[index].tolist()
        return self.blocks[block].as_strided((3, height, width), (1, 3 * width, 3), start)


class ShrunkPhotos(Dataset[Tensor]):
    """Photos (H, W, 3), decoded and made smaller."""

    def __init__(self, photos: Photos, shrink: Callable[[Tensor], Tensor]) -> None:
        self.photos = photos
        self.shrink = shrink

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        return self.shrink(decode(self.photos.paths[index])).permute(1, 2, 0).contiguous()


def read_pictures(
    photos: Photos, shrink: Callable[[Tensor], Tensor], *, num_workers: int, label: str,
    processes: int = 1, verbose: bool = True,
) -> Pictures | None:  # fmt: skip
    """Decode all photos into memory.

    Args:
        photos: P of them.
        shrink: uint8 (3, H, W) -> uint8 (3, H', W').
        num_workers: processes that decode.
        label: name of the photos, for the printed lines and the progress bar.
        processes: number of training processes on this machine; each has pictures of its own.
        verbose: whether to print.

    Returns:
        The pictures; None, after a printed line, if they would not fit into the free memory.
    """
    dataset = ShrunkPhotos(photos, shrink)
    sample = range(0, len(dataset), max(1, len(dataset) // SAMPLE_SIZE))
    size = sum(dataset[index].numel() for index in sample) / len(sample) * len(dataset)
    free = free_memory() // processes
    fits = size <= FREE_SHARE * free
    if verbose:
        end = "" if fits else f" do not fit, {free / 1e6:,.0f} MB are free: decoding in every epoch"
        print(f"pictures  {label}, {size / 1e6:,.0f} MB in memory{end}", flush=True)
    if not fits:
        return None
    blocks: list[Tensor] = []
    waiting: list[Tensor] = []
    places: list[tuple[int, int, int, int]] = []
    start = 0
    loader = DataLoader(dataset, READ_AT_ONCE, num_workers=num_workers, collate_fn=list)
    for batch in tqdm(loader, label, leave=False, disable=None if verbose else True):
        for picture in batch:
            places.append((len(blocks), start, *picture.shape[:2]))
            waiting.append(picture.flatten().clone())  # else the worker's file stays open
            start += picture.numel()
        if start >= BLOCK_BYTES or len(places) == len(dataset):
            blocks.append(torch.cat(waiting))
            waiting, start = [], 0
    return Pictures(blocks, torch.tensor(places), repr(shrink))


def free_memory() -> int:
    """Free bytes of the machine, or of the container if that has a limit (Linux, cgroups v2)."""
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free
