"""The Lightning callback that gives the head features instead of photos in the frozen phase."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from thaw.backbones.groups import HEAD
from thaw.classifier import Classifier
from thaw.data.dataset import PhotoDataset
from thaw.data.loading import ResumableLoader
from thaw.features.extraction import fill
from thaw.features.table import Features, fingerprint, open_table, read_table
from thaw.store import Store
from thaw.training.module import TransferModule


class CacheFeatures(pl.Callback):
    """Computes features at the start of a phase that trains the head alone, and hands them out.

    The same loaders go on in the same order; at the unfreeze they read photos again. What is
    written does not depend on how many processes share the work.

    Attributes:
        folder: where the files are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[tuple[str, int], Features | None] = {}  # by split and number of views

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run resumed inside an epoch has no start of one."""
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            self.on_train_epoch_start(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning makes the loader before the first validation, which may be a later epoch's."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches the loaders to features, or back to photos."""
        module = cast(TransferModule, pl_module)
        views = module.phase.cached_views
        loaders: list[tuple[str, Any]] = [("train", trainer.train_dataloader)]
        loaders.append(("val", trainer.val_dataloaders))
        for split, loader in loaders:
            if not isinstance(loader, ResumableLoader):
                continue
            if not views:
                loader.features = None
                continue
            key = split, views if split == "train" else 1
            if key not in self.held:
                self.held[key] = self._features(trainer, module, loader, *key)
            loader.features = self.held[key]
        if not views:
            self.held.clear()

    def _features(
        self, trainer: pl.Trainer, module: TransferModule, loader: ResumableLoader, split: str,
        views: int,
    ) -> Features | None:  # fmt: skip
        """From the cache, or computed into it; None where they cannot be kept."""
        dataset = loader.dataset
        assert isinstance(dataset, PhotoDataset)
        what = fingerprint(
            module.classifier.body, dataset, module.normalise, views=views,
            precision=str(trainer.precision), device=module.device,
        )  # fmt: skip
        label = f"{split}, {len(dataset):,} photos, {views} view{'s' if views > 1 else ''} each"
        store = Store(self.folder, what)
        if self._refused(trainer, label, store.take):  # another run may be at work on it
            return None
        try:
            whole = trainer.is_global_zero and store.is_whole()
            if trainer.strategy.broadcast(whole):
                self._say(trainer, f"features from cache: {label}")
            elif not self._compute(trainer, module, loader, store, label):
                return None
        finally:
            store.lock.release()
        return Features(read_table(store), torch.tensor(dataset.photos.labels))

    def _compute(
        self, trainer: pl.Trainer, module: TransferModule, loader: ResumableLoader, store: Store,
        label: str,
    ) -> bool:  # fmt: skip
        """Writes the file, all ranks together; False where there is no room for it."""
        first = self._run(trainer, module, loader.dataset[0][0][None])
        shape = (store.what["number"], store.what["views"], first.shape[1])
        size = math.prod(shape) * first.dtype.itemsize
        if self._refused(trainer, label, partial(store.begin, size)):
            return False
        self._say(trainer, f"features: {label}, {size / 1e6:,.1f} MB")
        self._fill(trainer, module, loader, open_table(store.part, shape, first.dtype))
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            store.finish(shape=list(shape), dtype=str(first.dtype).removeprefix("torch."))
        trainer.strategy.barrier()
        return True

    def _refused(self, trainer: pl.Trainer, label: str, work: Callable[[], object]) -> bool:
        """Whether the system refused what the first rank tried; all ranks hear, it is said once."""
        why = ""
        if trainer.is_global_zero:
            try:
                work()
            except OSError as error:  # a full disk, a folder that cannot be written
                why = str(error)
                self._say(trainer, f"features: {label}, {why}: going on without a cache")
        return bool(trainer.strategy.broadcast(why))

    def _say(self, trainer: pl.Trainer, text: str) -> None:
        if trainer.is_global_zero:
            print(text)

    def _fill(
        self, trainer: pl.Trainer, module: TransferModule, loader: ResumableLoader, table: Tensor
    ) -> None:
        """Writes this rank's rows of the table (P, V, D)."""
        photos, views, _ = table.shape
        fill(
            table, cast(PhotoDataset, loader.dataset), partial(self._run, trainer, module),
            rows=range(trainer.global_rank, photos * views, trainer.world_size),
            batch_size=loader.batch_size or 1, num_workers=loader.num_workers,
            show=trainer.progress_bar_callback is not None and trainer.is_global_zero,
        )  # fmt: skip

    def _run(self, trainer: pl.Trainer, module: TransferModule, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D), as a training step would."""
        model: Classifier = module.classifier
        assert model.trainable == {HEAD}
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            return model.features(module.prepare(images.to(module.device)))
