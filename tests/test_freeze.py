"""Proofs 3, 4 and 5: what is frozen stands still, what trains moves, at the planned rates."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from fits import EPOCHS, MODES, STEPS, Data, fit, module_of, plan_of, settings
from models import small_classifier
from test_resume import SCHEDULES, slow
from torch import Tensor, nn

from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.classifier import Classifier
from thaw.finetune.builder import build_plan
from thaw.finetune.plan import plan_table
from thaw.finetune.rates import parameter_groups
from thaw.head import linear
from thaw.training.averaging import EMA
from thaw.training.module import TransferModule


def tensors_of(model: Classifier, names: Any) -> dict[str, Tensor]:
    """Copies of all parameters and buffers of some layer groups."""
    found: dict[str, Tensor] = {}
    for group in model.groups:
        if group.name in names:
            for name in group.modules:
                state = model.get_submodule(name).state_dict()
                found |= {f"{name}.{key}": value.clone() for key, value in state.items()}
    return found


class Watch(pl.Callback):
    """Compares frozen groups, to the bit, at each epoch's start and end (after validation)."""

    def __init__(self) -> None:
        self.before: dict[str, Tensor] = {}
        self.frozen: list[set[str]] = []
        self.moved: list[str] = []
        self.moves: set[str] = set()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        model = pl_module.classifier
        frozen = set(model.group_names) - model.trainable
        self.frozen.append(frozen)
        self.before = tensors_of(model, model.group_names)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Every layer below a frozen group is in eval mode, also after a validation."""
        model = pl_module.classifier
        for group in model.groups:
            for name in group.modules:
                for layer in model.get_submodule(name).modules():
                    is_norm = isinstance(layer, nn.BatchNorm2d) and model.batchnorm != "train"
                    expected = group.name in model.trainable and not is_norm
                    assert layer.training == expected, (group.name, name)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        model = pl_module.classifier
        after = tensors_of(model, model.group_names)
        still = tensors_of(model, self.frozen[-1])
        for name, value in after.items():
            if not torch.equal(value, self.before[name]):
                (self.moved.append if name in still else self.moves.add)(name)


@pytest.mark.parametrize(
    ("mode", "average"),
    [*((mode, None) for mode in MODES),
     *((mode, partial(EMA, 0.9)) for mode in ("freeze_unfreeze", "phases"))],
)  # fmt: skip
def test_what_is_frozen_stands_still(tmp_path: Path, mode: str, average: Any) -> None:
    """In training, validation and test; the net has BatchNorm and dropout in its body."""
    watch = Watch()
    module = module_of(plan_of(mode))
    fresh = tensors_of(module.classifier, module.classifier.group_names)
    callbacks = [watch] + ([average()] if average else [])
    trainer = fit(module, tmp_path, *callbacks)
    assert watch.moved == []
    always = set.intersection(*watch.frozen)
    assert len(watch.frozen) == EPOCHS
    # where some are always frozen: equal to what they were before the run, in the average too
    trainer.test(module, Data(), verbose=False)
    for name, value in tensors_of(module.classifier, always).items():
        assert torch.equal(value, fresh[name]), name
    still = tensors_of(module.classifier, always)
    trained = {name for name in fresh if name not in still}
    assert {"head.weight", "head.bias"} <= watch.moves <= trained
    expected = {"feature_extraction": 4, "partial": 2, "classifier": 3}
    assert len(always) == expected.get(mode, 0)
    # what is validated and kept, an average too, has had the fresh body as long as it was frozen
    frozen = set(module.classifier.group_names)
    for epoch, groups in enumerate(watch.frozen):
        frozen &= groups
        state = torch.load(tmp_path / f"epoch{epoch}.ckpt", weights_only=True)["state_dict"]
        for name in tensors_of(module.classifier, frozen):
            assert torch.equal(state[f"classifier.{name}"], fresh[name]), (epoch, name)


class Rates(pl.Callback):
    """At every step: each trainable parameter once in the optimiser, moved by the planned rate."""

    def __init__(self) -> None:
        self.before: dict[str, tuple[Tensor, Tensor]] = {}
        self.rates: dict[str, float] = {}
        self.steps = 0

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        held = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
        learns = {
            name: weight for name, weight in pl_module.classifier.named_parameters()
            if weight.requires_grad
        }  # fmt: skip
        assert all(held.count(id(weight)) == 1 for weight in learns.values())
        self.rates = {
            name: group["lr"] for group in optimizer.param_groups for name in group["layer_groups"]
        }
        self.before = {
            name: (weight.detach().clone(), weight.grad.clone())
            for name, weight in learns.items() if weight.grad is not None
        }  # fmt: skip
        assert self.before.keys() == learns.keys()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step - 1
        weights = dict(pl_module.classifier.named_parameters())
        for group in pl_module.classifier.groups:
            rate = pl_module.plan.learning_rate(group.name, step // STEPS, step % STEPS / STEPS)
            assert self.rates[group.name] == rate
            assert (rate > 0) == (group.name in pl_module.classifier.trainable)
            for name in group.parameters:
                if name in self.before:
                    weight, gradient = self.before[name]
                    expected = weight - rate * gradient
                    assert torch.allclose(weights[name], expected, rtol=1e-6, atol=1e-9), name
        self.steps += 1


@pytest.mark.parametrize(
    ("mode", "schedule"),
    [("gradual", "cosine"), ("phases", "cosine"), ("freeze_unfreeze", "StepLR"),
     ("on_plateau", "plateau")],
)  # fmt: skip
def test_every_step_has_the_planned_rates(tmp_path: Path, mode: str, schedule: str) -> None:
    """Plain SGD, so that the step itself shows the rate that was applied."""
    module = module_of(plan_of(mode, SCHEDULES[schedule]))
    module.make_optimizer = torch.optim.SGD  # pyright: ignore[reportAttributeAccessIssue]
    fit(module, tmp_path, check := Rates(), gradient_clip_val=None)
    assert check.steps == EPOCHS * STEPS


@pytest.mark.parametrize("granularity", ["stage", "layer"])
@pytest.mark.parametrize("name", ["resnet18", "vit_b_32"])
def test_real_backbones_have_few_groups_that_hold_everything(name: str, granularity: Any) -> None:
    with torch.device("meta"):
        backbone = torchvision_backbone(name, None, granularity=granularity)
        model = Classifier(backbone, linear(backbone.out_features, 5))
    for decay, most in ((None, 4), (0.8, 2 * len(model.groups))):
        plan = build_plan(
            model.groups, 4, mode="freeze_unfreeze", batchnorm="train", unfreeze_epoch=2,
            depthwise="train", frozen=settings(), unfrozen=settings(), lr_decay=decay,
        )  # fmt: skip
        groups = parameter_groups(model, [phase.rates for phase in plan.phases])
        held = [id(weight) for group in groups for weight in group["params"]]
        assert sorted(held) == sorted(id(weight) for weight in model.parameters())
        assert len(groups) <= most
        rates = {name: plan.learning_rate(name, 2, 0.5) for name in model.group_names}
        for group in groups:
            assert len({rates[name] for name in group["layer_groups"]}) == 1


class Gradients(pl.Callback):
    """Size of each parameter's gradient after the unfreeze."""

    def __init__(self) -> None:
        self.sizes: dict[str, float] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.current_epoch >= 3:
            for name, weight in pl_module.classifier.named_parameters():
                self.sizes[name] = max(self.sizes.get(name, 0.0), float(weight.grad.abs().max()))


def twins() -> Classifier:
    """All biases are zero and all norms one: tensors of equal values, which facts.md warns of."""
    model = small_classifier()
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            nn.init.constant_(weight, float("norm" in name or ".1.weight" in name))
    return model


@pytest.mark.parametrize(
    "backend",
    [None, slow("aot_eager"),
     pytest.param("inductor", marks=[pytest.mark.slow, pytest.mark.every])],
)  # fmt: skip
def test_after_the_unfreeze_every_parameter_learns(tmp_path: Path, backend: str | None) -> None:
    module = module_of(plan_of("freeze_unfreeze"), twins())
    if backend:
        torch._dynamo.reset()
        module.classifier.compile(backend=backend)
    before = {name: value.clone() for name, value in module.classifier.named_parameters()}
    gradients = Gradients()
    fit(module, tmp_path, gradients)
    assert gradients.sizes.keys() == before.keys()
    # a bias in front of a BatchNorm in training mode has no gradient but by rounding
    idle = {"body.conv.bias", *(f"body.{name}.0.bias" for name in ("low", "middle", "deep"))}
    for name, value in module.classifier.named_parameters():
        assert gradients.sizes[name] > (0 if name in idle else 1e-6), name
        assert not torch.equal(value, before[name]), name
    saved = torch.load(tmp_path / "epoch5.ckpt", weights_only=True)["state_dict"]
    assert {name for name in saved if "_orig_mod" in name} == set()
    assert {f"classifier.{name}" for name in before} <= saved.keys()


@pytest.mark.slow
def test_compiled_is_compiled(tmp_path: Path) -> None:
    """Else the proof above would prove nothing: both phases must have run compiled code."""
    seen: set[tuple[bool, int]] = set()  # in training, parameters that take a gradient
    module: TransferModule = module_of(plan_of("freeze_unfreeze"))

    def count(graph: Any, inputs: list[Tensor]) -> Any:
        seen.add((module.training, sum(bool(value.requires_grad) for value in inputs)))
        return graph.forward

    torch._dynamo.reset()
    module.classifier.compile(backend=count)
    fit(module, tmp_path)
    every = len(list(module.classifier.parameters()))
    assert {number for training, number in seen if training} == {2, every}  # the head's; all


def test_depthwise_filters_stand_still_through_a_run(tmp_path: Path) -> None:
    """Also the norm after them; the plan says so."""
    model = small_classifier()
    model.get_submodule("body.low")[0] = nn.Conv2d(6, 6, 3, 2, 1, groups=6)  # pyright: ignore
    plan = plan_of("freeze_unfreeze", batchnorm="eval", depthwise="frozen")
    table = plan_table(plan, model, STEPS)
    assert "93.4% trains" in table
    assert "depthwise                frozen              frozen" in table
    assert next(line for line in table.splitlines() if line.startswith("low ")).count("frozen") == 2
    before = {name: value.clone() for name, value in model.named_parameters()}
    fit(module_of(plan, model), tmp_path)
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert still == {f"body.low.{n}.{part}" for n in (0, 1) for part in ("weight", "bias")}
