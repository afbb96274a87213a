"""Decoded pictures at the size they are needed in, kept in memory or on disk.

Decoding a photo of 500 x 375 takes some 1.3 ms, cutting a view of 224 pixels from a small picture
0.2 to 0.3; from the second epoch on nothing is decoded.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL
import psutil
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from thaw.data.decode import decode
from thaw.data.photos import Photos
from thaw.store import Store

Shrink = Callable[[Tensor], Tensor]
Where = Literal["none", "ram", "disk"]

CHUNK = 1 << 26  # bytes of one block of memory
SAMPLE = 32  # photos that the size of all is estimated from
SHARE = 0.8  # of what is free, the most that is taken


@dataclass(frozen=True)
class Pictures:
    """uint8 (3, H, W) of each photo, sizes of their own; memory lies as H, W, C.

    Attributes:
        blocks: the pixels of many pictures one after the other, uint8 (bytes,) each.
        places: (P, 4) int64: block, first byte, H and W of each picture.
        shrunk: what was done to them, for fingerprints.
        path: of the file that the only block is; None: they are in memory.
    """

    blocks: list[Tensor]
    places: Tensor
    shrunk: str
    path: Path | None = None

    def __reduce__(self) -> Any:
        """A file is opened again in a worker that is spawned; else all of it would be copied."""
        if self.path is None:
            return Pictures, (self.blocks, self.places, self.shrunk)
        return open_pictures, (self.path, len(self.places), self.shrunk)

    def __getitem__(self, index: int) -> Tensor:
        block, start, height, width = self.places[index].tolist()
        return self.blocks[block].as_strided((3, height, width), (1, 3 * width, 3), start)


class _Shrunken(Dataset[Tensor]):
    """Pictures (H, W, 3), decoded and made small."""

    def __init__(self, photos: Photos, shrink: Shrink) -> None:
        self.photos = photos
        self.shrink = shrink

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        return self.shrink(decode(self.photos.paths[index])).permute(1, 2, 0).contiguous()


def keep(
    photos: Photos, shrink: Shrink, where: Where, *, folder: Path, workers: int, label: str,
    sharers: int = 1, loud: bool = True, bar: bool = False,
) -> Pictures | None:  # fmt: skip
    """Decodes all photos once; None where there is no room, which is said.

    Args:
        photos: P of them.
        shrink: uint8 (3, H, W) -> uint8 (3, H', W'); its repr is part of the key on disk.
        where: "ram", in this process, or "disk", where later runs and other ranks find it again.
        folder: for the files of "disk".
        workers: processes that decode.
        label: of the photos, for the lines and the bar.
        sharers: processes on this machine that keep their own in "ram".
        loud: whether to print lines.
        bar: whether to show one, with images a second.
    """
    dataset = _Shrunken(photos, shrink)
    say = print if loud else lambda text: None
    if where == "ram":
        if not _fits(dataset, free_memory() // sharers, "memory", label, say):
            return None
        return _in_memory(dataset, _reader(dataset, workers, bar and loud, label))
    what = {
        "photos": photos.fingerprint(),
        "shrink": repr(shrink),
        "versions": [torchvision.__version__, torch.__version__, PIL.__version__],
    }
    try:
        store = Store(folder, what)
        with store.locked():
            if store.is_whole():
                say(f"pictures from cache: {label}")
            elif not _fits(dataset, shutil.disk_usage(folder).free, str(folder), label, say):
                return None
            else:
                _write(store, len(dataset), _reader(dataset, workers, bar and loud, label))
    except OSError as error:  # a full disk, a folder that cannot be written
        say(f"pictures: {label}, {error}: decoding them in every epoch")
        return None
    return open_pictures(store.path, len(dataset), repr(shrink))


def _fits(
    dataset: _Shrunken, free: int, place: str, label: str, say: Callable[[str], None]
) -> bool:
    """Whether the estimated bytes of all pictures are there to be taken."""
    some = range(0, len(dataset), max(1, len(dataset) // SAMPLE))
    size = sum(dataset[index].numel() for index in some) / len(some) * len(dataset)
    height, width, _ = dataset[0].shape
    facts = f"{label}, short side {min(height, width)}, {size / 1e6:,.0f} MB"
    if size > SHARE * free:
        say(f"pictures: {facts} would not fit, {place} has {free / 1e6:,.0f} MB free: decoding "
            "them in every epoch")  # fmt: skip
        return False
    say(f"pictures: {facts} in {place}")
    return True


def _reader(dataset: _Shrunken, workers: int, bar: bool, label: str) -> Iterator[Tensor]:
    """Every picture (H, W, 3), in order, with a bar."""
    loader = DataLoader(dataset, 16, num_workers=workers, collate_fn=list)
    shown = tqdm(total=len(dataset), desc=label, unit="images", disable=not bar, leave=False)
    with shown:
        for batch in loader:
            yield from batch
            shown.update(len(batch))


def _in_memory(dataset: _Shrunken, pictures: Iterator[Tensor]) -> Pictures:
    blocks: list[Tensor] = []
    waiting: list[Tensor] = []
    places: list[tuple[int, int, int, int]] = []
    size = 0
    for picture in pictures:
        height, width, _ = picture.shape
        places.append((len(blocks), size, height, width))
        waiting.append(picture.reshape(-1).clone())  # else a file of the worker stays open
        size += picture.numel()
        if size >= CHUNK:
            blocks.append(torch.cat(waiting))
            waiting, size = [], 0
    if waiting:
        blocks.append(torch.cat(waiting))
    return Pictures(blocks, torch.tensor(places), repr(dataset.shrink))


def _write(store: Store, number: int, pictures: Iterator[Tensor]) -> None:
    """Pixels of all pictures, then (P, 2) int32: their heights and widths."""
    sizes = np.zeros((number, 2), dtype="<i4")
    try:
        with store.part().open("wb") as file:
            for index, picture in enumerate(pictures):
                sizes[index] = picture.shape[:2]
                file.write(picture.numpy().data)
            file.write(sizes.data)
        store.finish(store.part(), number=number)
    finally:
        store.part().unlink(missing_ok=True)  # there only where it was not finished


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of its container (Linux, v2)."""
    free = psutil.virtual_memory().available
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        free = min(free, int(most) - int(used.read_text()))
    return free


def open_pictures(path: Path, number: int, shrunk: str) -> Pictures:
    """A whole file of `number` pictures, in memory only as far as it is read.

    Shared also where it is only read: Linux refuses a private mapping larger than its memory.
    """
    size = path.stat().st_size
    flat = torch.from_file(str(path), shared=True, size=size, dtype=torch.uint8)
    tail = flat[size - 8 * number :].numpy().tobytes()
    sizes = torch.from_numpy(np.frombuffer(tail, "<i4").reshape(number, 2).astype(np.int64))
    ends = (3 * sizes.prod(1)).cumsum(0)
    starts = ends - 3 * sizes.prod(1)
    places = torch.cat([torch.zeros(number, 1, dtype=torch.int64), starts[:, None], sizes], 1)
    return Pictures([flat], places, shrunk, path)
