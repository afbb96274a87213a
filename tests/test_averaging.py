"""Averages against a reference written out by hand; they are what is validated, kept and tested."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fits import EPOCHS, GROUPS, STEPS, fit, module_of, plan_of, settings
from lightning.pytorch.callbacks import StochasticWeightAveraging

from thaw.errors import ConfigError
from thaw.finetune.builder import build_plan
from thaw.training.averaging import EMA, SWA
from thaw.training.callbacks import check_callbacks

WEIGHT = "classifier.body.deep.0.weight"


class Follow(pl.Callback):
    """The current weight after each step, and the one that is validated."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []
        self.validated: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.steps.append(pl_module.state_dict()[WEIGHT].clone())

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if len(self.validated) <= trainer.current_epoch:
            self.validated.append(pl_module.state_dict()[WEIGHT].clone())


def train(folder: Path, average: pl.Callback) -> tuple[Follow, list[torch.Tensor]]:
    module = module_of(plan_of("freeze_unfreeze"))
    fit(module, folder, follow := Follow(), average)
    saved = [
        torch.load(folder / f"epoch{epoch}.ckpt", weights_only=True)["state_dict"][WEIGHT]
        for epoch in range(EPOCHS)
    ]
    assert torch.equal(module.state_dict()[WEIGHT], saved[-1])
    return follow, saved


def test_ema(tmp_path: Path) -> None:
    follow, saved = train(tmp_path, EMA(0.8))
    average = follow.steps[0]
    expected = []
    for number, weight in enumerate(follow.steps):
        if number:
            decay = min(0.8, (1 + number) / (10 + number))
            average = decay * average + (1 - decay) * weight
        if number % STEPS == STEPS - 1:
            expected.append(average)
    for epoch in range(EPOCHS):
        assert torch.allclose(saved[epoch], expected[epoch], atol=1e-6), epoch
        assert torch.equal(saved[epoch], follow.validated[epoch]), epoch
    assert not torch.allclose(saved[-1], follow.steps[-1])


def test_swa(tmp_path: Path) -> None:
    """Equal to the current weights up to the start; then their mean over epochs' ends."""
    follow, saved = train(tmp_path, SWA(start_epoch=3))
    ends = follow.steps[STEPS - 1 :: STEPS]
    for epoch in range(EPOCHS):
        expected = ends[epoch] if epoch <= 3 else torch.stack(ends[3 : epoch + 1]).mean(0)
        assert torch.allclose(saved[epoch], expected, atol=1e-6), epoch
        assert torch.equal(saved[epoch], follow.validated[epoch]), epoch


def test_swa_takes_the_second_half_of_the_last_phase(tmp_path: Path) -> None:
    follow, saved = train(tmp_path, SWA())  # unfrozen: epochs 3 to 5
    ends = follow.steps[STEPS - 1 :: STEPS]
    assert torch.equal(saved[4], ends[4])
    assert torch.allclose(saved[5], (ends[4] + ends[5]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EMA(1.0), r"decay=1\.0 of an EMA .*allowed"),
        (lambda: SWA(2), r"callbacks\.mine\.start_epoch=2: .*allowed is 3 to 4"),
        (lambda: SWA(5), r"callbacks\.mine\.start_epoch=5"),
        (lambda: StochasticWeightAveraging(1e-2), r"mine=Stoch.*by one; use callbacks=swa"),
    ],
)
def test_averages_that_cannot_work(make: Any, words: str) -> None:
    plan = plan_of("freeze_unfreeze")
    with pytest.raises(ConfigError, match=words):
        check_callbacks({"mine": make()}, plan)


@pytest.mark.parametrize(("last", "start"), [(1, None), (2, 4), (3, 4), (4, 4)])
def test_swa_has_two_epochs_of_the_last_phase_or_is_refused(last: int, start: int | None) -> None:
    plan = build_plan(
        GROUPS, EPOCHS, mode="freeze_unfreeze", unfreeze_epoch=EPOCHS - last, frozen=settings(),
        unfrozen=settings(),
    )  # fmt: skip
    if start is None:
        with pytest.raises(ConfigError, match=r"start_epoch=null: .*epochs 5 to 5"):
            check_callbacks({"swa": SWA()}, plan)
        return
    check_callbacks({"swa": SWA()}, plan)
    assert SWA().start(plan) == start
