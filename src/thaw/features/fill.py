"""The pass of a frozen body over photos that writes a file of features, by one process or several.

Several ranks share the work and one file. Rank 0 decides for all: its key names the file, it looks
whether the file is there, and it alone writes the whole of it. Each rank writes the features of its
own photos to a part beside it; rank 0 joins them, and does so only when every part has its size.
"""

import math
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from thaw.features.table import Features, view_key
from thaw.store import Store

Run = Callable[[Tensor], Tensor]  # uint8 (N, 3, H, W) -> features (N, D)
Progress = Callable[[int, int], None]  # (images done, images in all), of this rank
T = TypeVar("T")


def load_or_compute(
    folder: Path, key: dict[str, Any], loader: DataLoader, run: Run, *, views: int,
    labels: Tensor, on_progress: Progress | None = None,
) -> tuple[Features, bool]:  # fmt: skip
    """Features of all photos of a loader, from the file if there is one; and whether there was.

    Args:
        folder: where the files are; all ranks must see the same.
        key: see `key.feature_key`; that of rank 0 counts.
        loader: of the photos; its dataset is indexed by `view_key`.
        run: the body, as a training step runs it.
        views: V, of each photo.
        labels: (P,)
        on_progress: called after each batch of a pass.

    Raises:
        OSError: on all ranks together, with one reason: a folder that cannot be written, a full
            disk, a folder that is another one on another rank.
    """
    rank, ranks = rank_and_ranks()
    store = Store(folder, all_ranks(key)[0])
    try:
        name, found = together(lambda: _begin(store) if rank == 0 else ("", False))[0]
        if not found:
            together(lambda: _check_shared(store.part(f"{name}-0")))
            photos = len(labels)
            rows = range(
                _first(photos * views, rank, ranks), _first(photos * views, rank + 1, ranks)
            )
            part = store.part(f"{name}-{rank}")
            wrote = together(lambda: fill(part, loader, run, rows=rows, views=views,
                                          on_progress=on_progress))  # fmt: skip
            shape, kind = (photos, views, wrote[0][0]), wrote[0][1]
            together(lambda: _join(store, name, shape, kind) if rank == 0 else None)
        together(lambda: _check_name(store, name))
    finally:
        if store.lock.is_locked:
            store.clear_parts()
            store.lock.release()
    return Features(_open(store), labels), found


def fill(
    file: Path, loader: DataLoader, run: Run, *, rows: range, views: int,
    on_progress: Progress | None = None,
) -> tuple[int, torch.dtype]:  # fmt: skip
    """Writes the features of some views to a file, one after the other.

    Args:
        file: to write; row r of all is view r % V of photo r // V, see `view_key`.
        loader: of the photos; its dataset, batch size and workers are used, its order is not.
        run: the body.
        rows: the ones to write.
        views: V.
        on_progress: called after each batch.

    Returns:
        D and the type of the numbers; 0 and float32 where there are no rows.

    Raises:
        OSError: the file cannot be written, or there is no room for the features of all photos.
    """
    reader = DataLoader(
        loader.dataset,
        sampler=[view_key(*divmod(row, views)) for row in rows],  # pyright: ignore[reportArgumentType]
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
    )
    done, width, kind = 0, 0, torch.float32
    with file.open("wb") as output:
        for images, _ in reader:
            features = run(images).cpu().contiguous()  # (N, D)
            if not done:
                width, kind = features.shape[1], features.dtype
                images_in_all = len(loader.dataset) * views  # pyright: ignore[reportArgumentType]
                _check_room(file.parent, images_in_all * features[0].nbytes)
            output.write(features.view(torch.uint8).numpy().data)
            done += len(features)
            if on_progress is not None:
                on_progress(done, len(rows))
    return width, kind


def rank_and_ranks() -> tuple[int, int]:
    """Number of this process (0, 1, ...) and how many train together."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def all_ranks(value: T) -> list[T]:
    """The value of each rank, on each rank; all must call this."""
    _, ranks = rank_and_ranks()
    if ranks == 1:
        return [value]
    values: list[Any] = [None] * ranks
    dist.all_gather_object(values, value)
    return values


def together(work: Callable[[], T]) -> list[T]:
    """What `work` gives on each rank; all must call this.

    Raises:
        OSError: on all ranks, where it was raised on one.
    """
    mine: Any = None
    error: OSError | None = None
    try:
        mine = work()
    except OSError as caught:
        error = caught
    results = all_ranks((mine, None if error is None else str(error)))
    for _, reason in results:
        if reason is not None:
            raise OSError(reason) from error
    return [value for value, _ in results]


def _begin(store: Store) -> tuple[str, bool]:
    """Waits for another run at work on it; gives the file's name for itself, and if it is there."""
    store.locked()
    if store.is_whole():
        return store.facts()["name"], True
    store.clear_parts()
    name = secrets.token_hex(8)
    store.part(f"{name}-0").touch()
    return name, False


def _check_shared(part: Path) -> None:
    """Whether this rank sees what rank 0 has just written."""
    if not part.is_file():
        raise OSError(f"{part.parent} is not one folder for all ranks")


def _join(store: Store, name: str, shape: tuple[int, int, int], kind: torch.dtype) -> None:
    """Appends the parts of all ranks to that of rank 0."""
    photos, views, width = shape
    whole = store.part(f"{name}-0")
    _, ranks = rank_and_ranks()
    for rank in range(ranks):
        part = store.part(f"{name}-{rank}")
        first, end = (_first(photos * views, number, ranks) for number in (rank, rank + 1))
        expected = (end - first) * width * kind.itemsize
        if not part.is_file() or part.stat().st_size != expected:
            raise OSError(f"{part} of rank {rank} is missing or not whole")
        if rank > 0:
            with whole.open("ab") as output, part.open("rb") as source:
                shutil.copyfileobj(source, output)
            part.unlink()
    store.finish(whole, name=name, shape=list(shape), dtype=str(kind).removeprefix("torch."))


def _check_name(store: Store, name: str) -> None:
    """Whether this rank sees the file that rank 0 means."""
    if not store.note.is_file() or store.facts().get("name") != name:
        raise OSError(f"{store.path.parent} is not one folder for all ranks")


def _open(store: Store) -> Tensor:
    """The file as a tensor (P, V, D), in memory only as far as it is read.

    Shared although it is only read: Linux refuses a private mapping larger than the memory.
    """
    facts = store.facts()
    kind = getattr(torch, facts["dtype"])
    flat = torch.from_file(str(store.path), shared=True, size=math.prod(facts["shape"]), dtype=kind)
    return flat.view(*facts["shape"])


def _first(rows: int, rank: int, ranks: int) -> int:
    """The first row of a rank; rank 0 has at least one."""
    return -(-rows * rank // ranks)


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 1.1 * size:
        needed = f"would take {size / 1e6:,.1f} MB"
        raise OSError(f"{needed}, and {folder} has {free / 1e6:,.0f} MB free")
