"""The temperature against a search of its own, and sums that do not depend on how photos lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fits import BATCH, Data, Views, module_of, plan_of
from models import small_classifier
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from thaw.data.loading import make_loader
from thaw.training.metrics import Calibration


def draw(classes: int, sharpness: float, photos: int = 4000) -> tuple[Tensor, Tensor]:
    """Scores (N, K) that are `sharpness` times those whose softmax the labels were drawn from."""
    generator = torch.Generator().manual_seed(classes)
    scores = 2 * torch.randn(photos, classes, generator=generator)
    labels = scores.softmax(1).multinomial(1, generator=generator)[:, 0]
    return scores * sharpness, labels


def measured(
    scores: Tensor, labels: Tensor, temperature: float | None = None, batch: int = 700
) -> dict[str, float]:
    metric = Calibration(temperature)
    for start in range(0, len(labels), batch):
        metric.update(scores[start : start + batch], labels[start : start + batch])
    return {name: float(value) for name, value in metric.compute().items()}


def error_of(probabilities: Tensor, labels: Tensor) -> float:
    """The definition: over 15 bins, the share of photos times the distance of the two means."""
    confidence, chosen = probabilities.max(1)
    right = (chosen == labels).float()
    bins = (confidence * 15).ceil()
    every = [bins == number for number in bins.unique()]
    return sum(
        float(inside.float().mean() * (right[inside].mean() - confidence[inside].mean()).abs())
        for inside in every
    )


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 6.0])
@pytest.mark.parametrize("classes", [2, 30])
def test_the_temperature_makes_the_likelihood_largest(classes: int, sharpness: float) -> None:
    """Within half a step of what a search finds; scores that were sharpened get it back."""
    scores, labels = draw(classes, sharpness)
    found = measured(scores, labels)
    best = minimize_scalar(
        lambda t: float(cross_entropy(scores.double() / t, labels)), bounds=(0.05, 20),
        method="bounded",
    ).x  # fmt: skip
    assert found["temperature"] == pytest.approx(best, rel=0.026)
    assert found["temperature"] == pytest.approx(sharpness, rel=0.1)
    assert found["loss"] == pytest.approx(float(cross_entropy(scores, labels)), rel=1e-5)
    probabilities = (scores / found["temperature"]).softmax(1)
    assert found["ece"] == pytest.approx(error_of(probabilities, labels), abs=1e-5)
    assert found["ece_uncalibrated"] == pytest.approx(error_of(scores.softmax(1), labels), abs=1e-5)
    assert found["ece"] < 0.03
    if sharpness != 1.0:
        assert found["ece_uncalibrated"] > 4 * found["ece"]


def test_a_given_temperature_is_measured_not_fitted() -> None:
    scores, labels = draw(5, 3.0)
    found = measured(scores, labels, temperature=1.7)
    assert "temperature" not in found
    assert found["ece"] == pytest.approx(error_of((scores / 1.7).softmax(1), labels), abs=1e-5)
    assert found["loss"] == pytest.approx(float(cross_entropy(scores, labels)), rel=1e-5)


def test_a_few_photos_that_are_all_right_make_nothing_certain() -> None:
    """The likelihood alone would choose the smallest temperature: every answer certain for good."""
    labels = torch.arange(20) % 2
    scores = torch.nn.functional.one_hot(labels, 2) * 2.0
    found = measured(scores, labels)
    assert 0.9 < (torch.tensor([2.0, 0.0]) / found["temperature"]).softmax(0)[0] < 0.99


def test_large_scores_and_many_classes_stay_finite() -> None:
    scores, labels = draw(1000, 300.0, photos=50)
    assert all(torch.tensor(list(measured(scores, labels).values())).isfinite())


@pytest.mark.parametrize("parts", [[4000], [1, 3999], [7, 1000, 2993]])
def test_the_sums_of_all_processes_are_those_of_one(parts: Sequence[int]) -> None:
    """States that are added up give the same, however the photos are divided."""
    scores, labels = draw(8, 2.0)
    whole = measured(scores, labels)
    metrics = [Calibration() for _ in parts]
    for metric, some, same in zip(metrics, scores.split(parts), labels.split(parts), strict=True):
        metric.update(some, same)
    first = metrics[0]
    for name, reduce in first._reductions.items():
        stacked = torch.stack([getattr(metric, name) for metric in metrics])
        setattr(first, name, reduce(stacked))  # pyright: ignore[reportCallIssue, reportOptionalCall]
    joined = {name: float(value) for name, value in first.compute().items()}
    assert joined == pytest.approx(whole, rel=1e-4)


class Seven(Data):
    """Seven photos of validation and of test: two processes have four and three of them."""

    def val_dataloader(self) -> Any:
        views, trainer = Views(7, 1), self.trainer
        assert trainer is not None
        return make_loader(
            views, labels=views.labels, batch_size=BATCH, num_workers=0, train=False, seed=3,
            rank=trainer.global_rank, world_size=trainer.world_size,
        )  # fmt: skip

    test_dataloader = val_dataloader


def test_two_processes_with_unlike_numbers_of_photos_log_what_one_does(tmp_path: Path) -> None:
    """The loss too: a mean of the processes' means weighs the photos of the smaller one more."""
    values = []
    for devices, strategy in ((1, "auto"), (2, "ddp_fork")):
        module = module_of(plan_of("full"), small_classifier())
        trainer = pl.Trainer(
            accelerator="cpu", devices=devices, strategy=strategy, logger=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
            use_distributed_sampler=False, enable_checkpointing=False,
        )  # fmt: skip
        found = {}
        for run in (trainer.validate, trainer.test):
            run(module, Seven(), verbose=False)
            module.temperature = 0.7  # a forked process takes its own away with it
            found |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        values.append(found)
    one, two = values
    assert {"val/loss", "val/ece", "val/temperature", "test/loss", "test/ece_uncalibrated"} <= {
        *one
    }
    assert two == pytest.approx(one, rel=1e-5)
    assert one["val/loss"] == one["test/loss"]
    assert one["test/ece"] != one["test/ece_uncalibrated"]  # the one is at the temperature
