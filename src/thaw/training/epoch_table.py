"""What a person sees while a run trains: one row an epoch that stays, and one bar below them."""

import sys
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from thaw.training.measures import MODES
from thaw.training.module import TransferModule
from thaw.training.record import Record

COLUMNS = {  # heading -> width in characters
    "epoch": 7, "phase": 10, "train loss": 10, "train acc": 9, "val loss": 8, "val acc": 7,
    "head lr": 8, "seconds": 7,
}  # fmt: skip


class EpochTable(pl.Callback):
    """Prints rows for epochs and unfreezes to stdout, and a bar for what runs now to a terminal."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.phase = ""
        self.trainer: pl.Trainer | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.trainer = trainer

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints the heading, and on a resumed run the rows of the epochs before."""
        if not trainer.is_global_zero:
            return
        module, record = _parts(trainer, pl_module)
        self._print("  ".join(name.rjust(width) for name, width in COLUMNS.items()))
        for place, row in enumerate(record.history):
            self._print(_row(row, record.history[:place], trainer, module))
        self.phase = module.plan.phase_at(max(0, trainer.current_epoch - 1)).name

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        module, _ = _parts(trainer, pl_module)
        phase = module.phase
        if trainer.is_global_zero and phase.name != self.phase:
            body = [name for name in reversed(module.plan.groups) if name in phase.rates]
            rates = [phase.rates[name] for name in body]
            self._print(
                f"--- {phase.name}: {', '.join(body)} train from epoch {phase.start + 1} on, "
                f"lr {rates[0]:.1e} to {min(rates):.1e} ---"
            )
        self.phase = phase.name
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._start(trainer, f"training {epoch}", trainer.num_training_batches)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, "validating", sum(trainer.num_val_batches))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer, "testing", sum(trainer.num_test_batches))

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._update(batch_idx + 1)

    on_validation_batch_end = on_test_batch_end = on_train_batch_end

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def on_caching(self, split: str, done: int, total: int) -> None:
        """Shows how far the features of a split are; `CacheFeatures` calls it."""
        assert self.trainer is not None
        if done == 0:
            self._start(self.trainer, f"caching features of {split}", total, unit="photos")
        self._update(done)
        if done == total:
            self._close()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()
        if trainer.is_global_zero:
            module, record = _parts(trainer, pl_module)
            self._print(_row(record.history[-1], record.history[:-1], trainer, module))

    def _start(self, trainer: pl.Trainer, what: str, total: float, unit: str = "batches") -> None:
        self._close()
        shown = trainer.is_global_zero and sys.stderr.isatty() and not trainer.sanity_checking
        how: Any = {"leave": False, "disable": not shown, "dynamic_ncols": True}
        self.bar = tqdm(total=int(total), desc=what, unit=unit, **how)

    def _update(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def _print(self, line: str) -> None:
        self._close()
        print(line, flush=True)


def _row(
    row: dict[str, Any], before: list[dict[str, Any]], trainer: pl.Trainer, module: TransferModule
) -> str:
    """One line of the table; "best" marks an epoch that is better than all `before` it."""
    values = {
        "epoch": f"{row['epoch']}/{trainer.max_epochs}",
        "phase": row["phase"],
        **{name: _number(row, name.replace(" ", "/")) for name in list(COLUMNS)[2:6]},
        "head lr": f"{row['lr']:.1e}",
        "seconds": f"{row['seconds']:.1f}",
    }
    line = "  ".join(values[name].rjust(width) for name, width in COLUMNS.items())
    if (monitor := module.monitor) not in row:
        return line
    sign = 1 if MODES[monitor.partition("/")[2]] == "max" else -1
    earlier = [sign * other[monitor] for other in before if monitor in other]
    return f"{line}  best" if all(sign * row[monitor] > value for value in earlier) else line


def _number(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.4f}" if name in row else "-"


def _parts(trainer: pl.Trainer, module: pl.LightningModule) -> tuple[TransferModule, Record]:
    assert isinstance(module, TransferModule)
    callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return module, next(callback for callback in callbacks if isinstance(callback, Record))
