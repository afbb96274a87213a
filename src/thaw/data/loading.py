"""The order in which photos are read: a function of (seed, epoch), resumable inside an epoch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from thaw.seeds import derive

Key = tuple[int, int | None]  # (index of the photo, seed of its view; None: the evaluation view)
Fetch = Callable[[list[Key]], Any]  # keys of a batch -> the batch


class PhotoSampler(DistributedSampler[Key]):
    """Yields (index, view_seed) for one rank.

    Rank r of W takes every W-th place of one global order, so W processes with B images each see
    together just the batches that one process with W * B images sees.

    A DistributedSampler, because Lightning leaves those alone and calls their `set_epoch`.

    Args:
        labels: label of each photo; their number is the size of an epoch.
        train: shuffle, and repeat up to W - 1 photos so that every rank takes as many steps;
            otherwise the order of the files, each photo once.
        seed: of the order and of the views.
        balanced: draw with replacement, every class equally often on average (train only).
        rank, world_size: of this process, and how many there are.

    Attributes:
        augment: whether views are drawn; False asks for the evaluation view of every photo.
        skip: photos of this rank to leave out once, at the next iteration.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        train: bool,
        seed: int,
        balanced: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            range(len(labels)),  # pyright: ignore[reportArgumentType]  only its length is read
            num_replicas=world_size,
            rank=rank,
            shuffle=train,
            seed=seed,
        )
        self.train = train
        self.augment = True
        self.skip = 0
        self.weights: Tensor | None = None
        if balanced and train:
            label = torch.as_tensor(labels)
            self.weights = 1.0 / torch.bincount(label)[label].double()  # (number of photos,)

    def __len__(self) -> int:
        """Photos of this rank in one epoch."""
        size = len(self.dataset)  # pyright: ignore[reportArgumentType]
        if self.train:
            return -(-size // self.num_replicas)
        return len(range(self.rank, size, self.num_replicas))

    def __iter__(self) -> Iterator[Key]:
        """Yields the keys of the epoch last given to `set_epoch`."""
        size = len(self.dataset)  # pyright: ignore[reportArgumentType]
        if self.train:
            generator = torch.Generator().manual_seed(derive(self.seed, self.epoch))
            if self.weights is None:
                order = torch.randperm(size, generator=generator)
            else:
                order = torch.multinomial(self.weights, size, True, generator=generator)
            order = order.repeat(self.num_replicas)[: len(self) * self.num_replicas]
        else:
            generator = torch.Generator().manual_seed(derive(self.seed))
            order = torch.arange(size)
        view_seeds = torch.randint(2**32, (len(order),), generator=generator)
        mine = slice(self.rank + self.skip * self.num_replicas, None, self.num_replicas)
        self.skip = 0
        seeds = view_seeds[mine].tolist() if self.augment else repeat(None)
        yield from zip(order[mine].tolist(), seeds, strict=False)


class HasBatch(Protocol):
    """A table of features."""

    def batch(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of N keys."""
        ...


class ResumableLoader(DataLoader):
    """A DataLoader that goes on in the middle of an epoch where a resumed run stands.

    `consumed` says how many batches of the current epoch were already trained on (0 unless a run
    was resumed). Since the order is a pure function of the epoch, skipping is all it takes.
    `features`, where set, are given instead of photos, for the same keys in the same order.
    `fetch`, where set, makes the batch of some keys, in threads of this process and in place of the
    workers: so batches need not go through shared memory, for which the kernel clears pages anew.
    """

    consumed: Callable[[], int] | None = None
    features: "HasBatch | None" = None
    fetch: Fetch | None = None

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yields batches.

        A generator on purpose: Lightning makes the first iterator of a resumed run before it
        tells the sampler the epoch, and the order must be drawn after.
        """
        if self.consumed is not None and isinstance(self.sampler, PhotoSampler):
            self.sampler.skip = self.consumed() * (self.batch_size or 1)
        if self.features is not None:
            yield from map(self.features.batch, self._keys())
        elif self.fetch is None:
            yield from super().__iter__()
        elif self.num_workers == 0:
            yield from map(self.fetch, self._keys())
        else:
            yield from in_threads(self.fetch, self._keys(), self.num_workers)

    def _keys(self) -> Iterator[list[Key]]:
        """Of each batch."""
        yield from self.batch_sampler  # pyright: ignore[reportOptionalIterable, reportReturnType]

    def state_dict(self) -> dict[str, Any]:
        """Empty: there is nothing to save. Lightning asks for it before it resumes mid-epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""


def in_threads(fetch: Fetch, batches: Iterable[list[Key]], number: int) -> Iterator[Any]:
    """fetch(keys) of each batch of keys, in order; some are begun before they are asked for.

    Args:
        fetch: worth threads where most of it is torch's, which lets go of Python's lock.
        batches: of keys.
        number: of threads.
    """
    # One thread each for tensors, as in worker processes. torch keeps that number by thread (one
    # that is started later begins with the last that was set).
    pool = ThreadPoolExecutor(number, "views", lambda: torch.set_num_threads(1))
    begun: deque[Future[Any]] = deque()
    try:
        for keys in batches:
            begun.append(pool.submit(fetch, keys))
            if len(begun) > number + 2:  # one for each thread, and two in store
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:  # also where the consumer stops early
        pool.shutdown(wait=False, cancel_futures=True)


def collate(views: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """N pictures (3, H, W) and labels -> (N, 3, H, W) and (N,).

    In memory the channels lie last: so decoded and cropped pictures do already, and turning them
    round, here and before convolutions, would cost more than copying them.
    """
    images, labels = default_collate([(image.permute(1, 2, 0), label) for image, label in views])
    return images.permute(0, 3, 1, 2), labels


def make_loader(
    dataset: Dataset,
    *,
    labels: Sequence[int],
    batch_size: int,
    num_workers: int,
    train: bool,
    seed: int,
    balanced: bool = False,
    fetch: Fetch | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> ResumableLoader:
    """A loader of (images (N, 3, H, W), labels (N,)) over one split.

    Args:
        dataset: indexed by the keys of `PhotoSampler`.
        labels: of the dataset's photos, in order.
        batch_size: images per device.
        num_workers: processes, or threads, that prepare batches; 0: the loop does.
        fetch: makes a batch, in threads; None: worker processes do.
        train, seed, balanced, rank, world_size: see `PhotoSampler`.
    """
    sampler = PhotoSampler(
        labels, train=train, seed=seed, balanced=balanced, rank=rank, world_size=world_size
    )
    # A last batch of one image would stop BatchNorm (it needs two values per channel).
    alone = train and len(sampler) > batch_size and len(sampler) % batch_size == 1
    loader = ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        drop_last=alone,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        prefetch_factor=4 if num_workers > 0 else None,
    )
    loader.fetch = fetch
    return loader
