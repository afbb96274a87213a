"""BatchNorm inside convolutions: the same results and gradients, and nothing left behind."""

import os
import pickle
import signal
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import timm
import torch
from runs import TWO_AND_TWO, configuration
from torch import Tensor, nn

import train
from thaw.backbones import torchvision_backbone
from thaw.backbones.folding import fold
from thaw.classifier import Classifier
from thaw.errors import Interrupted


def network(name: str) -> nn.Module:
    """In float64, with statistics and scales that are not 1 and 0; BatchNorm in eval mode."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).double().train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            assert layer.running_mean is not None
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 1.5)
            for values in (layer.bias.data, layer.running_mean):
                values.normal_(0, 0.1)
            layer.eval()
    return model


def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()


def results(model: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    """Class scores and the gradients of all weights."""
    model.zero_grad()
    torch.manual_seed(2)  # of dropout
    scores = model(images())
    scores.square().sum().backward()
    return scores, {name: weight.grad for name, weight in model.named_parameters()}  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("resnet18", 20), ("mobilenetv2_100", 52), ("tf_efficientnet_lite0", 49), ("densenet121", 59)],
)
def test_results_and_gradients(name: str, pairs: int) -> None:
    model = network(name)
    state, modes = deepcopy(model.state_dict()), [each.training for each in model.modules()]
    scores, gradients = results(model)
    context = fold(model, images())
    with context():
        assert len([m for m in model.modules() if "forward" in vars(m)]) == 2 * pairs
        inside, theirs = results(model)
    assert not any("forward" in vars(module) for module in model.modules())
    torch.testing.assert_close(inside, scores)
    torch.testing.assert_close(theirs, gradients)
    assert modes == [each.training for each in model.modules()]
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=0, atol=0)


def test_an_output_that_something_else_reads() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.norm.running_mean.fill_(1.0)  # pyright: ignore

        def forward(self, images: Tensor) -> Tensor:
            output = self.conv(images)
            return output + self.norm(output)

    assert fold(Both().double(), images()) is nullcontext


def test_what_must_not_be_folded() -> None:
    """What recomputes in the backward pass; layers that a user has changed or looks into."""
    model: Any = network("resnet18")
    model.set_grad_checkpointing()
    assert fold(model, images()) is nullcontext
    results(model)
    model.set_grad_checkpointing(False)
    model.conv1.register_forward_hook(lambda *_: None)
    model.layer1[0].bn1.forward = model.layer1[0].bn1.forward
    with fold(model, images())():
        folded = [name for name, m in model.named_modules() if "forward" in vars(m)]
    assert len(folded) == 2 * 18 + 1
    assert "forward" in vars(model.layer1[0].bn1)
    assert not {"conv1", "bn1", "layer1.0.conv1"} & {*folded}


def test_an_error_leaves_nothing_behind() -> None:
    model: Any = network("resnet18")
    with pytest.raises(RuntimeError):
        fold(model, images().float())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_copy_and_a_saved_one_fold_by_themselves() -> None:
    backbone = torchvision_backbone.torchvision_backbone("resnet18", None, 32)
    model = Classifier(backbone, nn.Linear(512, 3)).train()
    model.set_trainable(model.group_names, "eval", "train")
    pictures = torch.rand(2, 3, 32, 32)
    expected = model(pictures)
    for other in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(pictures), expected)
        assert {id(layer) for pair in other.folded.args[0] for layer in pair} <= {
            id(layer) for layer in other.modules()
        }  # fmt: skip


def test_evaluation_and_frozen_bodies_fold_too(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = torchvision_backbone.torchvision_backbone("resnet18", None, 32)
    model, pictures = Classifier(backbone, nn.Linear(512, 3)), torch.rand(2, 3, 32, 32)
    model.set_trainable({"head"}, "eval", "train")

    def fail(*_: Any) -> None:
        raise AssertionError("BatchNorm was computed")

    model.eval()(pictures)  # here it finds what folds
    monkeypatch.setattr(nn.BatchNorm2d, "forward", fail)
    for mode in (True, False):
        model.train(mode)(pictures)


def test_a_resumed_run_is_equal_to_the_bit(tmp_path: Path) -> None:
    """Stopped inside the first unfrozen epoch; what folds is found again."""
    words = ("backbone=resnet18", "backbone.weights=null", "backbone.image_size=32", *TWO_AND_TWO,
             "trainer=cpu", "data=demo", "data.train_pictures=4", "data.val_pictures=2",
             "optim=adamw",  # Muon's 512 x 4608 take seconds a step
             "test=false", "logger=none", "trainer.max_epochs=4")  # fmt: skip
    train.run(configuration(tmp_path / "whole", *words))
    with pytest.raises(Interrupted):
        train.run(
            configuration(tmp_path / "cut", *words, "+callbacks.stop._target_=test_folding.Stop")
        )
    train.run(configuration(tmp_path / "cut", *words, f"resume={tmp_path / 'cut'}"))
    one, two = (torch.load(tmp_path / name / "checkpoints/last.ckpt") for name in ("whole", "cut"))
    torch.testing.assert_close(one["state_dict"], two["state_dict"], rtol=0, atol=0)


class Stop(pl.Callback):
    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 10:  # of 4 steps an epoch
            os.kill(os.getpid(), signal.SIGINT)


def test_batchnorm_in_training_mode_is_left_alone() -> None:
    model = network("resnet18").train()
    context = fold(model, images())
    before = model.bn1.running_mean.clone()  # pyright: ignore
    with context():
        assert not any("forward" in vars(module) for module in model.modules())
        model(images())
    assert not torch.equal(before, model.bn1.running_mean)  # pyright: ignore


def test_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run changes by rounding alone."""
    found = []
    for name in ("folded", "plain"):
        words = ("backbone=resnet18", "backbone.weights=null", "backbone.image_size=32",
                 "trainer=cpu", "data=demo", "data.train_pictures=4", "data.val_pictures=4",
                 "test=false", "logger=none", "trainer.max_epochs=4", *TWO_AND_TWO)  # fmt: skip
        train.run(configuration(tmp_path / name, *words))
        found.append(torch.load(tmp_path / name / "checkpoints/last.ckpt")["state_dict"])
        monkeypatch.setattr(torchvision_backbone, "fold", lambda *_: nullcontext)
    one, two = found
    assert any(not torch.equal(one[name], two[name]) for name in one)
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
