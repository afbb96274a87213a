"""What a person sees while a run trains: one row an epoch that stays, and one bar below them."""

import sys
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from thaw.training.measures import MODES
from thaw.training.record import Record

COLUMNS = {  # heading -> width in characters
    "epoch": 7, "phase": 10, "train loss": 10, "train acc": 9, "val loss": 8, "val acc": 7,
    "head lr": 8, "seconds": 7,
}  # fmt: skip


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
            body = [name for name in reversed(pl_module.plan.groups) if name in phase.rates]
            rates = [phase.rates[name] for name in body]
            print(
                f"--- {phase.name}: {', '.join(body)} train from epoch {phase.start + 1} on, "
                f"lr {rates[0]:.1e} to {min(rates):.1e} ---",
                flush=True,
            )
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._start(trainer, f"training {epoch}", trainer.num_training_batches)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, "validating", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, "testing", sum(trainer.num_test_batches))

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.bar.update()

    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def on_exception(self, *_: Any) -> None:
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
