"""Scores of features are what their papers' formulas and a brute force say."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

from thaw.features.scores import FOLDS, TEMPERATURE, difference, folds_of, logme, nearest, probe

K = 3


def blobs(number: int, width: int, *, apart: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features (N, D) around a centre for each of K classes, and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (number,), generator=generator)
    centres = torch.randn(K, width, generator=generator)
    noise = torch.randn(number, width, generator=generator)
    return 2 + apart * centres[labels] + noise, labels


# ---------------------------------------------------------------- LogME


def log_evidence(features: Tensor, y: Tensor, alpha: float, beta: float) -> float:
    """log p(y | F), the way the paper has it (arXiv:2102.11005, section 4.2): dense matrices."""
    f = features.double().numpy()
    number, width = f.shape
    a = alpha * np.eye(width) + beta * f.T @ f
    m = beta * np.linalg.solve(a, f.T @ y.numpy())
    wrong = np.square(f @ m - y.numpy()).sum()
    return (
        number / 2 * math.log(beta / (2 * math.pi)) + width / 2 * math.log(alpha)
        - beta / 2 * wrong - alpha / 2 * m @ m - np.linalg.slogdet(a)[1] / 2
    )  # fmt: skip


def by_climbing(features: Tensor, labels: Tensor) -> float:
    """LogME with a general maximiser instead of the paper's iteration."""
    found = []
    for label in labels.unique():
        y = (labels == label).double()
        best = minimize(
            lambda logs, y=y: -log_evidence(features, y, *np.exp(logs)), [0.0, 0.0],
            method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000},
        )  # fmt: skip
        found.append(-best.fun / len(labels))
    return float(np.mean(found))


def by_the_papers_iteration(features: Tensor, labels: Tensor) -> float:
    """Algorithm 1 of arXiv:2102.11005 with dense matrices: MacKay's updates of alpha and beta."""
    f = features.double()
    number, width = f.shape
    found = []
    for label in labels.unique():
        y = (labels == label).double()
        alpha = beta = 1.0
        for _ in range(300):
            a = alpha * torch.eye(width, dtype=torch.float64) + beta * f.T @ f
            m = beta * torch.linalg.solve(a, f.T @ y)
            gamma = (beta * f.T @ f @ torch.linalg.inv(a)).trace()
            alpha = float(gamma / m.square().sum())
            beta = float((number - gamma) / (f @ m - y).square().sum())
        found.append(log_evidence(features, y, alpha, beta) / number)
    return float(np.mean(found))


@pytest.mark.parametrize(("number", "width"), [(60, 7), (40, 30), (25, 60)])
def test_logme_is_the_largest_evidence(number: int, width: int) -> None:
    """With more photos than features and with fewer, most of which hardly vary."""
    features, labels = blobs(number, width)
    features = features * 0.7 ** torch.arange(width)
    assert logme(features, labels) == pytest.approx(by_climbing(features, labels), abs=1e-6)


def test_logme_is_where_the_papers_iteration_ends() -> None:
    features, labels = blobs(60, 7)
    expected = by_the_papers_iteration(features, labels)
    assert logme(features, labels) == pytest.approx(expected, abs=1e-8)


def test_logme_of_features_that_fit_every_label() -> None:
    """More features than photos: no noise is best, beta is infinite and alpha has a formula."""
    features, labels = blobs(25, 60)
    spread = features.double() @ features.double().T
    expected = []
    for label in labels.unique():
        y = (labels == label).double()
        alpha = 25 / (y @ torch.linalg.solve(spread, y))
        gaussian = torch.distributions.MultivariateNormal(torch.zeros(25).double(), spread / alpha)
        expected.append(float(gaussian.log_prob(y)) / 25)
    assert logme(features, labels) == pytest.approx(float(np.mean(expected)), abs=1e-6)


def test_the_evidence_is_that_of_a_gaussian() -> None:
    """The reference itself: y ~ N(0, I / beta + F F' / alpha)."""
    features, labels = blobs(12, 5)
    y, alpha, beta = (labels == 1).double(), 0.7, 3.0
    f = features.double()
    spread = torch.eye(12, dtype=torch.float64) / beta + f @ f.T / alpha
    gaussian = torch.distributions.MultivariateNormal(torch.zeros(12).double(), spread)
    assert log_evidence(features, y, alpha, beta) == pytest.approx(float(gaussian.log_prob(y)))


def test_logme_does_not_depend_on_the_scale_or_on_a_class_without_photos() -> None:
    features, labels = blobs(60, 7)
    features = features.double()
    found = logme(features, labels)
    assert logme(1e3 * features, labels) == pytest.approx(found, abs=1e-9)
    assert logme(features, 2 * labels) == pytest.approx(found, abs=1e-12)
    turned, _ = torch.linalg.qr(blobs(7, 7, seed=1)[0].double())
    assert logme(features @ turned, labels) == pytest.approx(found, abs=1e-9)
    twice = torch.cat([features, features[:, :3]], 1)  # directions without a spread of their own
    assert math.isfinite(logme(twice, labels))


# ---------------------------------------------------------------- nearest neighbours


def by_brute_force(features: Tensor, labels: Tensor, neighbours: int) -> float:
    right = 0
    for place, own in enumerate(features):
        others = [
            (float(functional.cosine_similarity(own, other, dim=0)), int(label))
            for number, (other, label) in enumerate(zip(features, labels, strict=True))
            if number != place
        ]
        votes = dict.fromkeys(range(K), 0.0)
        for cosine, label in sorted(others, reverse=True)[:neighbours]:
            votes[label] += math.exp(cosine / TEMPERATURE)
        right += max(votes, key=lambda label: votes[label]) == int(labels[place])
    return right / len(labels)


@pytest.mark.parametrize("neighbours", [1, 4, 20])
def test_nearest_neighbours_by_brute_force(neighbours: int) -> None:
    features, labels = blobs(70, 6, apart=0.6)
    found, number = nearest(features, labels, neighbours=(neighbours,))
    assert number == neighbours
    expected = by_brute_force(features, labels, neighbours)
    assert found == pytest.approx(expected, abs=1e-9)
    assert 1 / K < expected < 1


def test_nearest_neighbours_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(70, 6, apart=0.6)
    whole = nearest(features, labels)
    monkeypatch.setattr("thaw.features.scores.CHUNK", 16)
    assert nearest(features, labels) == whole


def test_the_best_number_of_neighbours_is_taken() -> None:
    features, labels = blobs(70, 6, apart=0.6)
    each = {number: nearest(features, labels, neighbours=(number,))[0] for number in (1, 5, 20)}
    found, number = nearest(features, labels, neighbours=(1, 5, 20))
    assert found == max(each.values()) == each[number]
    assert nearest(features[:9], labels[:9], neighbours=(20,))[1] == 8  # all others


# ---------------------------------------------------------------- probe


def test_the_probe_is_a_cross_validated_logistic_regression() -> None:
    """scikit-learn's, at the strength that was chosen; it counts C = 1 / (N strength)."""
    from sklearn import linear_model as linear

    features, labels = blobs(200, 20, apart=0.5)
    found = probe(features, labels)
    fold = folds_of(labels, FOLDS)
    right = np.zeros(len(labels), dtype=bool)
    for number in range(FOLDS):
        kept, held = fold != number, fold == number
        x = features[kept]
        center, scale = x.mean(0), x.var(0).mean().sqrt()
        model = linear.LogisticRegression(C=1 / (int(kept.sum()) * found.strength), max_iter=2000)
        model.fit(((x - center) / scale).numpy(), labels[kept].numpy())
        guess = model.predict(((features[held] - center) / scale).numpy())
        right[held.numpy()] = guess == labels[held].numpy()
    assert 0.4 < found.accuracy < 0.95
    assert (found.right.numpy() != right).mean() <= 0.01
    assert found.accuracy == pytest.approx(found.right.float().mean().item())
    assert found.error == pytest.approx(np.std(right) / math.sqrt(200), rel=0.05)


def test_no_photo_is_asked_about_by_a_probe_that_has_seen_it() -> None:
    """Labels by lot, and more features than photos: seen ones would be known by heart."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 400, generator=generator)
    labels = torch.randint(2, (300,), generator=generator)
    assert probe(features, labels).accuracy == pytest.approx(0.5, abs=0.12)


def test_folds_spread_each_class() -> None:
    labels = torch.tensor([0] * 23 + [1] * 5 + [2] * 7)
    fold = folds_of(labels, FOLDS)
    for label, number in ((0, 23), (1, 5), (2, 7)):
        counts = torch.bincount(fold[labels == label], minlength=FOLDS)
        assert counts.sum() == number
        assert counts.max() - counts.min() <= 1
    counts = torch.bincount(fold)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(fold, folds_of(labels, FOLDS))


def test_a_difference_is_of_pairs() -> None:
    one = torch.tensor([True, True, True, False] * 25)
    other = torch.tensor([True, True, False, False] * 25)
    gap, error = difference(one, other)
    assert gap == pytest.approx(0.25)
    assert error == pytest.approx(math.sqrt(0.25 * 0.75 / 100))  # not that of two proportions
    assert difference(one, one) == (0.0, 0.0)
