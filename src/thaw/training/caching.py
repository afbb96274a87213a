"""The Lightning callback that gives the head features instead of photos in the frozen phase."""

import time
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from tqdm import tqdm

from thaw.backbones.groups import HEAD
from thaw.data.loading import ResumableLoader
from thaw.features.key import feature_key
from thaw.features.table import Features, load_or_compute
from thaw.stopping import signals
from thaw.training.module import TransferModule


class CacheFeatures(pl.Callback):
    """Computes features at the start of a phase that trains the head alone, and serves them.

    The loaders keep their order; at the unfreeze they read photos again. `features` has them by
    split and number of views; None where no file could be written to `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.features: dict[tuple[str, int], Features | None] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # a run that is resumed inside an epoch does not call on_train_epoch_start for it
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            self.on_train_epoch_start(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning makes the validation loader before the first validation, not before."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        views = pl_module.phase.cached_views
        if not views:
            self.features.clear()
        train, val = trainer.train_dataloader, trainer.val_dataloaders
        for key, loader in ((("train", views), train), (("val", 1), val)):
            if isinstance(loader, ResumableLoader):
                if views and key not in self.features:
                    self.features[key] = self._load(trainer, pl_module, loader, *key)
                loader.features = self.features.get(key)

    def _load(
        self, trainer: pl.Trainer, module: TransferModule, loader: ResumableLoader, split: str,
        views: int,
    ) -> Features | None:  # fmt: skip
        dataset = cast(Any, loader.dataset)

        def make_key() -> dict[str, Any]:
            return feature_key(
                module.classifier.body, dataset, module.normalise, views=views,
                precision=str(trainer.precision), device=module.device,
            )  # fmt: skip

        def run(images: Tensor) -> Tensor:
            """(N, 3, H, W) -> (N, D), as a training step would."""
            signals.check()  # nothing of the pass is kept, so a stop need not wait for its end
            assert module.classifier.trainable == {HEAD}
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                return module.classifier.features(module.prepare(images.to(module.device)))

        started = time.perf_counter()
        try:
            features, was_there = load_or_compute(
                self.folder, make_key, loader, run, views=views,
                title=f"caching features of {split}",
            )  # fmt: skip
            size, seconds = features.table.nbytes / 1e6, time.perf_counter() - started
            message = " from cache" if was_there else f", {size:,.1f} MB in {seconds:.1f} s"
        except OSError as error:
            features, message = None, (
                f": going on without a cache, since {error}. Set paths.cache_dir to a folder "
                "with room that all ranks see, or finetune.cache_features=false"
            )  # fmt: skip
        if trainer.is_global_zero:  # above the bar, if any
            number = f"{views} view{'s' if views > 1 else ''}"
            tqdm.write(f"features  {split}: {len(dataset):,} photos x {number}{message}")
        return features
