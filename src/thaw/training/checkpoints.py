"""Lightning callbacks that write checkpoints: when the user stops a run, and to go on from."""

import math
import signal
import time
from pathlib import Path
from types import FrameType

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from thaw.errors import ConfigError, Interrupted, shown


class GracefulStop(Checkpoint):
    """On Ctrl-C or SIGTERM: finish the step, save a checkpoint, stop. Twice: stop at once.

    A Checkpoint, since these come after all other callbacks: an average of the weights has this
    step in it then.

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
        # gradients that wait for further batches are in no checkpoint
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if asked and between_steps and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path)
            raise Interrupted(self.path)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Asked in the very last step: stops before the test, and before a sweep's next run.

        Raises:
            Interrupted: with the checkpoint's path.
        """
        if self.asked:
            trainer.save_checkpoint(self.path)
            raise Interrupted(self.path)


class SaveLast(Checkpoint):
    """last.ckpt after every epoch, to resume from; after some of them where epochs are short.

    Lightning's `ModelCheckpoint(save_last=True)` writes it only when the epoch is also one of the
    best (2.6.6), so that a killed run would lose every epoch since. A Checkpoint, since these come
    after all other callbacks, in their order in the configuration: so what ModelCheckpoint knows is
    in the file.
    """

    def __init__(self, dirpath: str, every_seconds: float = 2.0) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        if not isinstance(every_seconds, int | float) or every_seconds < 0:
            key = f"callbacks.last.every_seconds={shown(every_seconds)}"
            raise ConfigError(f"{key}: allowed is 0 or more seconds")
        self.every_seconds = every_seconds
        self.saved = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves, when the epoch is whole; the last one always."""
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = time.monotonic() - self.saved >= self.every_seconds
        if trainer.strategy.broadcast(ends or due):  # one clock for all ranks
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()
