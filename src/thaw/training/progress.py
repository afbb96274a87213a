"""Lightning callbacks that show and keep what a run does, and change nothing of it."""

import itertools
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchvision.utils import make_grid, save_image

from thaw.backbones.groups import HEAD
from thaw.features.table import view_key
from thaw.finetune.plan import Plan
from thaw.training.module import TransferModule


class Record(pl.Callback):
    """Metrics of every epoch and seconds of every phase, for results.json and the curves.

    Attributes:
        history: one dict an epoch: epoch (from 1), phase and all logged metrics.
        phases: name -> {"epochs", "seconds", "images"}; seconds include validation and the
            features that are computed, images are those of all batches, as photos or features.
        pruned: why a sweep ended the run before its time; None: it did not.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history: list[dict[str, Any]] = []
        self.phases: dict[str, dict[str, float]] = {}
        self.pruned: str | None = None
        self.images = 0
        self.started = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of the first epoch of this process."""
        self.started = time.perf_counter()
        self.images = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object,
        batch: tuple[Tensor, Tensor], batch_idx: int,
    ) -> None:  # fmt: skip
        """Counts images."""
        self.images += len(batch[1]) * trainer.world_size

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object,
        batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Counts images."""
        self.images += len(batch[1]) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the epoch to its phase, and its metrics to the history."""
        now = time.perf_counter()
        assert isinstance(pl_module, TransferModule)
        self.plan = pl_module.plan  # a plateau moves it
        phase = self.plan.phase_at(trainer.current_epoch)
        empty = {"epochs": 0, "seconds": 0.0, "images": 0}
        total = self.phases.setdefault(phase.name, empty)
        total["epochs"] += 1
        total["seconds"] += now - self.started
        total["images"] += self.images
        self.started, self.images = now, 0
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.endswith("_step")
        }
        if pl_module.mixes:  # Lightning still holds the accuracy of the last epoch without
            metrics = {
                name: value
                for name, value in metrics.items()
                if not name.startswith("train/") or name == "train/loss"
            }
        self.history.append({"epoch": trainer.current_epoch + 1, "phase": phase.name, **metrics})

    def metrics_of(self, checkpoint: str | Path | None) -> dict[str, float]:
        """Training and validation metrics of the epoch a checkpoint was saved after.

        Without a checkpoint: of the last epoch.
        """
        if not self.history:
            return {}
        epoch = self.history[-1]["epoch"]
        if checkpoint is not None:
            epoch = torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"] + 1
        row = next(row for row in self.history if row["epoch"] == epoch)
        return {name: value for name, value in row.items() if name not in ("epoch", "phase")}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Plain Python, so that a resumed run has the whole history."""
        checkpoint["record"] = {
            "history": self.history, "phases": self.phases, "pruned": self.pruned
        }  # fmt: skip

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes up where it stands; but not when the best one is loaded to be tested."""
        if trainer.state.fn == TrainerFn.FITTING and "record" in checkpoint:
            self.take(checkpoint["record"])

    def take(self, saved: dict[str, Any]) -> None:
        """Goes on from what a checkpoint holds as "record"."""
        self.history = list(saved["history"])
        self.phases = {name: dict(phase) for name, phase in saved["phases"].items()}
        self.pruned = saved.get("pruned")


class LogRates(pl.Callback):
    """Logs the learning rate of every layer group as lr/<group>."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """At the loggers' own interval, and at the first step of each epoch."""
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if batch_idx and trainer.global_step % every:
            return
        for logger in trainer.loggers:
            logger.log_metrics(current_rates(trainer), step=trainer.global_step)


class LogFirstBatch(pl.Callback):
    """A grid of the first training batch, as it is cut and turned: first_batch.png and TensorBoard.

    Attributes:
        images: how many to show.
    """

    def __init__(self, images: int = 32) -> None:
        self.images = images

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule,
        batch: tuple[Tensor, Tensor], batch_idx: int,
    ) -> None:  # fmt: skip
        """Once, at the very first step."""
        if trainer.global_step or batch_idx or not trainer.is_global_zero:
            return
        images = batch[0][: self.images]
        loader: Any = trainer.train_dataloader
        if images.ndim == 2:  # cached features: the photos that they are of
            keys = [view_key(key[0], loader.features.view(key))
                    for key in itertools.islice(iter(loader.sampler), len(images))]  # fmt: skip
            images = torch.stack([loader.dataset[key][0] for key in keys])
        images = images.detach().cpu()  # (N, 3, H, W)
        grid = make_grid(images.float(), nrow=8, normalize=True)
        save_image(grid, Path(trainer.default_root_dir) / "first_batch.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("first_batch", grid)


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with the head's learning rate and without the version number."""

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands at the right of the bar."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        assert isinstance(pl_module, TransferModule)
        if trainer.training and pl_module.shown_loss is not None:
            shown["loss"] = f"{pl_module.shown_loss:.3f}"
        rates = current_rates(trainer)
        if trainer.training and rates:
            shown["lr"] = f"{rates[f'lr/{HEAD}']:.1e}"
        return shown


def current_rates(trainer: pl.Trainer) -> dict[str, float]:
    """lr/<layer group> -> learning rate of the coming step; 0 for a frozen group."""
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
    return {f"lr/{name}": float(group["lr"]) for group in groups for name in group["layer_groups"]}
