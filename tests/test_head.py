"""Heads."""

import pytest
import torch
from torch import nn

from thaw.head import linear, norm_linear
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


def test_features_of_any_size_give_the_same_scores() -> None:
    """So that a rate of the head means the same for every backbone."""
    head, features = norm_linear(8, 5, init="kaiming_uniform"), 10 * torch.randn(4, 8)
    assert isinstance(head, nn.Sequential)
    scaled = head[0](features)
    assert scaled.norm(dim=1).tolist() == pytest.approx([30.0] * 4)
    roots = features.sign() * features.abs().sqrt()
    wanted = 30 * nn.functional.normalize(roots, dim=1)
    assert torch.allclose(scaled, wanted, atol=1.0)
    assert torch.allclose(head[0](80 * features), wanted, atol=1.0)


def test_a_feature_of_zero_counts_as_a_root_of_a_hundredth() -> None:
    features = torch.tensor([[0.0, 1.0, 4.0]])
    scaled = norm_linear(3, 2)[0](features)  # pyright: ignore[reportIndexIssue]
    assert torch.allclose(scaled, 30 * nn.functional.normalize((features + 0.01).sqrt(), dim=1))


def test_rounding_of_a_feature_near_zero_changes_little() -> None:
    features = torch.ones(2, 8)
    features[:, 0] = torch.tensor([1e-7, -1e-7])
    scaled = norm_linear(8, 5)[0](features)  # pyright: ignore[reportIndexIssue]
    assert torch.allclose(scaled[0], scaled[1], atol=1e-4)


def test_features_of_zero_have_scores_and_gradients() -> None:
    features = torch.zeros(4, 8, requires_grad=True)
    scores = norm_linear(8, 5, init="kaiming_uniform")(features)
    scores.square().sum().backward()
    assert scores.isfinite().all()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_mlp_layers() -> None:
    head = mlp(8, 5, hidden=[16, 12], dropout=0.3, norm="layer")
    kinds = [type(layer).__name__ for layer in head.children()]
    assert kinds == ["Linear", "LayerNorm", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert head(torch.randn(4, 8)).shape == (4, 5)
    batch = mlp(8, 5, hidden=[16], norm="batch")
    assert any(isinstance(layer, nn.BatchNorm1d) for layer in batch.children())
