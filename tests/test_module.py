"""Steps of the module: mixing, accumulation, views and optimiser state go by the phase."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fits import EPOCHS, GROUPS, STEPS, Views, fit, module_of, plans, settings
from models import small_classifier
from torch import Tensor, nn

from thaw.finetune import modes
from thaw.finetune.plan import Plan
from thaw.training.progress import Record
from thaw.transforms import mixing


def two_phases(frozen: dict[str, Any], unfrozen: dict[str, Any]) -> Plan:
    return modes.freeze_unfreeze(
        GROUPS, EPOCHS, unfreeze_epoch=3, frozen=settings(**frozen), unfrozen=settings(**unfrozen)
    )


class Look(pl.Callback):
    """What each step saw: soft or hard targets, plain or drawn views, momenta at its start."""

    def __init__(self) -> None:
        self.plain: list[bool] = []
        self.momenta: list[int] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        known = Views(4 * STEPS, 0).images
        self.plain.append(bool((batch[0][0] == known).flatten(1).all(1).any()))
        self.momenta.append(len(trainer.optimizers[0].state))


@pytest.mark.parametrize("first", [True, False])
def test_augmentation_is_on_in_one_phase_and_off_in_another(tmp_path: Path, first: bool) -> None:
    plan = two_phases({"augment": first}, {"augment": not first})
    fit(module_of(plan), tmp_path, look := Look())
    assert look.plain == [not first] * 3 * STEPS + [first] * 3 * STEPS


def test_mixing_is_on_in_one_phase_and_off_in_another(tmp_path: Path) -> None:
    """A mixed picture has no label to be right about: no training accuracy there."""
    seen: list[Tensor] = []
    mix = mixing(4, mixup_alpha=0.4)

    def spy(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(labels)
        return mix(images, labels)

    module = module_of(two_phases({"mix": False}, {"mix": True}), mix=spy)
    trainer = fit(module, tmp_path)
    assert len(seen) == 3 * STEPS
    record = next(part for part in trainer.callbacks if isinstance(part, Record))  # pyright: ignore
    assert ["train/acc" in row for row in record.history] == [True] * 3 + [False] * 3
    assert all(row.keys() >= {"train/loss", "val/acc"} for row in record.history)


def test_the_mixed_loss_is_the_weighted_one(tmp_path: Path) -> None:
    """Weighted mean of the losses of both labels (mixup, eq. 1), each with its smoothing."""
    expected: list[Tensor] = []
    seen: list[Tensor] = []
    mix = mixing(4, mixup_alpha=1.0)

    def spy(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, targets = mix(images, labels)
        scores = module(mixed)
        shares = targets.gather(1, labels[:, None])[:, 0]  # of the picture's own label
        other = labels.roll(1)
        shares = torch.where(labels == other, 0.5, shares)
        losses = [
            nn.functional.cross_entropy(scores, label, label_smoothing=0.1, reduction="none")
            for label in (labels, other)
        ]
        expected.append((shares * losses[0] + (1 - shares) * losses[1]).mean())
        return mixed, targets

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            seen.append(outputs["loss"])

    plan = modes.feature_extraction(GROUPS, EPOCHS, frozen=settings())  # no dropout
    module = module_of(plan, mix=spy, label_smoothing=0.1)
    fit(module, tmp_path, Losses())
    assert torch.allclose(torch.stack(seen), torch.stack(expected).detach(), atol=1e-6)


@pytest.mark.parametrize("reset", [True, False])
def test_a_phase_begins_with_its_own_optimiser_state_where_asked(
    tmp_path: Path, reset: bool
) -> None:
    fit(module_of(two_phases({}, {"reset_optimizer": reset})), tmp_path, look := Look())
    assert look.momenta[0] == 0
    assert look.momenta[3 * STEPS - 1] == 2  # the head's
    assert look.momenta[3 * STEPS] == (0 if reset else 2)


def test_accumulated_steps_have_the_mean_gradient(tmp_path: Path) -> None:
    """Also where an epoch leaves one batch for a step that is made of two: 3 batches, 2 steps."""
    plan = replace(plans(settings())["full"])
    model = small_classifier()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    plan = Plan(plan.mode, plan.groups, tuple(replace(p, batchnorm="eval") for p in plan.phases))
    gradients: list[Tensor] = []
    expected: list[Tensor] = []

    batches: list[Any] = []

    class Compare(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
            batches.append(batch)

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, _: Any) -> None:
            weight = pl_module.classifier.head.weight
            gradients.append(weight.grad.clone())
            images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
            loss = nn.functional.cross_entropy(pl_module(images), labels)
            expected.append(torch.autograd.grad(loss, weight)[0])
            batches.clear()

    fit(module_of(plan, model), tmp_path, Compare(), accumulate_grad_batches=2,
        gradient_clip_val=None)  # fmt: skip
    assert len(gradients) == 2 * EPOCHS
    for ours, theirs in zip(gradients, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6, rtol=1e-4)
