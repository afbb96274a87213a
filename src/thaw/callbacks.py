"""Lightning callbacks: they say when; what to do is written elsewhere, in pure functions."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchvision.utils import make_grid, save_image

from thaw.classifier import HEAD, Classifier
from thaw.errors import ConfigError, Interrupted
from thaw.plan import Phase, Plan, plan_table


class ApplyPlan(pl.Callback):
    """Sets what trains at the start of each epoch, from the plan and the epoch alone.

    Holds no state: on a resumed run the epoch says all. Lightning's BaseFinetuning, which keeps
    what it unfroze in the optimiser and the checkpoint, loses it on resume (facts.md, PL 21901).
    """

    def __init__(self, plan: Plan, notes: Sequence[str] = ()) -> None:
        self.plan = plan
        self.notes = notes  # lines to print with the plan
        self.wrapped: frozenset[str] | None = None  # groups known to the DDP wrapper

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses, before training, strategies in which an unfreeze is not proven right.

        Raises:
            ConfigError: names the strategy.
        """
        if stage == "fit" and type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            raise ConfigError(
                f"trainer.strategy={type(trainer.strategy).__name__}: thaw unfreezes under auto "
                "(one device) and ddp; use trainer=default or trainer=ddp"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints and saves the plan, and applies it: a run resumed inside an epoch has no start."""
        if trainer.is_global_zero:
            model = _classifier(pl_module)
            table = plan_table(self.plan, model, steps_per_epoch(trainer))
            text = "\n".join([*self.notes, table])
            print(f"\n{text}\n")
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "plan.txt").write_text(text + "\n", encoding="utf-8")
        self._apply(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Applies the epoch's phase."""
        self._apply(trainer, pl_module)

    def _apply(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        phase = self.plan.phase_at(trainer.current_epoch)
        model = _classifier(pl_module)
        model.set_trainable(phase.rates.keys(), phase.batchnorm)
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy) and self.wrapped != model.trainable:
            # DDP averages the gradients of those parameters only that took one when it wrapped the
            # model; without this each rank trains a body of its own (PL 20340, facts.md).
            strategy.model = strategy._setup_model(pl_module)
            strategy._register_ddp_hooks()
            self.wrapped = model.trainable


class Record(pl.Callback):
    """Metrics of every epoch and seconds of every phase, for results.json and the curves.

    Attributes:
        history: one dict an epoch: epoch, phase, lr of the head, and all logged metrics.
        phases: name -> {"epochs", "seconds", "images"}; seconds include validation, images are
            those that went through the model in training and validation.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.history: list[dict[str, Any]] = []
        self.phases: dict[str, dict[str, float]] = {}
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
        phase = self.plan.phase_at(trainer.current_epoch)
        empty = {"epochs": 0, "seconds": 0.0, "images": 0}
        total = self.phases.setdefault(phase.name, empty)
        total["epochs"] += 1
        total["seconds"] += now - self.started
        total["images"] += self.images
        self.started, self.images = now, 0
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.history.append({"epoch": trainer.current_epoch, "phase": phase.name, **metrics})

    def metrics_of(self, checkpoint: str | Path | None) -> dict[str, float]:
        """Training and validation metrics of the epoch a checkpoint was saved after.

        Without a checkpoint: of the last epoch.
        """
        if not self.history:
            return {}
        epoch = self.history[-1]["epoch"]
        if checkpoint is not None:
            epoch = torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"]
        row = next(row for row in self.history if row["epoch"] == epoch)
        return {name: value for name, value in row.items() if name not in ("epoch", "phase")}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Plain Python, so that a resumed run has the whole history."""
        checkpoint["record"] = {"history": self.history, "phases": self.phases}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes up where it stands; but not when the best one is loaded to be tested."""
        if trainer.state.fn == TrainerFn.FITTING and "record" in checkpoint:
            self.history = list(checkpoint["record"]["history"])
            phases: dict[str, dict[str, float]] = checkpoint["record"]["phases"]
            self.phases = {name: dict(phase) for name, phase in phases.items()}


class GracefulStop(pl.Callback):
    """On Ctrl-C or SIGTERM: finish the step, save a checkpoint, stop. Twice: stop at once.

    Between two steps weights, optimiser and counters agree, which they do not in the middle of one.
    After an epoch's last step validation still follows, and a run resumed from there would go
    without it; then the stop comes one step into the next epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "interrupted.ckpt"
        self.asked = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over both signals. Lightning, which has set its own before, gives all signals back
        when training ends or fails."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        name = signal.Signals(number).name
        print(f"\n{name}: stopping, with a checkpoint; once more stops at once")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object,
        batch: object, batch_idx: int,
    ) -> None:  # fmt: skip
        """Saves and stops, on all ranks together.

        Raises:
            Interrupted: with the checkpoint's path.
        """
        asked = self.asked
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            trainer.save_checkpoint(self.path)
            raise Interrupted(self.path)


class SaveLast(Checkpoint):
    """last.ckpt after every epoch, to resume from.

    Lightning's `ModelCheckpoint(save_last=True)` writes it only when the epoch is also one of the
    best (2.6.6), so that a killed run would lose every epoch since. A Checkpoint, since these come
    after all other callbacks, in their order in the configuration: so what ModelCheckpoint knows is
    in the file.
    """

    def __init__(self, dirpath: str) -> None:
        self.path = Path(dirpath) / "last.ckpt"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves, when the epoch is whole."""
        trainer.save_checkpoint(self.path)


class StopEarly(EarlyStopping):
    """Lightning's EarlyStopping, which here cannot fire before the last phase has begun.

    A frozen body reaches its best in a few epochs; patience counted from there would end the run
    before the body is ever trained.
    """

    plan: Plan | None = None  # set by train.py

    def check(self, plan: Plan) -> None:
        """Refuses a patience that can never fire.

        Raises:
            ConfigError: names both settings.
        """
        last: Phase = plan.phases[-1]
        self.plan = plan
        if self.patience >= last.epochs:
            raise ConfigError(
                f"callbacks.early_stopping.patience={self.patience}: has no effect, since the last "
                f"phase ({last.name}) has {last.epochs} epochs; allowed is 0 to {last.epochs - 1}, "
                "or callbacks=default for no early stopping"
            )

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        if self.plan is None or trainer.current_epoch >= self.plan.phases[-1].start:
            super()._run_early_stopping_check(trainer)


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
    """A grid of the first training batch, as the network sees it: first_batch.png and TensorBoard.

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
        images = batch[0][: self.images].detach().float().cpu()  # (N, 3, H, W)
        grid = make_grid(images, nrow=8, normalize=True, scale_each=False)
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
        rates = current_rates(trainer)
        if trainer.training and rates:
            shown["lr"] = f"{rates[f'lr/{HEAD}']:.1e}"
        return shown


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Optimiser steps in an epoch."""
    epochs = trainer.max_epochs
    assert epochs is not None
    return max(1, int(trainer.estimated_stepping_batches) // epochs)


def current_rates(trainer: pl.Trainer) -> dict[str, float]:
    """lr/<layer group> -> learning rate of the coming step; 0 for a frozen group."""
    groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
    return {f"lr/{group['layer_group']}": float(group["lr"]) for group in groups}


def _classifier(pl_module: nn.Module) -> Classifier:
    model = pl_module.classifier
    assert isinstance(model, Classifier)
    return model
