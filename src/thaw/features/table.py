"""Features of photos as a table, the pass of a frozen body that fills it, and its file on disk.

Several ranks share the pass: each computes a part of the rows, and all get the whole table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from thaw.seeds import Key, derive
from thaw.store import Store

Run = Callable[[Tensor], Tensor]  # uint8 (N, 3, H, W) -> features (N, D)
T = TypeVar("T")


class FeatureBatch(NamedTuple):
    """What a loader gives in place of photos while the body is frozen."""

    features: Tensor  # (N, D)
    labels: Tensor  # (N,)


@dataclass(frozen=True)
class Features:
    """What a frozen body gives for each view of each photo."""

    table: Tensor  # (P, V, D) for P photos in V views; view 0 is the evaluation view
    labels: Tensor  # (P,)

    def batch(self, keys: Sequence[Key]) -> FeatureBatch:
        """The batch of N keys, as the loader's sampler gives them."""
        photos = torch.tensor([index for index, _ in keys])
        views = torch.tensor([self.view(key) for key in keys])
        return FeatureBatch(self.table[photos, views], self.labels[photos])

    def view(self, key: Key) -> int:
        """The number of the view that a key asks for: its view seed, modulo V."""
        return 0 if key[1] is None else key[1] % self.table.shape[1]


def view_key(index: int, view: int) -> Key:
    """The key of a photo's view: view 0 is the evaluation view, the others are drawn at random.

    The draws do not depend on the seed of the run, so that runs with other seeds share one file.
    """
    return index, None if view == 0 else derive(index, view)


def load_or_compute(
    folder: Path, make_key: Callable[[], dict[str, Any]], loader: DataLoader, run: Run, *,
    views: int, title: str = "features",
) -> tuple[Features, bool]:  # fmt: skip
    """Features of all photos of a loader of `PhotoDataset`, and whether they were in a file.

    Rank 0 writes the file. On a terminal a bar with this title shows how far its pass is.

    Raises:
        OSError: on all ranks together: no room, no writing, a photo is missing, or the ranks
            differ in their photos or their precision.
    """
    keys = together(make_key)  # that of rank 0 counts
    rank, ranks = dist.get_rank() if len(keys) > 1 else 0, len(keys)
    store = Store(folder, keys[0])
    photos: Any = loader.dataset.photos  # pyright: ignore[reportAttributeAccessIssue]
    names = [f"{path.parent.name}/{path.name}" for path in photos.paths]  # folders may differ
    digest = sha256(repr([names, photos.labels]).encode()).hexdigest()
    if len(set(together(lambda: digest))) > 1:
        raise OSError("the ranks see different photos (give all the same files and data.seed)")
    labels = torch.tensor(photos.labels)
    total = len(labels) * views
    try:
        together(lambda: store.begin() if rank == 0 else None)
        exists = all(together(store.is_whole))  # nodes may have a folder each
        if exists:
            table = _read(store)
        else:
            first, end = (-(-total * number // ranks) for number in (rank, rank + 1))
            rows = [view_key(*divmod(row, views)) for row in range(first, end)]
            hidden = None if rank == 0 else True  # None: only where there is no terminal
            with tqdm(total=len(rows), desc=title, leave=False, disable=hidden) as bar:
                parts = together(lambda: compute(loader, run, rows, bar.update))
            table = _join(parts)
            together(lambda: _write(store, table) if rank == 0 else None)
    finally:
        store.lock.release()
    return Features(table.view(len(labels), views, -1), labels), exists


def compute(
    loader: DataLoader, run: Run, keys: Sequence[Key], on_done: Callable[[int], object]
) -> Tensor:
    """Features (R, D) of the views of R keys; tells `on_done` the number of rows of each batch."""
    reader = DataLoader(
        loader.dataset, loader.batch_size, sampler=keys, num_workers=loader.num_workers,  # pyright: ignore[reportArgumentType]
        collate_fn=loader.collate_fn, pin_memory=loader.pin_memory,
    )  # fmt: skip
    table, done = torch.empty(0), 0
    for images, _ in reader:
        features = run(images).cpu()  # N D
        if done == 0:  # made once, since joining batches at the end would need the memory twice
            table = features.new_empty(len(keys), features.shape[1])
        table[done : done + len(features)] = features
        done += len(features)
        on_done(len(features))
    return table


def together(work: Callable[[], T]) -> list[T]:
    """Returns what `work` returns on each rank; an OSError of one rank is raised on all."""
    mine: list[Any] = [None, None]  # result, reason
    try:
        mine[0] = work()
    except OSError as error:
        mine[1] = str(error)
    every: list[Any] = [mine]
    if dist.is_available() and dist.is_initialized():
        every *= dist.get_world_size()
        dist.all_gather_object(every, mine)
    if reasons := [reason for _, reason in every if reason is not None]:
        raise OSError(reasons[0])
    return [result for result, _ in every]


def _join(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all ranks, (P * V, D)."""
    filled = [part for part in parts if len(part)]  # with few photos a rank may have no rows
    if len({part.dtype for part in filled}) > 1:
        raise OSError("the ranks' features differ in type (give all one trainer.precision)")
    return filled[0] if len(filled) == 1 else torch.cat(filled)


def _write(store: Store, table: Tensor) -> None:
    kind = str(table.dtype).removeprefix("torch.")
    store.write(table.view(torch.uint8).numpy().data, dtype=kind)


def _read(store: Store) -> Tensor:
    """The numbers of the file, flat, as memory that is read from the disk when it is used."""
    dtype = getattr(torch, store.facts()["dtype"])
    size = store.path.stat().st_size // dtype.itemsize
    # Shared although it is only read: Linux refuses a private mapping larger than the memory.
    return torch.from_file(str(store.path), shared=True, size=size, dtype=dtype)
