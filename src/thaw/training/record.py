"""Callbacks that write down what a run does and change nothing of it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from torchvision.utils import make_grid, save_image

from thaw.backbones.groups import HEAD
from thaw.features.table import FeatureBatch, view_key
from thaw.finetune.plan import Plan


class Record(pl.Callback):
    """The metrics of every epoch and the cost of every phase, for results.json and the curves.

    `history` has a row for each epoch; in it are val/ metrics only if the epoch was validated.
    `phases` has epochs, seconds and images by the name of a phase; validation counts too.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history: list[dict[str, Any]] = []
        self.phases: dict[str, dict[str, float]] = {}
        self.images = 0
        self.is_validated = False  # whether this epoch is
        self.started = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()
        self.images = 0

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.images += len(batch[1]) * trainer.world_size

    on_validation_batch_end = on_train_batch_end

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        now = time.perf_counter()
        seconds = now - self.started
        self.plan = pl_module.plan  # a plateau can move its phases
        phase = self.plan.phase_at(trainer.current_epoch)
        total = self.phases.setdefault(phase.name, {"epochs": 0, "seconds": 0.0, "images": 0})
        for name, more in (("epochs", 1), ("seconds", seconds), ("images", self.images)):
            total[name] += more
        self.started, self.images = now, 0
        mixed = pl_module.mixes  # a mixed picture has no label, so no accuracy of this epoch
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.endswith("_step") and not (mixed and name == "train/acc")
            and (self.is_validated or not name.startswith("val/"))  # else of an epoch before
        }  # fmt: skip
        self.is_validated = False
        self.history.append({
            "epoch": trainer.current_epoch + 1,
            "phase": phase.name,
            "lr": current_rates(trainer)[f"lr/{HEAD}"],
            "seconds": round(seconds, 3),
            **metrics,
        })  # fmt: skip

    def metrics_of(self, checkpoint: Mapping[str, Any] | None) -> dict[str, float]:
        """Gives the train/ and val/ metrics of the epoch that a checkpoint was saved after.

        None is the last epoch of this run. A checkpoint from inside an epoch has no metrics.
        """
        rows = checkpoint.get("record", {}).get("history", []) if checkpoint else self.history
        if not rows or (checkpoint and rows[-1]["epoch"] != checkpoint["epoch"] + 1):
            return {}
        return {name: value for name, value in rows[-1].items() if "/" in name}

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["record"] = {"history": self.history, "phases": self.phases}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Goes on from the saved record when a run is resumed, but not when it is only tested."""
        if trainer.state.fn == TrainerFn.FITTING and "record" in checkpoint:
            saved = checkpoint["record"]
            self.history = list(saved["history"])
            self.phases = {name: dict(phase) for name, phase in saved["phases"].items()}


class LogFirstBatch(pl.Callback):
    """Draws the first training batch, augmented as it is: first_batch.png and TensorBoard."""

    def __init__(self, images: int = 32) -> None:
        self.images = images

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step or batch_idx or not trainer.is_global_zero:
            return
        images, loader = batch[0][: self.images], trainer.train_dataloader
        if isinstance(batch, FeatureBatch):  # show the photos that they were computed from
            keys = [(key[0], loader.features.view(key)) for key in next(loader.keys())]
            photos = [loader.dataset[view_key(*key)][0] for key in keys[: len(images)]]
            images = torch.stack(photos)
        grid = make_grid(images.detach().cpu().float(), nrow=8, normalize=True)  # (3, H, W)
        save_image(grid, Path(trainer.default_root_dir) / "first_batch.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("first_batch", grid)


def current_rates(trainer: pl.Trainer) -> dict[str, float]:
    """lr/<layer group> -> the learning rate in the optimiser now; 0 for a frozen group."""
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
    return {f"lr/{name}": float(group["lr"]) for group in groups for name in group["layer_groups"]}
