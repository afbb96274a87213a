"""Frozen is a state: nothing in a frozen group moves, whoever calls train()."""

from dataclasses import replace

import pytest
import torch
from models import SPEC, small_backbone, small_classifier
from torch import nn
from torch.nn import functional

from thaw.backbones import groups, tracing
from thaw.backbones.backbone import Backbone
from thaw.backbones.folding import fold
from thaw.backbones.groups import LayerGroup
from thaw.classifier import Classifier


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def train_steps(model: Classifier, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(steps):
        torch.manual_seed(step)
        model.train()
        optimizer.zero_grad()
        scores = model(torch.randn(8, 3, 16, 16))
        functional.cross_entropy(scores, torch.arange(8) % 4).backward()
        optimizer.step()


def changed(model: Classifier, before: dict[str, torch.Tensor]) -> set[str]:
    return {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }


def test_groups_are_stem_to_head() -> None:
    assert small_classifier().group_names == ("conv", "low", "middle", "deep", "head")


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = small_classifier()
    names = [name for _, named in model.group_parameters() for name, _ in named]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


def test_a_parameter_outside_all_groups_is_an_error() -> None:
    backbone = small_backbone()
    object.__setattr__(backbone, "groups", backbone.groups[1:])
    with pytest.raises(ValueError, match=r"missing=\['body\.conv\.weight'"):
        Classifier(backbone, nn.Linear(8, 4))


def test_a_body_group_cannot_be_called_head() -> None:
    backbone = small_backbone()
    first = backbone.groups[0]
    renamed = LayerGroup("head", first.parameters, first.modules)
    object.__setattr__(backbone, "groups", (renamed, *backbone.groups[1:]))
    with pytest.raises(ValueError, match=r"twice=\['head'\]"):
        Classifier(backbone, nn.Linear(8, 4))


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_frozen_body_does_not_move(batchnorm: str) -> None:
    """Weights, BatchNorm statistics and counters: only the head's entries change."""
    model = small_classifier()
    model.set_trainable({"head"}, batchnorm, "train")  # pyright: ignore[reportArgumentType]
    before = snapshot(model)
    train_steps(model)
    assert changed(model, before) == {"head.weight", "head.bias"}


def test_frozen_body_gives_the_features_of_eval_mode() -> None:
    """No dropout, running statistics: the same features in training as in evaluation."""
    model = small_classifier()
    model.set_trainable({"head"}, "train", "train")
    images = torch.randn(4, 3, 16, 16)
    training = model.train().features(images)
    assert torch.equal(training, model.eval().features(images))


def test_partly_frozen() -> None:
    """Frozen stages keep weights and statistics, the rest trains; dropout follows its group."""
    model = small_classifier()
    model.set_trainable({"deep", "head"}, "train", "train")
    before = snapshot(model)
    train_steps(model)
    moved = changed(model, before)
    assert not any(
        name.startswith(("body.conv", "body.norm", "body.low", "body.middle")) for name in moved
    )
    assert {"body.deep.0.weight", "body.deep.1.running_mean", "head.weight"} <= moved
    model.train()
    assert not model.get_submodule("body.middle.3").training
    assert model.get_submodule("body.dropout").training


def test_unfrozen_body_with_batchnorm_in_eval() -> None:
    """Weights of norms train, their statistics stay."""
    model = small_classifier()
    model.set_trainable(model.group_names, "eval", "train")
    before = snapshot(model)
    train_steps(model)
    moved = changed(model, before)
    assert moved == {name for name, _ in model.named_parameters()}


class Filters(nn.Module):
    """As MobileNet has them: depthwise convolutions with a norm, the others after them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.filters = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm2d(8))
        self.mixed = nn.Sequential(nn.Conv2d(8, 6, 1, groups=2), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.mixed(self.filters(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("folds", [False, True])
def test_depthwise_convolutions_stay_with_the_norm_after_them(folds: bool) -> None:
    """All else trains; a convolution in two groups is not depthwise."""
    body = Filters()
    seen = tracing.trace(body, 16)
    body.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    parts = groups.split(body, seen, "stage")
    backbone = Backbone("filters", body, 6, SPEC, parts, "none", "random")
    model = Classifier(replace(backbone, fold=fold if folds else None), nn.Linear(6, 4))
    model.set_trainable(model.group_names, "eval", "frozen")
    before = snapshot(model)
    train_steps(model)
    still = {name for name in before if name.startswith("body.filters.")}
    moved = {name for name, _ in model.named_parameters()} - still
    assert changed(model, before) == moved
    numbers = {name: each.numel() for name, each in model.named_parameters()}
    share = sum(numbers[name] for name in moved) / sum(numbers.values())
    assert model.share(model.group_names, "eval", "frozen") == pytest.approx(share)
    model.set_trainable(model.group_names, "eval", "train")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_unfreezing_restores_training_everywhere() -> None:
    model = small_classifier()
    model.set_trainable({"head"}, "eval", "train")
    model.train()
    model.set_trainable(model.group_names, "train", "train")
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = snapshot(model)
    train_steps(model)
    assert changed(model, before) == set(before)


def test_freezing_again_drops_old_gradients() -> None:
    """An optimiser would go on applying a gradient that is left behind."""
    model = small_classifier()
    model(torch.randn(8, 3, 16, 16)).sum().backward()
    model.set_trainable({"head"}, "eval", "train")
    assert all(parameter.grad is None for parameter in model.body.parameters())


def test_the_state_survives_eval_and_train() -> None:
    model = small_classifier()
    model.set_trainable({"head"}, "eval", "train")
    for _ in range(2):
        model.eval()
        assert not any(module.training for module in model.modules())
        model.train()
        assert model.head.training
        assert not any(module.training for module in model.body.modules())


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(KeyError, match="layer9"):
        small_classifier().set_trainable({"layer9"}, "eval", "train")
