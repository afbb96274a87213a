"""A Lightning callback that times a run from outside: thaw's, by a setting, and the peer's.

    python train.py +callbacks.watch._target_=watch.Watch     with benchmarks/ in PYTHONPATH

It writes watch.json into the Trainer's folder.
"""

import json
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from job import Stopwatch


class Watch(pl.Callback):
    """Times the first step, each epoch and the test.

    Attributes:
        epochs: seconds of each, with its validation; of the first with all that went before.
        steps: times (time.perf_counter) at which a training step began, the last epoch's.
    """

    def __init__(self) -> None:
        self.watch = Stopwatch()
        self.epochs: list[float] = []
        self.steps: list[float] = []
        self.began = time.time()

    def on_train_start(self, *_: Any) -> None:
        self.began = time.time()

    def on_train_epoch_start(self, *_: Any) -> None:
        self.steps.clear()

    def on_train_batch_start(self, *_: Any) -> None:
        self.steps.append(time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        self.watch.step()

    def on_train_epoch_end(self, *_: Any) -> None:
        self.epochs.append(time.time() - self.began)
        self.began = time.time()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watch.seconds["trained"] = time.time() - self.watch.started
        self._write(trainer)

    def on_test_start(self, *_: Any) -> None:
        self.began = time.time()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.watch.seconds["test"] = time.time() - self.began
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        seen = {"seconds": self.watch.seconds, "epochs": self.epochs, "steps": self.steps}
        (Path(trainer.default_root_dir) / "watch.json").write_text(json.dumps(seen))
