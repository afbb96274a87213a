"""How a run ends: with its last epoch, or with a word about why not."""

from importlib import import_module
from typing import Any

import lightning.pytorch as pl

from thaw.errors import ThawError
from thaw.training.checkpoints import best_checkpoint
from thaw.training.module import TransferModule
from thaw.training.record import Record

FEW = 5  # optimiser steps in a row whose loss may be no number


class DivergedError(ThawError):
    """The loss is no longer a number, so nothing that follows can be."""


def fit(trainer: Any, module: TransferModule, data: Any, start: Any, record: Record) -> str | None:
    """Trains from the checkpoint `start`, or anew; gives the best one, and the record the end.

    Raises:
        ThawError: out of memory, another rank has ended, or diverged before any validation.
    """
    try:
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
        is_whole = record.has_trained and trainer.is_last_batch
        if not is_whole or trainer.current_epoch != trainer.max_epochs:
            record.end = import_module("thaw.training.early").what_ended(trainer, record)
    except DivergedError as error:
        record.end, record.error = {"status": "diverged", "ended": str(error)}, error
    except (MemoryError, RuntimeError) as error:
        if words := import_module("thaw.training.early").in_words(error, trainer, module):
            raise ThawError(words) from error
        raise
    best = best_checkpoint(trainer.callbacks, module.monitor)
    if not best:
        record.check()
    return best


class StopDiverged(pl.Callback):
    """Ends a run whose loss was not finite in more than `FEW` optimiser steps in a row.

    The loss is enough: gradients that are not finite make the weights so, and these the next loss.
    But fp16 skips steps with such gradients until it has found its scale; there the loss is finite.
    """

    def __init__(self) -> None:
        self.batches: Any = 0  # in a row; a tensor, since reading one at each step slows a GPU down

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches = (self.batches + 1) * ~outputs["sums"][0].isfinite()
        if (batch_idx + 1) % FEW and not trainer.is_last_batch:
            return
        ends = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        most = 0 if ends else FEW * trainer.accumulate_grad_batches
        if trainer.strategy.reduce_boolean_decision(bool(self.batches > most), all=False):
            words = import_module("thaw.training.early").diverged(trainer, pl_module)
            raise DivergedError(words)
