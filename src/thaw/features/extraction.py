"""The pass of a body over photos that fills a file of features, with Lightning or without."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from thaw.data.dataset import PhotoDataset
from thaw.data.loading import collate
from thaw.errors import ConfigError, shown
from thaw.features.table import Features, open_table, read_table, view_key
from thaw.store import Store

Run = Callable[[Tensor], Tensor]  # uint8 (N, 3, H, W) -> features (N, D)


def fill(
    table: Tensor, dataset: PhotoDataset, run: Run, *, rows: range, batch_size: int,
    num_workers: int, show: bool,
) -> None:  # fmt: skip
    """Writes rows of a table (P, V, D).

    Args:
        table: of P photos in V views; row r is view r % V of photo r // V, see `view_key`.
        dataset: the photos.
        run: the body.
        rows: the ones to write.
        batch_size: images at once.
        num_workers: processes that decode.
        show: a progress bar.
    """
    photos, views, width = table.shape
    reader = DataLoader(
        dataset,
        sampler=[view_key(*divmod(row, views)) for row in rows],  # pyright: ignore[reportArgumentType]
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
    )
    flat = table.view(photos * views, width)
    bar = tqdm(total=len(rows), desc="features", unit="images", disable=not show, leave=False)
    done = 0
    for images, _ in reader:
        found = run(images)
        flat[list(rows[done : done + len(found)])] = found.cpu()
        done += len(found)
        bar.update(len(found))
    bar.close()


class Runner:
    """A frozen body as a training step runs it, without Lightning: uint8 images -> features.

    Attributes:
        device: that it runs on.
    """

    def __init__(
        self, body: nn.Module, normalise: Run, *, precision: str, device: torch.device,
        channels_last: bool,
    ) -> None:  # fmt: skip
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.body = body.eval().to(device=device)
        self.body.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        self.normalise = normalise
        self.precision = precision
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D)."""
        with torch.no_grad(), autocast(self.precision, self.device):
            return self.body(self.prepare(images))

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> what the body takes."""
        ready = images.to(self.device).contiguous(memory_format=self.memory_format)
        return self.normalise(ready)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """What Lightning's `trainer.precision` does around a forward pass.

    Raises:
        ConfigError: one that changes the weights too.
    """
    kinds = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if precision not in kinds:
        raise ConfigError(
            f"trainer.precision={shown(precision)}: scores are measured in auto, "
            f"{', '.join(kinds)}; leave it away here"
        )
    kind = kinds[precision]
    return torch.autocast(device.type, kind) if kind else nullcontext()


def features_of(
    store: Store, dataset: PhotoDataset, run: Run, *, batch_size: int, num_workers: int,
) -> tuple[Features, bool]:  # fmt: skip
    """Features in the evaluation view from a file, or computed into it; and whether they were.

    Args:
        store: named after `fingerprint(..., views=1)`.
        dataset, run, batch_size, num_workers: see `fill`.

    Raises:
        ConfigError: the file cannot be written.
    """
    made = False
    try:
        with store.take():
            if not store.is_whole():
                first = run(dataset[0][0][None])
                shape = (len(dataset), 1, first.shape[1])
                store.begin(math.prod(shape) * first.dtype.itemsize)
                table = open_table(store.part, shape, first.dtype)
                fill(table, dataset, run, rows=range(len(dataset)), batch_size=batch_size,
                     num_workers=num_workers, show=False)  # fmt: skip
                store.finish(shape=list(shape), dtype=str(first.dtype).removeprefix("torch."))
                made = True
    except OSError as error:  # a full disk, a folder that cannot be written
        raise ConfigError(
            f"paths.cache_dir={store.path.parents[1]}: features cannot be written there ({error}). "
            "Give a folder that can be written to, on a larger disk."
        ) from error
    return Features(read_table(store), torch.tensor(dataset.photos.labels)), made
