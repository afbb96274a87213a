"""Heads."""

import pytest
import torch
from torch import nn

from thaw.head import linear
from thaw.mlp_head import mlp


def test_zeros_make_every_class_equally_likely() -> None:
    scores = linear(8, 5)(torch.randn(4, 8))
    assert torch.equal(scores.softmax(1), torch.full((4, 5), 0.2))


def test_named_initialisations() -> None:
    normal = linear(1000, 100, init="normal")
    assert isinstance(normal, nn.Linear)
    assert normal.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not normal.bias.any()
    torch.manual_seed(0)
    ours = linear(8, 5, init="kaiming_uniform")
    assert isinstance(ours, nn.Linear)
    bound = 1 / 8**0.5  # torch.nn.Linear's documented default
    assert 0.8 * bound < ours.weight.abs().max().item() <= bound


def test_mlp_layers() -> None:
    head = mlp(8, 5, hidden=[16, 12], dropout=0.3, norm="layer")
    kinds = [type(layer).__name__ for layer in head.children()]
    assert kinds == ["Linear", "LayerNorm", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert head(torch.randn(4, 8)).shape == (4, 5)
    batch = mlp(8, 5, hidden=[16], norm="batch")
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in batch.children())
