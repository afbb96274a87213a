"""Features of photos as a table on disk, and the pass of a frozen body that fills it.

Several ranks share the pass: each writes its own rows into the one file, which counts when all have
been written. It is read as memory that the disk fills when needed, so it may be larger than that.
"""

import os
import secrets
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
    """The key of a photo's view: 0 is the evaluation view, others do not go by the run's seed."""
    return index, None if view == 0 else derive(index, view)


def load_or_compute(
    folder: Path, make_key: Callable[[], dict[str, Any]], loader: DataLoader, run: Run, *,
    views: int, title: str = "features",
) -> tuple[Features, bool]:  # fmt: skip
    """Features of all photos of a loader of `PhotoDataset`, and whether they were in a file.

    Raises:
        OSError: on all ranks together: no room, no writing, a photo is missing, or the ranks
            differ in their folder, their photos or their precision.
    """
    keys = together(make_key)
    rank, ranks = dist.get_rank() if len(keys) > 1 else 0, len(keys)
    store = Store(folder, keys[0])  # that of rank 0 counts
    photos: Any = loader.dataset.photos  # pyright: ignore[reportAttributeAccessIssue]
    names = [f"{path.parent.name}/{path.name}" for path in photos.paths]  # folders may differ
    digest = sha256(repr([names, photos.labels]).encode()).hexdigest()
    if len(set(together(lambda: digest))) > 1:
        raise OSError("the ranks see different photos (give all the same files and data.seed)")
    labels = torch.tensor(photos.labels)
    total = len(labels) * views
    try:
        token = together(lambda: _begin(store) if rank == 0 else "")[0]
        part = store.part(token) if token else store.note
        notes = together(lambda: part.is_file() and (token or store.facts()))
        if any(note != notes[0] for note in notes):
            raise OSError(f"{folder} is not one folder for all ranks")
        if token:
            first, end = (-(-total * number // ranks) for number in (rank, rank + 1))
            rows = [view_key(*divmod(row, views)) for row in range(first, end)]
            hidden = None if rank == 0 else True  # None: only where there is no terminal
            with tqdm(total=len(rows), desc=title, leave=False, disable=hidden) as bar:
                kinds = together(lambda: fill(part, first, loader, run, rows, bar.update))
            found = {kind for kind in kinds if kind[0]}  # a rank may have no rows
            if len(found) > 1:
                raise OSError(f"the ranks' features differ: set one trainer.precision: {found}")
            width, dtype = found.pop()
            together(lambda: rank or store.finish(part, total * width, dtype=dtype))
    finally:
        if store.lock.is_locked:
            store.clear_parts()
            store.lock.release()
    dtype = getattr(torch, store.facts()["dtype"])
    size = store.path.stat().st_size // dtype.itemsize
    # Shared although it is only read: Linux refuses a private mapping larger than the memory. But
    # torch opens a shared one for writing.
    shared = os.access(store.path, os.W_OK)
    table = torch.from_file(str(store.path), shared=shared, size=size, dtype=dtype)
    return Features(table.view(len(labels), views, -1), labels), not token


def fill(
    file: Path, first: int, loader: DataLoader, run: Run, keys: Sequence[Key],
    on_done: Callable[[int], object],
) -> tuple[int, str]:  # fmt: skip
    """Writes features of views from row `first` on; gives the bytes and type of a row."""
    reader = DataLoader(
        loader.dataset, loader.batch_size, sampler=keys, num_workers=loader.num_workers,  # pyright: ignore[reportArgumentType]
        collate_fn=loader.collate_fn, pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
    )  # fmt: skip
    done, width, dtype = 0, 0, ""
    with file.open("r+b") as output:
        for images, _ in reader:
            features = run(images).cpu().contiguous()  # (N, D)
            width, dtype = features[0].nbytes, str(features.dtype).removeprefix("torch.")
            output.seek((first + done) * width)
            output.write(features.view(torch.uint8).numpy().data)
            done += len(features)
            on_done(len(features))
    assert done == len(keys)
    return width, dtype


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


def _begin(store: Store) -> str:
    """The name of a part of the file to fill, which is locked; "": the file is whole."""
    if store.is_whole():  # nothing is written: the folder may be read-only
        return ""
    store.path.parent.mkdir(parents=True, exist_ok=True)
    store.lock.acquire()
    if store.is_whole():  # another run may have made it while this one waited
        return ""
    store.clear_parts()
    token = secrets.token_hex(8)  # a name that no other node has a file of
    store.part(token).touch()
    return token
