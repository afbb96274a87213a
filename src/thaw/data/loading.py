"""Photos as pairs of picture and label, decoded each time or once (data.cache=ram), in an order.

The order is a function of (seed, epoch), resumable within an epoch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate
from tqdm import tqdm

from thaw.data.decode import decode
from thaw.data.photos import Photos
from thaw.seeds import Key, derive
from thaw.stopping import ignore_signals

Transform = Callable[[Tensor], Tensor]  # uint8 (3, H, W) -> uint8 (3, H', W')

MAX_WORKERS = 8  # they decode some 4,000 photos of 500 x 375 a second: enough for one GPU
FEW_PHOTOS = 512  # decoded in about a second: starting processes would take longer
BLOCK_BYTES = 1 << 26  # pictures in memory lie in blocks of about this size
SAMPLE_SIZE = 32  # photos that the size of all is estimated from
FREE_SHARE = 0.8  # of the free memory: the most that pictures may take


def usable_cpus() -> int:
    """CPUs this process may run on; containers are often allowed fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_workers(photos: int, devices: int, *, on_cpu: bool) -> int:
    """Workers for each of `devices` training processes: one per CPU, half where the CPU trains."""
    if photos < FEW_PHOTOS:
        return 0
    cpus = usable_cpus() // max(1, devices) // (2 if on_cpu else 1)
    return max(1, min(MAX_WORKERS, cpus))


def as_key(key: Key | int) -> Key:
    """An index alone, as from the sampler of Lightning's `overfit_batches`, means view seed 0."""
    return (key, 0) if isinstance(key, int) else key


class PhotoSampler(DistributedSampler[Key]):
    """Yields the keys (index, view seed) of one rank.

    Rank r of W takes every W-th place of one global order. So W processes with B images each see
    together exactly the batches that one process with W * B images sees. It is a DistributedSampler
    because Lightning leaves those alone and calls their `set_epoch`.

    In training it shuffles, repeats up to W - 1 photos so that every rank takes the same number of
    steps, and, if `balanced`, draws with replacement, every class equally often on average. In
    evaluation it gives each photo once, in the order of the files.
    """

    augment = True  # whether views are random; False gives the evaluation view of every photo
    skip = 0  # number of this rank's photos to leave out of the next iteration

    def __init__(
        self, labels: Sequence[int], *, train: bool, seed: int, balanced: bool = False,
        rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(range(len(labels)), world_size, rank, shuffle=train, seed=seed)  # pyright: ignore[reportArgumentType]
        self.size, self.train, label = len(labels), train, torch.as_tensor(labels)
        self.weights = 1.0 / torch.bincount(label)[label].double() if balanced and train else None

    def __len__(self) -> int:
        """Photos of this rank in one epoch."""
        stop = self.size + (self.rank if self.train else 0)  # in training as many for each rank
        return len(range(self.rank, stop, self.num_replicas))

    def __iter__(self) -> Iterator[Key]:
        """Yields the keys of the epoch that `set_epoch` was last called with."""
        epoch = self.epoch if self.train else 0
        generator = torch.Generator().manual_seed(derive(self.seed, epoch))
        order = torch.arange(self.size)
        if self.weights is not None:
            order = torch.multinomial(self.weights, self.size, True, generator=generator)
        elif self.train:
            order = torch.randperm(self.size, generator=generator)
        if self.train:  # the same number of photos for every rank
            order = order.repeat(self.num_replicas)[: len(self) * self.num_replicas]
        view_seeds = torch.randint(2**32, (len(order),), generator=generator)
        mine = slice(self.rank + self.skip * self.num_replicas, None, self.num_replicas)
        self.skip = 0
        seeds = view_seeds[mine].tolist() if self.augment else repeat(None)
        yield from zip(order[mine].tolist(), seeds, strict=False)


class ResumableLoader(DataLoader):
    """A DataLoader that can continue in the middle of an epoch, by skipping what was seen."""

    # how many batches of the current epoch a run that was resumed had trained on
    consumed: Callable[[], int] | None = None
    # a table of features; if set, its batch(keys) gives the batches, features (N, D) and labels
    # (N,), for the same keys in the same order as the photos
    features: Any = None

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A generator, since Lightning asks a resumed run for it before it sets the epoch."""
        if self.consumed is not None and isinstance(self.sampler, PhotoSampler):
            self.sampler.skip = self.consumed() * (self.batch_size or 1)
        if self.features is None:
            yield from super().__iter__()
        else:
            yield from map(self.features.batch, self.keys())

    def keys(self) -> Iterator[list[Key]]:
        for batch in self.batch_sampler or ():
            yield [as_key(key) for key in batch]

    def state_dict(self) -> dict[str, Any]:
        """Empty: the order needs no state. Lightning asks for it before it resumes mid-epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def collate(views: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """N pictures (3, H, W), labels -> (N, 3, H, W) in channels_last, as decoded ones are, (N,)."""
    images, labels = default_collate([(image.permute(1, 2, 0), label) for image, label in views])
    return images.permute(0, 3, 1, 2), labels


def make_loader(
    dataset: Dataset, *, labels: Sequence[int], batch_size: int, num_workers: int, train: bool,
    **order: Any,
) -> ResumableLoader:  # fmt: skip
    """A loader of (images (N, 3, H, W), labels (N,)); `order` and labels are for PhotoSampler."""
    sampler = PhotoSampler(labels, train=train, **order)
    # A last batch of one image would stop BatchNorm: it needs two values per channel.
    single = train and len(sampler) > batch_size and len(sampler) % batch_size == 1
    return ResumableLoader(
        dataset, batch_size=batch_size, sampler=sampler, num_workers=num_workers,
        collate_fn=collate, drop_last=single, pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_signals,
        persistent_workers=num_workers > 0, prefetch_factor=4 if num_workers > 0 else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """P decoded pictures, uint8 (3, H, W), in memory as H, W, C, in blocks that workers share."""

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
        """The picture (3, H', W') and label of a key, whose view seed alone decides its view."""
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
    """Decodes all photos, once in each of `processes`; None, and a line says so: no room."""
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
