"""Photos as pairs of picture and label, decoded each time or only once (data.cache=ram)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from thaw.data.decode import decode
from thaw.data.loading import as_key
from thaw.data.photos import Photos
from thaw.seeds import Key
from thaw.stopping import ignore_signals

Transform = Callable[[Tensor], Tensor]  # uint8 (3, H, W) -> uint8 (3, H', W')

BLOCK_BYTES = 1 << 26  # pictures in memory lie in blocks of about this size
SAMPLE_SIZE = 32  # photos that the size of all is estimated from
FREE_SHARE = 0.8  # of the free memory: the most that pictures may take


@dataclass(frozen=True)
class Pictures:
    """P decoded pictures, uint8 (3, H, W) each, of different sizes; in memory as H, W, C.

    They lie in a few blocks, which a spawned worker gets as shared memory: no worker copies them.
    """

    blocks: Sequence[Tensor]  # the bytes of many pictures one after the other, uint8 (bytes,)
    places: Tensor  # block, first byte, H and W of each picture, int64 (P, 4)
    shrunk: str  # how the pictures were made smaller, for the key of cached features

    def __getitem__(self, index: int) -> Tensor:
        block, start, height, width = self.places[index].tolist()
        return self.blocks[block].as_strided((3, height, width), (1, 3 * width, 3), start)


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Pairs of transformed picture and label.

    `transform` is random for training, `plain` gives the evaluation view; `pictures` are the photos
    decoded and shrunk, or None to decode the files each time.
    """

    def __init__(
        self, photos: Photos, transform: Transform, plain: Transform | None = None,
        pictures: Pictures | None = None,
    ) -> None:  # fmt: skip
        self.photos, self.transform, self.pictures = photos, transform, pictures
        self.plain, self.random = plain or transform, transform is not plain

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: Key | int) -> tuple[Tensor, int]:
        """The picture (3, H', W') and label of a key of `PhotoSampler`, or of an index alone.

        The view's seed alone decides what a random transform does, with any number of workers.
        """
        index, view_seed = as_key(key)
        label, cached = self.photos.labels[index], self.pictures
        picture = decode(self.photos.paths[index]) if cached is None else cached[index]
        if view_seed is None or not self.random:
            return self.plain(picture), label
        # The CPU's generator only: torch.manual_seed would seed the GPUs too, and with
        # num_workers=0 every training step would repeat the same dropout masks.
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(view_seed)
            return self.transform(picture), label


def read_pictures(
    photos: Photos, shrink: Transform, *, num_workers: int, label: str, processes: int = 1,
    verbose: bool = True,
) -> Pictures | None:  # fmt: skip
    """Decodes all photos into memory; None, after a printed line, if they would not fit.

    Each of the training `processes` of this machine has pictures of its own.
    """
    dataset = PhotoDataset(photos, shrink, shrink)
    sample = range(0, len(dataset), max(1, len(dataset) // SAMPLE_SIZE))
    size = sum(dataset[index][0].numel() for index in sample) / len(sample) * len(dataset)
    free = psutil.virtual_memory().available // processes
    fits = size <= FREE_SHARE * free
    end = "" if fits else f" do not fit, {free / 1e6:,.0f} MB are free: decoding in every epoch"
    if verbose:
        print(f"pictures  {label}, {size / 1e6:,.0f} MB in memory{end}", flush=True)
    if not fits:
        return None
    blocks, waiting, places, start = [], [], [], 0
    loader = DataLoader(dataset, batch_size=16, num_workers=num_workers, collate_fn=list,
                        worker_init_fn=ignore_signals)  # fmt: skip
    for batch in tqdm(loader, label, leave=False, disable=None if verbose else True):
        for picture, _ in batch:
            places.append((len(blocks), start, *picture.shape[1:]))
            # a copy of its own, or the file of the worker that sent it would stay open
            waiting.append(picture.permute(1, 2, 0).flatten().clone())
            start += picture.numel()
        if start >= BLOCK_BYTES or len(places) == len(dataset):
            blocks.append(torch.cat(waiting))
            waiting, start = [], 0
    return Pictures(blocks, torch.tensor(places), repr(shrink))
