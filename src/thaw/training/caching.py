"""The Lightning callback that gives the head features instead of photos in the frozen phase."""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from tqdm import tqdm

from thaw.backbones.groups import HEAD
from thaw.data.dataset import PhotoDataset
from thaw.data.loading import ResumableLoader
from thaw.features.fill import Progress, load_or_compute
from thaw.features.key import feature_key
from thaw.features.table import Features
from thaw.training.module import TransferModule


class CacheFeatures(pl.Callback):
    """Computes features at the start of a phase that trains the head alone, and serves them.

    The loaders keep their order; at the unfreeze they read photos again.

    Attributes:
        folder: where the files of features are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.features: dict[tuple[str, int], Features | None] = {}  # by split and number of views

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a run that is resumed inside an epoch, whose start is not called again."""
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            self.on_train_epoch_start(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning makes the validation loader before the first validation, not before."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Switches the loaders to features, or back to photos."""
        module = cast(TransferModule, pl_module)
        views = module.phase.cached_views
        loaders: tuple[tuple[str, Any], ...] = (
            ("train", trainer.train_dataloader), ("val", trainer.val_dataloaders)
        )  # fmt: skip
        for split, loader in loaders:
            if not isinstance(loader, ResumableLoader):
                continue
            if not views:
                loader.features = None
                continue
            key = split, views if split == "train" else 1
            if key not in self.features:
                self.features[key] = self._load(trainer, module, loader, *key)
            loader.features = self.features[key]
        if not views:
            self.features.clear()

    def _load(
        self, trainer: pl.Trainer, module: TransferModule, loader: ResumableLoader, split: str,
        views: int,
    ) -> Features | None:  # fmt: skip
        """From the file, or computed; None where no file can be kept."""
        dataset = loader.dataset
        assert isinstance(dataset, PhotoDataset)
        title = (
            f"features  {split}: {len(dataset):,} photos x {views} view{'' if views == 1 else 's'}"
        )
        key = feature_key(
            module.classifier.body, dataset, module.normalise, views=views,
            precision=str(trainer.precision), device=module.device,
        )  # fmt: skip

        def run(images: Tensor) -> Tensor:
            """(N, 3, H, W) -> (N, D), as a training step would."""
            assert module.classifier.trainable == {HEAD}
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                return module.classifier.features(module.prepare(images.to(module.device)))

        started = time.perf_counter()
        features, message = None, ""
        with self._bar(trainer, split) as on_progress:
            try:
                features, was_there = load_or_compute(
                    self.folder, key, loader, run, views=views,
                    labels=torch.tensor(dataset.photos.labels), on_progress=on_progress,
                )  # fmt: skip
                seconds = time.perf_counter() - started
                size = features.table.nbytes / 1e6
                message = " from cache" if was_there else f", {size:,.1f} MB in {seconds:.1f} s"
            except OSError as error:
                message = (
                    f": going on without a cache, since {error}. Set paths.cache_dir to a folder "
                    "with room that all ranks see, or finetune.cache_features=false"
                )
        if trainer.is_global_zero:
            print(f"{title}{message}")
        return features

    def _bar(self, trainer: pl.Trainer, split: str) -> AbstractContextManager[Progress]:
        """The run's own progress bar, where it has `on_caching(split, done, total)`."""
        own = trainer.progress_bar_callback
        if hasattr(own, "on_caching"):
            return nullcontext(partial(own.on_caching, split))  # pyright: ignore
        shown = own is not None and trainer.is_global_zero
        return terminal_bar(f"features  {split}", shown=shown)


@contextmanager
def terminal_bar(title: str, *, shown: bool = True) -> Iterator[Progress]:
    """A progress bar on stderr that disappears at its end; without a terminal there is none."""
    hidden = not (shown and sys.stderr.isatty())
    with tqdm(desc=title, unit="images", leave=False, disable=hidden) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
