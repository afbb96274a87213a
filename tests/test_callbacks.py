"""Callbacks on a small network: what they record, refuse, log and give back."""

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from models import small_classifier
from torch import Tensor

from thaw.errors import Interrupted
from thaw.finetune.builder import build_plan
from thaw.finetune.plan import Plan
from thaw.stopping import signals
from thaw.training.callbacks import ApplyPlan
from thaw.training.checkpoints import GracefulStop, SaveLast
from thaw.training.early_stopping import StopEarly
from thaw.training.module import TransferModule
from thaw.training.record import Record, current_rates

GROUPS = small_classifier().groups
NAMES = ("conv", "low", "middle", "deep", "head")
STILL: dict[str, Any] = {"lr": 1e-12, "schedule": "constant"}  # a rate at which nothing changes
BATCH, STEPS = 4, 3  # images, batches in an epoch
IMAGES = torch.randn(BATCH, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def two_phases(epochs: int = 3, unfreeze: int = 1, frozen: Any = None) -> Plan:
    return build_plan(
        GROUPS, epochs, mode="freeze_unfreeze", unfreeze_epoch=unfreeze, frozen=frozen or STILL,
        unfrozen=STILL, lr_decay=0.5, batchnorm="eval", depthwise="train",
    )  # fmt: skip


class Batches:
    """The same batch some times an epoch; with wrong labels in odd epochs, if these are given."""

    def __init__(self, labels: Tensor, number: int, wrong: Tensor | None = None) -> None:
        self.labels = (labels, labels if wrong is None else wrong)
        self.number = number
        self.epoch = 0

    def __len__(self) -> int:
        return self.number

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        labels = self.labels[self.epoch % 2]
        self.epoch += 1
        return iter([(IMAGES, labels)] * self.number)


def fit(folder: Path, plan: Plan, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    """Trains the small network by a plan, on labels that it gives itself."""
    model = small_classifier()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        labels = model.eval()(IMAGES).argmax(1)  # (N,)
    model.train()
    module = TransferModule(
        model, plan, torch.optim.SGD, classes=("a", "b", "c", "d"), normalise=torch.nn.Identity()  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=plan.phases[-1].end, accelerator="cpu", default_root_dir=folder,
        callbacks=[ApplyPlan(), *callbacks], enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
        **{"logger": False, "log_every_n_steps": 1, "enable_checkpointing": False, **settings},
    )  # fmt: skip
    trainer.fit(module, Batches(labels, STEPS, wrong=(labels + 1) % 4), Batches(labels, 1))
    return trainer


def test_history_has_the_metrics_of_its_own_epoch(tmp_path: Path) -> None:
    """Labels are right in one epoch and wrong in the next."""
    right: dict[int, list[float]] = {}

    class Count(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, _: Any, batch: Any, *__: Any):
            best = module(IMAGES).argmax(1)
            right.setdefault(trainer.current_epoch, []).append(float((best == batch[1]).all()))

    record = Record(plan := two_phases())
    fit(tmp_path, plan, record, Count())
    assert set(map(tuple, right.values())) == {(0,) * STEPS, (1,) * STEPS}
    assert [row["epoch"] for row in record.history] == [1, 2, 3]
    assert [row["phase"] for row in record.history] == ["frozen", "unfrozen", "unfrozen"]
    assert [row["train/acc"] for row in record.history] == [right[epoch][0] for epoch in range(3)]
    assert [row["val/acc"] for row in record.history] == [1, 1, 1]
    assert len({frozenset(row) for row in record.history}) == 1


def test_rows_count_images_of_training_and_validation(tmp_path: Path) -> None:
    record = Record(plan := two_phases())
    fit(tmp_path, plan, record)
    assert [row["images"] for row in record.history] == [16, 16, 16]
    assert all(row["seconds"] > 0 for row in record.history)


def test_the_record_has_the_metrics_of_the_checkpoints_epoch() -> None:
    record = Record(two_phases())
    assert record.metrics_of(None) == {}
    record.history = [
        {"epoch": epoch, "phase": "frozen", "val/acc": epoch / 10} for epoch in (1, 2, 3)
    ]
    saved = {"epoch": 1, "record": {"history": record.history[:2]}}
    assert record.metrics_of(saved) == {"val/acc": 0.2}
    assert record.metrics_of({**saved, "epoch": 2}) == {}  # from inside the third epoch
    assert record.metrics_of(None) == {"val/acc": 0.3}


def test_rates_are_logged_at_their_interval_and_at_each_epochs_start(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    fit(tmp_path, two_phases(), logger=logger, log_every_n_steps=2)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    steps = {int(row["step"]) for row in rows if row["lr/head"]}
    assert steps == {0, 2, 3, 4, 6, 8}
    assert {name.removeprefix("lr/") for name in header if name.startswith("lr/")} == set(NAMES)


def test_the_plan_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = two_phases()
    trainer = fit(tmp_path, plan)
    text = (tmp_path / "plan.txt").read_text()
    assert text in capsys.readouterr().out
    assert "frozen: epoch 1 " in text
    assert "unfrozen: epochs 2-3" in text
    assert trainer.global_step == 3 * STEPS


def test_the_last_epoch_is_kept_also_when_it_is_no_better(tmp_path: Path) -> None:
    """val/acc is 1 from the first epoch on, so only that one is ever the best."""
    best = ModelCheckpoint(tmp_path, "best", monitor="val/acc", mode="max")
    fit(tmp_path, two_phases(), SaveLast(str(tmp_path)), best, enable_checkpointing=True)
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"]
              for path in tmp_path.glob("*.ckpt")}  # fmt: skip
    assert epochs == {"best": 0, "last": 2}


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, [0, 1, 2]), (1e9, [0, 2])])
def test_short_epochs_share_a_checkpoint_and_the_last_one_has_its_own(
    tmp_path: Path, seconds: float, saved: list[int]
) -> None:
    epochs = []

    class Watched(SaveLast):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.path.unlink(missing_ok=True)
            super().on_train_epoch_end(trainer, pl_module)
            if self.path.exists():
                epochs.append(torch.load(self.path, weights_only=True)["epoch"])

    fit(tmp_path, two_phases(), Watched(str(tmp_path), seconds), enable_checkpointing=True)
    assert epochs == saved


def test_early_stopping_counts_from_the_last_phase(tmp_path: Path) -> None:
    """val/acc is 1 from the first epoch on, so nothing is ever better."""
    stop = StopEarly(monitor="val/acc", mode="max", patience=1)
    trainer = fit(tmp_path, two_phases(8, unfreeze=4), stop)
    assert trainer.current_epoch == 6  # epochs from 0: 4 is the best of those that count, 5 is not
    patient = StopEarly(monitor="val/acc", mode="max", patience=9)
    patient.load_state_dict(stop.state_dict())  # resume=RUN callbacks.early_stopping.patience=9
    assert (patient.patience, patient.stopped_epoch) == (9, 0)
    assert patient.best_score == 1


@pytest.mark.parametrize("every", [1, 2])
def test_batches_of_one_step_share_its_rate(tmp_path: Path, every: int) -> None:
    rates: list[float] = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            rates.append(current_rates(trainer)["lr/head"])

    plan = build_plan(GROUPS, 1, mode="feature_extraction", frozen={"lr": 1e-9})
    fit(tmp_path, plan, Look(), accumulate_grad_batches=every)
    steps = -(-STEPS // every)
    plan = replace(plan, steps_per_epoch=steps)
    expected = [plan.learning_rate("head", 0, n // every / steps) for n in range(STEPS)]
    assert rates == expected
    assert len(set(rates)) == steps


@pytest.mark.parametrize("fails", [False, True])
def test_signals_are_taken_over_and_given_back(tmp_path: Path, fails: bool) -> None:
    """Else Ctrl-C would do nothing in what follows, as in a notebook's next cell."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    during: list[Any] = []

    class Look(pl.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            during.extend(signal.getsignal(number) for number in numbers)
            if fails:
                raise ZeroDivisionError

    stop = GracefulStop(tmp_path)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        fit(tmp_path, two_phases(2), stop, Look(), enable_checkpointing=True)
    assert set(during) == {signals._ask}
    assert [signal.getsignal(number) for number in numbers] == before


def test_with_one_step_an_epoch_a_signal_stops_at_the_end_of_the_epoch(tmp_path: Path) -> None:
    stop = GracefulStop(tmp_path)

    class Ask(pl.Callback):
        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(tmp_path, two_phases(), Ask(), stop, enable_checkpointing=True,
            accumulate_grad_batches=STEPS)  # fmt: skip
    assert torch.load(stop.path, weights_only=True)["global_step"] == 1


def test_an_epoch_without_validation_has_no_numbers_of_another_one(tmp_path: Path) -> None:
    record = Record(plan := two_phases(4))
    fit(tmp_path, plan, record, check_val_every_n_epoch=2)
    assert ["val/acc" in row for row in record.history] == [False, True, False, True]
