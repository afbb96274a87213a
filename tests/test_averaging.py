"""Averages against a reference written out by hand; they are what is validated, kept and tested."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from fits import EPOCHS, STEPS, fit, module_of, plan_of

from thaw.training.averaging import EMA

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
