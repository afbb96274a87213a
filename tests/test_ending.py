"""How runs end: diverged, out of memory, before their last epoch, or with nothing left to train."""

import json
import logging
import math
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fits import STEPS, Save, fit, module_of, plan_of
from omegaconf import OmegaConf
from runs import draw_photos
from runs import run_small as run
from torch import Tensor
from torch.nn.functional import cross_entropy

from hydra_plugins.thaw_launcher import SweepFolder
from thaw.classifier import Classifier
from thaw.errors import ThawError
from thaw.ranges import RANGES
from thaw.sweeps import results_of
from thaw.training.averaging import EMA
from thaw.training.checkpoints import SaveBest
from thaw.training.device import quiet_lightning
from thaw.training.ending import FEW, DivergedError, StopDiverged, in_words

WITH_CHECKPOINTS = ("callbacks=default", "callbacks.progress=null")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def weights(file: Path) -> dict[str, Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


@pytest.fixture
def any_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates that diverge for sure are refused otherwise."""
    monkeypatch.delitem(RANGES, "finetune.*.lr")


@pytest.mark.usefixtures("any_rate")
def test_a_run_that_diverges_keeps_its_best_epoch(photos: Path, tmp_path: Path) -> None:
    """It ends with an error, and with the results of the epochs before, marked."""
    with pytest.raises(DivergedError) as error:
        run(photos, tmp_path, "finetune.unfrozen.lr=1e30", "callbacks.last.every_seconds=0",
            "callbacks=default", "callbacks.progress=null")  # fmt: skip
    for words in (
        "diverged in epoch 4, step 23, phase unfrozen: the loss is not finite, at rate 1.2e+29. ",
        f"Set finetune.unfrozen.lr lower than lr=1e+30; resume={tmp_path} goes on from before",
    ):
        assert words in str(error.value)
    results = results_of(tmp_path) or {}
    assert (results["status"], results["ended"]) == ("diverged", str(error.value))
    assert results["best_checkpoint"].endswith(("epoch_000.ckpt", "epoch_001.ckpt"))
    assert math.isfinite(results["val/loss"])
    assert math.isfinite(results["test/loss"])
    history = json.loads((tmp_path / "history.json").read_text())
    assert ["val/acc" in row for row in history] == [True, True, False]
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    assert all(value.isfinite().all() for value in last["state_dict"].values())


def test_a_sweep_counts_it_as_failed_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, files in enumerate((["results.json"], ["results.json", "error.txt"])):
        (tmp_path / f"{number}_a").mkdir()
        for name in files:
            (tmp_path / f"{number}_a" / name).write_text('{"seed": 0}')
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(SystemExit):
        SweepFolder().on_multirun_end(config)
    out, errors = capsys.readouterr()
    assert "1 of 2 jobs done" in out
    assert "thaw sweep resume" not in out  # which would pass over it
    assert f"failed: {tmp_path / '1_a'}" in errors
    assert results_of(tmp_path / "1_a") is not None


@pytest.mark.usefixtures("any_rate")
def test_a_run_that_diverges_at_once_has_no_results(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ThawError, match=r"Set finetune\.frozen\.lr lower than lr=1e\+30$"):
        run(photos, tmp_path, "finetune.frozen.lr=1e30", "logger=csv", *WITH_CHECKPOINTS)
    assert results_of(tmp_path) is None
    (settings,) = tmp_path.rglob("hparams.yaml")  # loggers have them from the start
    assert "label_smoothing: 0.3" in settings.read_text()
    assert not list((tmp_path / "checkpoints").glob("*.ckpt"))


@pytest.mark.parametrize(
    ("losses", "ends"),
    [([math.nan] * (FEW + 1), True), ([math.nan] * FEW + [1.0], False), ([math.inf, 1.0], False),
     ([1.0] * 9 + [math.inf], True)],  # at the very end, there are no more steps to wait for
)  # fmt: skip
def test_a_few_odd_steps_are_no_divergence(losses: list[float], ends: bool) -> None:
    """As those that fp16 skips, whose gradients are not finite, are none: the loss is finite."""
    watch = StopDiverged()
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    trainer: Any = SimpleNamespace(
        strategy=strategy, accumulate_grad_batches=1, current_epoch=0, max_epochs=1, global_step=0,
        precision="16-mixed", default_root_dir="none", is_last_batch=False,
        optimizers=[SimpleNamespace(param_groups=[{"lr": 1.0}])],
    )  # fmt: skip
    plan = plan_of("full")
    module = SimpleNamespace(plan=plan, phase=plan.phases[0])
    try:
        for number, loss in enumerate(losses):
            trainer.is_last_batch = number == 9
            outputs = {"sums": torch.tensor([loss, 1, 4])}
            watch.on_train_batch_end(trainer, module, outputs, None, number if number != 5 else 4)
        assert not ends
    except DivergedError:
        assert ends


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["+trainer.max_steps=8"], "by trainer.max_steps in epoch 2; 4 epochs were planned"),
        (["+trainer.max_time='00:00:00:01'", "trainer.max_epochs=999"], "by trainer.max_time in "),
        (["callbacks=early_stopping", "callbacks.early_stopping.patience=1",
          "callbacks.early_stopping.min_delta=1.0", "trainer.max_epochs=6"],
         "by early stopping in epoch 4; 6 epochs were planned"),
    ],
)  # fmt: skip
def test_a_run_says_what_ended_it(
    photos: Path, tmp_path: Path, settings: list[str], words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    results = run(photos, tmp_path, "callbacks.checkpoint.save_top_k=3", *settings)
    assert results["status"] == "ended early"
    assert words in results["ended"]
    assert f"\nended     {words}" in capsys.readouterr().out
    assert re.search(r"in epoch \d+; \d+ epochs were planned", results["ended"])
    saved = {path.stem for path in (tmp_path / "checkpoints").glob("best*")}
    history = json.loads((tmp_path / "history.json").read_text())
    validated = [row["epoch"] - 1 for row in history if "val/acc" in row]
    assert saved <= {f"best-epoch_{epoch:03d}" for epoch in validated}


def test_a_run_that_is_whole_says_so_and_goes_on_only_with_more_epochs(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(photos, tmp_path / "a")
    assert first["status"] == "finished"
    assert "ended" not in first
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    again = run(photos, tmp_path / "b", f"ckpt_path={last}")
    assert "nothing was left to train after 4 epochs; set trainer.max_epochs" in again["ended"]
    assert "higher to go on, or train=false to test only" in capsys.readouterr().out


def test_what_a_profiler_finds_is_printed() -> None:
    quiet_lightning()
    assert logging.getLogger("lightning.pytorch.profilers.profiler").isEnabledFor(logging.INFO)
    assert not logging.getLogger("lightning.pytorch.trainer").isEnabledFor(logging.INFO)


def test_out_of_memory_at_the_unfreeze(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told with what fits, and resumed with that the run has the rates that it would have had."""
    whole = run(photos, tmp_path / "whole", "finetune.cache_features=false")
    forward = Classifier.forward

    def of_two(self: Classifier, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and "layer4" in self.trainable and len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", of_two)
    settings = ("callbacks.last.every_seconds=0", "finetune.cache_features=false")
    with pytest.raises(ThawError) as error:
        run(photos, tmp_path / "small", *settings)
    message = str(error.value)
    assert message.startswith("out of memory in epoch 3, phase unfrozen, with data.batch_size=4.")
    words = "data.batch_size=2 trainer.accumulate_grad_batches=2"
    assert f"python train.py resume={tmp_path / 'small'} {words}" in message
    again = run(
        photos, tmp_path / "small", *settings, *words.split(), f"resume={tmp_path / 'small'}"
    )
    assert again["status"] == "finished"
    rows = [
        json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "small")
    ]
    for one, two in zip(*rows, strict=True):
        assert (one["rates"], one["lr"]) == (two["rates"], two["lr"])
        assert one["train/loss"] == pytest.approx(two["train/loss"], rel=1e-4)
    assert again["val/acc"] == whole["val/acc"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:75] "
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("another thing")])  # fmt: skip
def test_out_of_memory_on_a_cpu(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(self: Classifier, images: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(Classifier, "forward", fails)
    expected = RuntimeError if "another" in str(error) else ThawError
    words = "another" if "another" in str(error) else r"out of memory .*: <the same command> data"
    with pytest.raises(expected, match=words):
        run(photos, tmp_path, "finetune=full", "finetune.unfrozen.warmup_epochs=0")


def test_errors_whose_own_words_are_the_best() -> None:
    """No room for the network itself; and why processes cannot reach each other."""
    trainer: Any = SimpleNamespace(default_root_dir="run", world_size=2, train_dataloader=None)
    module: Any = None
    assert in_words(torch.OutOfMemoryError("CUDA out of memory."), trainer, module) is None
    said = in_words(RuntimeError("NCCL error in: a.cpp:1\nDuplicate GPU detected"), trainer, module)
    assert str(said).endswith(
        "start <the same command> (NCCL error in: a.cpp:1 Duplicate GPU detected)"
    )


@pytest.mark.parametrize("callbacks", [(), (partial(EMA, 0.9),)], ids=["plain", "ema"])
@pytest.mark.parametrize("mode", ["full", "on_plateau"])
def test_the_value_belongs_to_the_weights_that_are_saved(
    tmp_path: Path, mode: str, callbacks: Any
) -> None:
    best = SaveBest(tmp_path, "best-{epoch}", monitor="val/loss", mode="min", save_top_k=-1)
    made = [make() for make in callbacks]
    trainer = fit(module_of(plan_of(mode), monitor="val/loss"), tmp_path, *made, best)
    images, labels = zip(*(batch for batch in trainer.val_dataloaders), strict=True)  # pyright: ignore
    assert len(best.best_k_models) == trainer.max_epochs
    for file, value in best.best_k_models.items():
        module = module_of(plan_of(mode)).eval()
        module.load_state_dict(weights(Path(file)))
        with torch.no_grad():
            loss = cross_entropy(module(torch.cat(images)), torch.cat(labels))
        assert float(value) == pytest.approx(float(loss), rel=1e-4)


def test_after_a_stop_inside_an_epoch_its_numbers_cover_all_of_it(tmp_path: Path) -> None:
    plan, stop = plan_of("full"), 2 * STEPS + 1
    fit(module_of(plan), tmp_path, Save(tmp_path, [stop]))
    fit(module_of(plan), tmp_path / "again", resume=tmp_path / f"step{stop}.ckpt")
    whole, again = (
        torch.load(folder / "epoch5.ckpt", weights_only=True)["record"]
        for folder in (tmp_path, tmp_path / "again")
    )
    for one, two in zip(whole["history"], again["history"], strict=True):
        for name in ("train/loss", "train/acc", "val/loss", "images"):
            assert one[name] == pytest.approx(two[name])
