"""Callbacks that write checkpoints: the best one, the last one, and one when the run is stopped."""

import math
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from thaw.errors import Interrupted


class SaveBest(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which saves only weights that were validated as they are.

    It still knows its files when the run's folder was moved. Lightning saves absolute paths and
    forgets them then (Lightning issue 11379); here they are looked for in this run's folder. If the
    best one is not there, as after ckpt_path=FILE of another run, the search starts anew.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.monitor is None or pl_module.is_validated:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        state = {**state_dict, "dirpath": str(self.dirpath)}
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved(state[key])
        state["best_k_models"] = {moved(k): score for k, score in state["best_k_models"].items()}
        if Path(state["best_model_path"]).is_file():
            super().load_state_dict(state)


def best_checkpoint(callbacks: Iterable[pl.Callback], monitor: str) -> str | None:
    """Gives the file of the best epoch by `monitor`; None: none was saved, the last weights count.

    Without validation photos, the `SaveBest` that monitors nothing holds the last epoch.
    """
    for callback in callbacks:
        known = (monitor, None) if isinstance(callback, SaveBest) else (monitor,)
        if isinstance(callback, ModelCheckpoint) and callback.monitor in known:
            return callback.best_model_path or None
    return None


class GracefulStop(Checkpoint):
    """On Ctrl-C or SIGTERM: finishes the step, saves a checkpoint and stops. Twice: stops at once.

    Between two steps the weights, the optimiser and the counters agree; in the middle of one they
    do not. After the last step of an epoch, the validation comes first, since a run resumed from
    there would skip it.

    It is a Checkpoint and the last callback, since Lightning calls these after all others: by then
    an average of the weights has this step in it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "interrupted.ckpt"
        self.requested = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning restores the handlers when training ends or fails
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        name = signal.Signals(number).name
        print(f"\n{name}: saving a checkpoint, then stopping; once more stops at once")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # gradients that wait for further batches are in no checkpoint
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if between_steps and not trainer.is_last_batch and self._is_requested(trainer):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_requested(trainer):
            self._stop(trainer)

    def _is_requested(self, trainer: pl.Trainer) -> bool:
        """Whether any rank got a signal; all ranks must ask together."""
        return trainer.strategy.reduce_boolean_decision(self.requested, all=False)

    def _stop(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        raise Interrupted(self.path)


class SaveLast(Checkpoint):
    """Writes last.ckpt after every epoch, to resume from; where epochs are short, after some.

    Not after an epoch whose loss is no number: nothing good goes on from there.

    Lightning's `ModelCheckpoint(save_last=True)` writes it only when the epoch is also one of the
    best (2.6.6), so a killed run would lose every epoch since then.
    """

    def __init__(self, dirpath: str, every_seconds: float = 2.0) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_seconds = every_seconds
        self.saved = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not math.isfinite(trainer.callback_metrics.get("train/loss", 0)):
            return
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = time.monotonic() - self.saved >= self.every_seconds
        if trainer.strategy.broadcast(ends or due):  # one clock decides for all ranks
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()
