"""Solved heads are the solutions of their equations, and the strength is the best on validation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from thaw.solvers import Solution, logistic, ridge

K = 3


def blobs(number: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) around a centre for each class, far from zero and of their own scale."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(K, width, generator=torch.Generator().manual_seed(9))
    labels = torch.randint(K, (number,), generator=generator)
    noise = 2 * torch.randn(number, width, generator=generator)
    return 5 + 0.1 * (centres[labels] + noise), labels


def scores(solution: Solution, features: Tensor) -> Tensor:
    return functional.linear(features, solution.weight, solution.bias)


@pytest.mark.parametrize(("number", "width"), [(60, 8), (20, 40)])
def test_ridge_solves_the_normal_equations(number: int, width: int) -> None:
    """By the textbook's formula, with more photos than features and with fewer."""
    train, val = blobs(number, width, 0), blobs(50, width, 1)
    found = ridge(train, val, K)
    x = train[0].double() - train[0].double().mean(0)
    x = x / train[0].double().var(0).mean().sqrt()
    y = functional.one_hot(train[1], K).double()
    system = x.T @ x + found.strength * number * torch.eye(width, dtype=torch.float64)
    weight = torch.linalg.solve(system, x.T @ (y - y.mean(0)))
    expected = x @ weight + y.mean(0)
    ours = scores(found, train[0]).double()
    factor = (ours * expected).sum() / expected.square().sum()  # the temperature
    assert factor > 0
    assert torch.allclose(ours, factor * expected, atol=1e-3 * float(factor))


def test_logistic_stands_where_the_slope_is_zero() -> None:
    train, val = blobs(60, 8, 0), blobs(50, 8, 1)
    found = logistic(train, val, K, label_smoothing=0.1)
    scale = train[0].var(0).mean().sqrt()
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    loss = functional.cross_entropy(
        functional.linear(train[0], weight, bias), train[1], label_smoothing=0.1
    ) + found.strength / 2 * (weight * scale).square().sum()  # fmt: skip
    slopes = torch.autograd.grad(loss, (weight, bias))
    assert slopes[0].abs().max() < 2e-3 * scale  # 0.3 of it at zero
    assert slopes[1].abs().max() < 2e-3


@pytest.mark.parametrize("solve", [ridge, logistic])
def test_the_strength_is_the_best_on_validation(solve: Callable[..., Solution]) -> None:
    train, val = blobs(40, 30, 0), blobs(200, 30, 1)
    found = solve(train, val, K)
    accuracies = [accuracy for _, accuracy, _ in found.tried]
    assert found.accuracy == max(accuracies) > min(accuracies)
    right = (scores(found, val[0]).argmax(1) == val[1]).float().mean().item()
    assert found.accuracy == right
    best = [row for row in found.tried if row[1] == right]
    assert found.strength == min(best, key=lambda row: row[2])[0]


@pytest.mark.parametrize("solve", [ridge, logistic])
def test_the_scale_of_the_features_does_not_matter(solve: Callable[..., Solution]) -> None:
    train, val = blobs(40, 10, 0), blobs(60, 10, 1)
    one = solve(train, val, K)
    two = solve((train[0] * 50 - 7, train[1]), (val[0] * 50 - 7, val[1]), K)
    assert two.strength == one.strength
    assert torch.allclose(scores(one, val[0]).softmax(1),
                          scores(two, val[0] * 50 - 7).softmax(1), atol=0.02)  # fmt: skip


def test_ridges_scores_are_made_logits() -> None:
    """No other factor has a smaller cross-entropy on validation."""
    train, val = blobs(60, 8, 0), blobs(50, 8, 1)
    found = ridge(train, val, K)
    raw = scores(found, val[0])
    losses = [functional.cross_entropy(raw * factor, val[1]).item() for factor in (0.9, 1, 1.1)]
    assert losses[1] == min(losses)
