"""How a run ends: with its last epoch, or with a word about why not."""

import re
import shlex
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.loggers import TensorBoardLogger

from thaw.errors import ThawError
from thaw.store import last_checkpoints
from thaw.training.checkpoints import best_checkpoint
from thaw.training.module import TransferModule
from thaw.training.record import Record

FEW = 5  # optimiser steps in a row whose loss may be no number


class DivergedError(ThawError):
    """The loss is no longer a number, so nothing that follows can be."""


def fit(trainer: Any, module: TransferModule, data: Any, start: Any, record: Record) -> str | None:
    """Trains from the checkpoint `start`, or anew; gives the best one, and the record the end."""
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger):  # which takes them with the last metrics
            logger.log_hyperparams(module.hparams["config"])
    try:
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
        record.end = what_ended(trainer, record)
    except DivergedError as error:
        record.end, record.error = {"status": "diverged", "ended": str(error)}, error
    except (MemoryError, RuntimeError) as error:
        if words := in_words(error, trainer, module):
            raise ThawError(words) from error
        raise
    if trainer.is_global_zero:  # of SLURM's requeue: Lightning would load it again for the test
        for path in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
            path.unlink()
    trainer.strategy.barrier()
    best = best_checkpoint(trainer.callbacks, module.monitor)
    if record.error and not best:
        raise record.error
    return best


class StopDiverged(pl.Callback):
    """Ends a run whose loss was not finite in more than `FEW` optimiser steps in a row.

    The loss tells it: gradients that are not finite make the weights so, unless fp16 skips them.
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
        if not trainer.strategy.reduce_boolean_decision(bool(self.batches > most), all=False):
            return
        phase, folder = pl_module.phase, trainer.default_root_dir
        key = "frozen.lr" if phase.name == "frozen" else "unfrozen.lr"
        key = "phases" if pl_module.plan.mode == "phases" else key
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        other = "" if trainer.precision == "32-true" else " or trainer.precision=32-true"
        go_on = f"; resume={folder} goes on from before" if last_checkpoints(folder) else ""
        raise DivergedError(
            f"diverged in epoch {trainer.current_epoch + 1}, step {trainer.global_step}, phase "
            f"{phase.name}: the loss is not finite, at rate {rate:.1e}. Set finetune.{key} lower "
            f"than lr={phase.lr:g}{other}{go_on}"
        )


def what_ended(trainer: Any, record: Record) -> dict[str, str]:
    """How a run ended that no error did, for results.json."""
    epochs, planned = trainer.current_epoch, trainer.max_epochs
    if epochs == planned and not record.has_trained:
        ended = f"nothing was left to train after {epochs} epochs; set trainer.max_epochs higher"
        return {"status": "finished", "ended": f"{ended} to go on, or train=false to test only"}
    if epochs == planned and trainer.is_last_batch:
        return {"status": "finished"}
    by = "trainer.max_steps" if trainer.global_step == trainer.max_steps else "a callback"
    for callback in trainer.callbacks:
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0:
            by = "trainer.max_time"
        elif isinstance(callback, EarlyStopping) and callback.stopped_epoch:
            by = "early stopping"
    ended = f"by {by} in epoch {epochs}; {planned} epochs were planned"
    return {"status": "ended early", "ended": ended}


def in_words(error: Exception, trainer: Any, module: TransferModule) -> str | None:
    """Out of memory, with the command that goes on with what fits; or another rank that is gone."""
    folder, command = trainer.default_root_dir, "<the same command>"
    if last_checkpoints(folder):
        command = f"python train.py {shlex.quote(f'resume={folder}')}"
    if trainer.world_size > 1 and re.search("gloo|NCCL", str(error)):
        said = " ".join(str(error).split())  # NCCL says the cause in its last line
        return f"another process of this run has ended, this one too; start {command} ({said})"
    full = re.search("out of memory|can't allocate memory|ALLOC_FAILED", str(error))
    full = full or isinstance(error, MemoryError | torch.OutOfMemoryError)
    if not full or trainer.train_dataloader is None:  # none yet: the weights do not fit
        return None
    batch, every = trainer.train_dataloader.batch_size, 2 * trainer.accumulate_grad_batches
    return (
        f"out of memory in epoch {trainer.current_epoch + 1}, phase {module.phase.name}, with "
        f"data.batch_size={batch}. Go on with half of it and as many images a step: {command} "
        f"data.batch_size={max(1, batch // 2)} trainer.accumulate_grad_batches={every}"
    )
