"""Solved heads are the solutions of their equations, and the strength is the best on validation."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from thaw.features.solvers import Solution, logistic, ridge, svm

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


@pytest.mark.parametrize("solve", [ridge, logistic, svm])
def test_the_strength_is_the_best_on_validation(solve: Callable[..., Solution]) -> None:
    train, val = blobs(40, 30, 0), blobs(200, 30, 1)
    found = solve(train, val, K)
    accuracies = [accuracy for _, accuracy, _ in found.tried]
    assert found.accuracy == max(accuracies) > min(accuracies)
    right = (scores(found, val[0]).argmax(1) == val[1]).float().mean().item()
    assert found.accuracy == right
    best = [row for row in found.tried if row[1] == right]
    assert found.strength == min(best, key=lambda row: row[2])[0]


@pytest.mark.parametrize("solve", [ridge, logistic, svm])
def test_the_scale_of_the_features_does_not_matter(solve: Callable[..., Solution]) -> None:
    train, val = blobs(40, 10, 0), blobs(60, 10, 1)
    one = solve(train, val, K)
    two = solve((train[0] * 50 - 7, train[1]), (val[0] * 50 - 7, val[1]), K)
    assert two.strength == one.strength
    assert torch.allclose(scores(one, val[0]).softmax(1),
                          scores(two, val[0] * 50 - 7).softmax(1), atol=0.02)  # fmt: skip


@pytest.mark.parametrize("classes", [2, 3])
def test_support_vector_machines_have_the_least_hinge(classes: int) -> None:
    """Against scipy, one class at a time; of two classes each has the other's border."""
    train, val = blobs(60, 8, 0), blobs(50, 8, 1)
    train, val = ((features, labels % classes) for features, labels in (train, val))
    found = svm(train, val, classes)
    x = (train[0] - train[0].mean(0)).double() / train[0].double().var(0).mean().sqrt()
    both = np.c_[x.numpy(), np.ones(len(x))]
    expected = []
    for label in range(classes):
        sign = np.where(train[1].numpy() == label, 1.0, -1.0)

        def loss(w: np.ndarray, sign: np.ndarray = sign) -> tuple[float, np.ndarray]:
            gap = np.maximum(0, 1 - sign * (both @ w))
            slope = -2 / len(x) * both.T @ (gap * sign) + found.strength * w
            return float((gap**2).mean() + found.strength / 2 * w @ w), slope

        solved = minimize(loss, np.zeros(both.shape[1]), jac=True, options={"gtol": 1e-8})
        expected.append(both @ solved.x)
    reference = torch.from_numpy(np.stack(expected, 1))  # (N, K)
    ours = scores(found, train[0]).double()
    factor = (ours * reference).sum() / reference.square().sum()  # the temperature
    assert factor > 0
    assert torch.allclose(ours, factor * reference, atol=5e-3 * float(factor))


def test_two_classes_are_told_apart_as_scikit_learn_does() -> None:
    from sklearn.svm import LinearSVC

    train, val = blobs(60, 8, 0), blobs(200, 8, 1)
    train, val = ((features, labels % 2) for features, labels in (train, val))
    found = svm(train, val, 2)
    scale = train[0].var(0).mean().sqrt()
    x, other = ((split[0] - train[0].mean(0)) / scale for split in (train, val))
    machine = LinearSVC(C=1 / (found.strength * len(x)), dual=False).fit(x, train[1])
    predicted = torch.from_numpy(machine.predict(other))
    assert torch.equal(scores(found, val[0]).argmax(1), predicted)
    assert predicted.unique().tolist() == [0, 1]


def test_a_class_without_photos_is_never_chosen() -> None:
    features, labels = blobs(60, 8, 0)
    two = features[labels != 1], labels[labels != 1]
    found = svm(two, blobs(50, 8, 1), K)
    assert found.weight[1].abs().max() < 1e-3 * found.weight.abs().max()
    chosen = scores(found, blobs(200, 8, 2)[0]).argmax(1)
    assert chosen.unique().tolist() == [0, 2]


@pytest.mark.parametrize("solve", [ridge, svm])
def test_scores_are_made_logits(solve: Callable[..., Solution]) -> None:
    """No other factor has a smaller cross-entropy on validation."""
    train, val = blobs(60, 8, 0), blobs(50, 8, 1)
    found = solve(train, val, K)
    raw = scores(found, val[0])
    losses = [functional.cross_entropy(raw * factor, val[1]).item() for factor in (0.9, 1, 1.1)]
    assert losses[1] == min(losses)
