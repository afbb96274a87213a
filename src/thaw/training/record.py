"""Callbacks that write down or show what a run does, and change nothing of it."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torchvision.utils import make_grid, save_image
from tqdm import tqdm

from thaw.backbones.groups import HEAD
from thaw.features.table import FeatureBatch, view_key
from thaw.finetune.plan import Plan
from thaw.training.measures import MODES

COLUMNS = {  # heading -> width in characters
    "epoch": 7, "phase": 10, "train loss": 10, "train acc": 9, "val loss": 8, "val acc": 7,
    "head lr": 8, "seconds": 7,
}  # fmt: skip


class Record(pl.Callback):
    """The metrics and the cost of every epoch, for results.json and the curves.

    `history` has a row for each epoch, with val/ metrics only if it was validated. Its `rates` are
    those of all layer groups in the middle of the epoch, `lr` the head's at its end; validation
    counts in `seconds` and `images`. `end` and `error` say how the run ended.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history: list[dict[str, Any]] = []
        self.has_trained = False  # whether this process did
        self.end: dict[str, str] = {"status": "finished"}  # for results.json
        self.error: Exception | None = None
        self._begin_epoch()

    def _begin_epoch(self, images: int = 0, seconds: float = 0.0, sums: Any = (0.0,) * 3) -> None:
        """Starts to count, or goes on in the epoch in which a checkpoint was saved."""
        self.images, self.sums = images, torch.tensor(sums)  # sums: see `training_step`
        self.seconds, self.started = seconds, time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.has_trained, self.started = True, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.sums = self.sums.to(outputs["sums"].device) + outputs["sums"]
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.images += len(batch[1]) * trainer.world_size

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        seconds = self.seconds + time.perf_counter() - self.started
        self.plan = pl_module.plan  # a plateau can move its phases
        phase = self.plan.phase_at(trainer.current_epoch)
        loss, right, photos = _total(trainer, self.sums)
        means = {"train/loss": loss / photos}
        if not (pl_module.mix and phase.mix):  # a mixed picture has no label to be right about
            means["train/acc"] = right / photos
        pl_module.log_dict(means, sync_dist=True)  # they are equal on all ranks
        measured = trainer.callback_metrics.items() if pl_module.is_validated else ()
        metrics = {name: float(value) for name, value in measured if name.startswith("val/")}
        self.history.append({
            "epoch": trainer.current_epoch + 1,
            "phase": phase.name,
            "lr": current_rates(trainer)[f"lr/{HEAD}"],
            "rates": {group: self.plan.learning_rate(group, trainer.current_epoch, 0.5)
                      for group in self.plan.groups},
            "seconds": round(seconds, 3),
            "images": self.images,
            **means,
            **metrics,
        })  # fmt: skip
        self._begin_epoch()

    def metrics_of(self, checkpoint: Mapping[str, Any] | None) -> dict[str, float]:
        """The metrics of the epoch that a checkpoint was saved after; None: of this run's last."""
        rows = checkpoint.get("record", {}).get("history", []) if checkpoint else self.history
        if not rows or (checkpoint and rows[-1]["epoch"] != checkpoint["epoch"] + 1):
            return {}
        return {name: value for name, value in rows[-1].items() if "/" in name}

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        seconds = self.seconds + time.perf_counter() - self.started
        epoch = {"images": self.images, "seconds": seconds, "sums": _total(trainer, self.sums)}
        checkpoint["record"] = {"history": self.history, "epoch": epoch}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("record", {})
        self.history = list(saved.get("history", []))
        self._begin_epoch(**saved.get("epoch", {}))
        self.sums *= trainer.is_global_zero  # they are of all ranks together


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
            images = torch.stack([loader.dataset[view_key(*k)][0] for k in keys[: len(images)]])
        grid = make_grid(images.detach().cpu().float(), nrow=8, normalize=True)  # (3, H, W)
        save_image(grid, Path(trainer.default_root_dir) / "first_batch.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("first_batch", grid)


class EpochTable(pl.Callback):
    """Prints rows for epochs and unfreezes to stdout, and a bar for what runs now to a terminal."""

    def __init__(self) -> None:
        self.bar = tqdm(disable=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            print("  ".join(name.rjust(width) for name, width in COLUMNS.items()), flush=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        phase = pl_module.phase
        if trainer.is_global_zero and trainer.current_epoch == phase.start > 0:
            own = {n: phase.rates[n] for n in pl_module.plan.groups[::-1] if n in phase.rates}
            span = f"lr {max(own.values()):.1e} to {min(own.values()):.1e}"
            place = f"train from epoch {phase.start + 1} on, {span}"
            print(f"--- {phase.name}: {', '.join(own)} {place} ---", flush=True)
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._start(trainer, f"training {epoch}", trainer.num_training_batches)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, "validating", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, "testing", sum(trainer.num_test_batches))

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.bar.update()

    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def on_exception(self, *_: Any, **__: Any) -> None:
        self.bar.close()

    on_test_end = on_exception

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.bar.close()
        if trainer.is_global_zero:
            history = next(each.history for each in trainer.callbacks if isinstance(each, Record))  # pyright: ignore[reportAttributeAccessIssue]
            print(_last_row(history, trainer.max_epochs, pl_module.monitor), flush=True)

    def _start(self, trainer: pl.Trainer, what: str, total: float) -> None:
        self.bar.close()
        shown = trainer.is_global_zero and sys.stderr.isatty() and not trainer.sanity_checking
        how: Any = {"leave": False, "disable": not shown, "dynamic_ncols": True}
        self.bar = tqdm(total=int(total), desc=what, unit="batches", **how)


def _last_row(history: Sequence[dict[str, Any]], max_epochs: int | None, monitor: str) -> str:
    """One line for the last epoch of `history`; "best" if it is better than all before it."""
    *before, row = history
    names = [name.replace(" ", "/") for name in list(COLUMNS)[2:6]]
    numbers = [f"{row[name]:.4f}" if name in row else "-" for name in names]
    cells = [f"{row['epoch']}/{max_epochs}", row["phase"], *numbers,
             f"{row['lr']:.1e}", f"{row['seconds']:.1f}"]  # fmt: skip
    line = "  ".join(map(str.rjust, cells, COLUMNS.values()))
    sign = 1 if MODES[monitor.partition("/")[2]] == "max" else -1
    values = [sign * other[monitor] for other in before if monitor in other]
    is_best = monitor in row and all(sign * row[monitor] > value for value in values)
    return f"{line}  best" if is_best else line


def _total(trainer: Any, sums: torch.Tensor) -> list[float]:
    """The sums of all ranks together."""
    own = sums.to(trainer.strategy.root_device, copy=True)
    return trainer.strategy.reduce(own, reduce_op="sum").tolist()


def current_rates(trainer: pl.Trainer) -> dict[str, float]:
    """lr/<layer group> -> the learning rate in the optimiser now; 0 for a frozen group."""
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
    return {f"lr/{name}": float(group["lr"]) for group in groups for name in group["layer_groups"]}
