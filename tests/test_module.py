"""Steps of the module: mixing, accumulation, views and optimiser state go by the phase."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning.pytorch as pl
import pytest
import torch
from fits import CLASSES, EPOCHS, GROUPS, STEPS, Data, Views, fit, module_of, plan_of, settings
from models import small_backbone, small_classifier
from torch import Tensor, nn

from thaw.classifier import Classifier
from thaw.errors import ConfigError
from thaw.finetune.builder import build_plan
from thaw.finetune.plan import Plan
from thaw.mixing import mixing
from thaw.mlp_head import mlp
from thaw.training.record import Record


def two_phases(frozen: dict[str, Any], unfrozen: dict[str, Any]) -> Plan:
    return build_plan(
        GROUPS, EPOCHS, mode="freeze_unfreeze", batchnorm="train", unfreeze_epoch=3,
        depthwise="train", frozen=settings(**frozen), unfrozen=settings(**unfrozen), mixes=True,
    )  # fmt: skip


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

    plan = plan_of("feature_extraction", mixes=True)  # no dropout
    module = module_of(plan, mix=spy, label_smoothing=0.1)
    fit(module, tmp_path, Losses())
    assert torch.allclose(torch.stack(seen), torch.stack(expected).detach(), atol=1e-6)


def test_accumulated_steps_have_the_mean_gradient(tmp_path: Path) -> None:
    """Also where an epoch leaves one batch for a step that is made of two: 3 batches, 2 steps."""
    plan = plan_of("full")
    model = small_classifier()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    plan = replace(
        plan, phases=tuple(replace(p, batchnorm="eval", depthwise="train") for p in plan.phases)
    )
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    changes = {"config": {"backbone": {"name": "small"}, "head": {"init": "normal"}}}
    fit(module_of(plan_of("feature_extraction"), **changes), folder)
    return folder / "epoch1.ckpt"


def other(**changes: Any) -> Any:
    return module_of(plan_of("feature_extraction"), **changes)


def test_a_checkpoint_is_loaded_to_be_tested(checkpoint: Path) -> None:
    module = other(model=small_classifier(seed=1))
    module.load_checkpoint(checkpoint)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ("a", "c", "b", "d")},
         r"or in another order: a, b, c, d\. Data: a, c, b, d\."),
        ({"classes": ("a", "b", "c", "kitten")},
         r"knows other classes than the data.*: a, b, c, d\. Data: a, b, c, kitten"),
        ({"classes": CLASSES[:3], "model": small_classifier(classes=3)},
         r"knows other classes than the data.*: a, b, c, d\. Data: a, b, c\."),
        ({"model": Classifier(small_backbone(), mlp(8, 4))},
         r"its head is another one .*head: \{'init': 'normal'\}; choose the same"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_other_classes_or_another_model(
    checkpoint: Path, changes: Any, words: str
) -> None:
    """Else a score would count for another name; both when it is tested and when it is resumed."""
    with pytest.raises(ConfigError, match=words):
        other(**changes).load_checkpoint(checkpoint)
    with pytest.raises(ConfigError, match=words):
        other(**changes).on_load_checkpoint(torch.load(checkpoint, weights_only=True))


def test_a_checkpoint_of_another_version(checkpoint: Path, tmp_path: Path) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    torch.save({name: part for name, part in saved.items() if name != "plan"}, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match="is of another version of thaw"):
        other().load_checkpoint(tmp_path / "x.ckpt")


def test_a_checkpoint_of_another_backbone(checkpoint: Path) -> None:
    backbone = small_backbone()
    backbone.body.deep[0] = nn.Conv2d(6, 8, 5, 2, 2)  # pyright: ignore
    module = other()
    module.classifier.body = backbone.body
    with pytest.raises(ConfigError, match=r"its backbone is another.*deep\.0\.weight: \(8, 6, 3"):
        module.load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (None, "there is no such file"),
        (b"", "is no checkpoint of thaw"),
        (b"not a checkpoint at all", "is no checkpoint of thaw"),
        (b"PK cut short", "is no checkpoint of thaw"),
        (
            {"conv.weight": torch.zeros(2)},
            "weights of a backbone alone: backbone.weights=FILE",
        ),
        ([1, 2], "no checkpoint of thaw"),
    ],
)
def test_a_file_that_is_no_checkpoint(tmp_path: Path, write: Any, words: str) -> None:
    file = tmp_path / "x.ckpt"
    if isinstance(write, bytes):
        file.write_bytes(write)
    elif write is not None:
        torch.save(write, file)
    with pytest.raises(ConfigError) as error:
        other().load_checkpoint(file)
    assert f"ckpt_path={file}: " in str(error.value)
    assert words in str(error.value)
    assert "weights_only" not in str(error.value)  # never recommended


def test_training_metrics_are_means_over_photos(tmp_path: Path) -> None:
    """Not over batches: the last batch of an epoch is smaller."""
    seen: dict[int, list[tuple[float, int]]] = {}

    class Look(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            step = float(outputs["loss"]), len(batch[1])
            seen.setdefault(trainer.current_epoch, []).append(step)

    trainer = fit(module_of(plan_of("full")), tmp_path, Look(), data=Data(batch=5))
    record = next(each for each in trainer.callbacks if isinstance(each, Record))  # pyright: ignore
    for row, steps in zip(record.history, seen.values(), strict=True):
        assert [photos for _, photos in steps] == [5, 5, 2]
        mean = sum(loss * photos for loss, photos in steps) / sum(n for _, n in steps)
        assert row["train/loss"] == pytest.approx(mean, rel=1e-5)


def test_the_test_is_computed_as_predict_computes() -> None:
    """Nothing is folded there, so that answers are the same to the bit."""
    module = module_of(plan_of("full"))
    module.classifier.fold = Mock(side_effect=AssertionError)
    module.test_scores, module.test_rows = Mock(), []
    images = torch.rand(4, 3, 16, 16)
    module.test_step((images, torch.zeros(4, dtype=torch.long)), 0)
    with pytest.raises(AssertionError):
        module(images)
