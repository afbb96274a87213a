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
    """Lightning's ModelCheckpoint, whose memory survives that the run's folder is moved.

    Lightning saves absolute paths, and forgets the best checkpoint when the folder has another
    name on resume (Lightning issue 11379); here the names of the files are saved.
    """

    def state_dict(self) -> dict[str, Any]:
        """The state with file names in place of paths."""
        return _with_paths(super().state_dict(), lambda path: Path(path).name)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Finds the files in this run's folder.

        Where the best one is not there, as with ckpt_path=FILE of another run, it starts anew.
        """
        folder = Path(str(self.dirpath))
        state = _with_paths(state_dict, lambda name: str(folder / Path(name).name))
        if Path(state["best_model_path"]).is_file():
            super().load_state_dict({**state, "dirpath": str(self.dirpath)})


def _with_paths(state: dict[str, Any], change: Any) -> dict[str, Any]:
    """The state of a ModelCheckpoint with each path changed; empty ones mean "none" and stay."""
    changed = dict(state)
    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        changed[key] = change(state[key]) if state.get(key) else state.get(key)
    changed["best_k_models"] = {change(p): score for p, score in state["best_k_models"].items()}
    return changed


def best_checkpoint(callbacks: Iterable[pl.Callback], monitor: str) -> str | None:
    """The checkpoint of the best epoch, whatever else the callbacks save.

    Args:
        callbacks: of the trainer.
        monitor: the validation metric that decides; where nothing is validated, a ModelCheckpoint
            that monitors nothing holds the last epoch.

    Returns:
        Its path; None where no callback saved the best epoch, so that the last weights count.
    """
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor in (monitor, None):
            return callback.best_model_path or None
    return None


class GracefulStop(Checkpoint):
    """On Ctrl-C or SIGTERM: finishes the step, saves a checkpoint and stops. Twice: stops at once.

    Between two steps the weights, the optimiser and the counters agree; in the middle of one they
    do not. After the last step of an epoch the validation still follows, and a run resumed from
    there would skip it; so then the stop comes one step into the next epoch.

    It is a Checkpoint, since Lightning calls these after all other callbacks: an average of the
    weights has this step in it by then.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "interrupted.ckpt"
        self.requested = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handles both signals; Lightning restores the handlers when training ends or fails."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        name = signal.Signals(number).name
        print(f"\n{name}: saving a checkpoint, then stopping; once more stops at once")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object,
        batch: object, batch_idx: int,
    ) -> None:  # fmt: skip
        """Saves and stops, on all ranks together.

        Raises:
            Interrupted: with the checkpoint's path.
        """
        requested = self.requested
        if trainer.world_size > 1:
            requested = trainer.strategy.reduce_boolean_decision(requested, all=False)
        # gradients that wait for further batches are in no checkpoint
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if requested and between_steps and not trainer.is_last_batch:
            self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A signal in the very last step stops before the test and before a sweep's next run.

        Raises:
            Interrupted: with the checkpoint's path.
        """
        if self.requested:
            self._stop(trainer)

    def _stop(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        raise Interrupted(self.path)


class SaveLast(Checkpoint):
    """Writes last.ckpt after every epoch, to resume from; where epochs are short, after some.

    Lightning's `ModelCheckpoint(save_last=True)` writes it only when the epoch is also one of the
    best (2.6.6), so a killed run would lose every epoch since then.
    """

    def __init__(self, dirpath: str, every_seconds: float = 2.0) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.every_seconds = every_seconds
        self.saved = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the epoch when it is whole; the last epoch always."""
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = time.monotonic() - self.saved >= self.every_seconds
        if trainer.strategy.broadcast(ends or due):  # one clock decides for all ranks
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()
