"""Ends jobs of a sweep that fall behind the others, whatever sweeper and launcher there are.

Hydra's Optuna plugin gives a job no trial to report to, so the jobs read each other's history.json.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl

from thaw.errors import ConfigError, shown
from thaw.training.metrics import MODES
from thaw.training.module import TransferModule
from thaw.training.progress import Record

Rows = Sequence[Mapping[str, Any]]  # of history.json


def falls_behind(values: Sequence[float], others: Sequence[float]) -> bool:
    """The median stopping rule: the best so far is worse than the median of the others.

    As optuna.pruners.MedianPruner has it: against the others' values at this epoch, where Golovin
    et al. 2017 (Google Vizier, section 3.2.2) take their means up to it.

    Args:
        values: of the run, one an epoch, larger is better; nan counts as worst.
        others: values of other runs at the same epoch.
    """
    known = [value for value in values if not math.isnan(value)]
    compared = [value for value in others if not math.isnan(value)]
    if not compared:
        return False
    return not known or max(known) < median(compared)


def last_phase(rows: Rows) -> int:
    """The epoch at which the last phase of a finished run began."""
    return next(row["epoch"] for row in rows if row["phase"] == rows[-1]["phase"])


def value_at(rows: Rows, epoch: int, monitor: str) -> float | None:
    """A finished run's metric at an epoch of its last phase; None before it and after the end."""
    row = next((row for row in rows if row["epoch"] == epoch), None)
    if row is None or epoch < last_phase(rows):
        return None
    return float(row[monitor]) if monitor in row else None


class PruneByMedian(pl.Callback):
    """Stops the run when it is worse than half of the sweep's finished jobs at this epoch.

    Like is held against like: a run is judged in its last phase only, and against those that were
    in their last phase at that epoch too. Else one that unfreezes late, which may well end best,
    would be stopped for not being unfrozen yet. Pruned jobs do not count, as in Optuna.

    For sweeps over settings of one task: data and max_epochs should be the same in all jobs.

    Attributes:
        startup_jobs: others that there must be to compare with.
        warmup_epochs: epochs of the last phase before the first judgement.
    """

    def __init__(self, startup_jobs: int = 5, warmup_epochs: int = 1) -> None:
        for name, value, least in (("startup_jobs", startup_jobs, 1),
                                   ("warmup_epochs", warmup_epochs, 0)):  # fmt: skip
            if not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"callbacks.prune.{name}={shown(value)}: allowed is a whole number from {least}"
                )
        self.startup_jobs = startup_jobs
        self.warmup_epochs = warmup_epochs

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses to do nothing.

        Raises:
            ConfigError: the run is of no sweep, or has no validation.
        """
        sweep = Path(trainer.default_root_dir).parent
        if stage == "fit" and not (sweep / "multirun.yaml").is_file():
            raise ConfigError(
                "callbacks.prune: compares a job with the others of its sweep, and this run is of "
                "none; start a sweep with -m, or choose callbacks=default"
            )
        if stage == "fit" and trainer.limit_val_batches == 0:  # so too without validation photos
            raise ConfigError(
                "callbacks.prune: goes by a validation metric, and nothing is validated; set "
                "data.val_fraction=0.2 and no trainer.limit_val_batches=0, or choose "
                "callbacks=default"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was killed after it was pruned does not train on."""
        if _record(trainer).pruned:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judges, when the epoch is whole; all ranks stop together."""
        record = _record(trainer)
        verdict = trainer.strategy.broadcast(self._judge(trainer, pl_module, record.history))
        if verdict:
            record.pruned = verdict
            trainer.should_stop = True
            if trainer.is_global_zero:
                print(f"\npruned: {verdict}")

    def _judge(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, history: Rows
    ) -> str | None:
        assert isinstance(pl_module, TransferModule)
        epoch, monitor = trainer.current_epoch, pl_module.monitor
        ended = epoch + 1 == trainer.max_epochs
        if ended or epoch - pl_module.plan.phases[-1].start < self.warmup_epochs:
            return None
        if monitor not in history[-1]:
            return None  # not yet validated: trainer.check_val_every_n_epoch
        sign = 1 if MODES[monitor.partition("/")[2]] == "max" else -1
        values = [sign * row[monitor] for row in history if monitor in row]
        found = [
            value_at(rows, epoch, monitor) for rows in finished(Path(trainer.default_root_dir))
        ]
        others = [sign * value for value in found if value is not None]
        if len(others) < self.startup_jobs or not falls_behind(values, others):
            return None
        return (
            f"epoch {epoch}: best {monitor} {sign * max(values):.4f}, "
            f"median of {len(others)} jobs {sign * median(others):.4f}"
        )


def finished(folder: Path) -> list[Rows]:
    """Histories of the finished jobs beside a job's folder, pruned ones left out."""
    histories = []
    for file in sorted(folder.parent.glob("*/results.json")):
        history = file.with_name("history.json")
        if file.parent == folder or not history.is_file():
            continue
        if json.loads(file.read_text(encoding="utf-8")).get("pruned"):
            continue
        rows = json.loads(history.read_text(encoding="utf-8"))
        if rows:
            histories.append(rows)
    return histories


def _record(trainer: pl.Trainer) -> Record:
    callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return next(callback for callback in callbacks if isinstance(callback, Record))
