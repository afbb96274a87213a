"""A linear head solved at once on features, its regularisation chosen on validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional

# Ten to the power of these. Features are centred and have a mean variance of 1, so that the same
# strengths suit every backbone: on three data sets and two backbones, with one view and four, the
# best lay at 0.03 to 1 (ridge) and 0.001 to 1 (logistic), see benchmarks/LOG.md.
RIDGE = np.arange(-3.0, 3.01, 0.5)
LOGISTIC = np.arange(1.0, -6.01, -1.0)
SVM = np.arange(2.0, -4.01, -1.0)  # cats and dogs, MobileNetV2: 100 to 10; its features.7-13: 0.001
WORSE = 2  # strengths in a row after which the search for a better one ends
TEMPERATURES = np.logspace(-1, 3, 81)
Loss = Callable[[Tensor, Tensor, float], Tensor]  # head (K, D + 1), scores (N, K), strength -> ()
ITERATIONS = 100  # of L-BFGS for each strength; the next one goes on from there


@dataclass(frozen=True)
class Solution:
    """A head and how it was chosen.

    Attributes:
        weight: (K, D).
        bias: (K,).
        strength: of the regularisation.
        accuracy: share 0-1 of the validation photos that are right.
        tried: (strength, accuracy, mean cross-entropy) in order.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    accuracy: float
    tried: list[tuple[float, float, float]]


def logistic(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], num_classes: int, *,
    label_smoothing: float = 0.0, strengths: Sequence[float] | None = None,
) -> Solution:  # fmt: skip
    """Multinomial logistic regression: mean cross-entropy + strength / 2 * |W|^2, by L-BFGS.

    From strong regularisation to weak, each from the solution before; ends when two in a row are
    no better on validation. (The protocol of linear probes, arXiv:2103.00020, appendix A.3.)

    Args:
        train, val: features (N, D) and labels (N,).
        num_classes: K.
        label_smoothing: as in training.
        strengths: to try, strong first; None: 10 to the power of `LOGISTIC`.
    """

    def loss(both: Tensor, scores: Tensor, strength: float) -> Tensor:
        entropy = functional.cross_entropy(scores, train[1], label_smoothing=label_smoothing)
        return entropy + strength / 2 * both[:, :-1].square().sum()

    chosen = (10**LOGISTIC).tolist() if strengths is None else strengths
    return _best_along(chosen, loss, train, val, num_classes)


def ridge(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], num_classes: int) -> Solution:
    """Least squares on one-hot labels + strength * |W|^2, all strengths from one decomposition.

    Its scores are no logits; they are multiplied by the number that makes them the best ones on
    validation, so that training can go on with cross-entropy from there.

    Args:
        train, val: features (N, D) and labels (N,).
        num_classes: K.
    """
    (features, labels), center, scale = train, *_scale(train[0])
    x = ((features - center) / scale).double()
    y = functional.one_hot(labels, num_classes).double()  # (N, K)
    prior = y.mean(0)
    # In the smaller of the two spaces: X'X = V S V' (D, D) or XX' = U S U' (N, N)
    if wide := x.shape[1] > x.shape[0]:
        values, vectors = torch.linalg.eigh(x @ x.T)
        inside = vectors.T @ (y - prior)
    else:
        values, vectors = torch.linalg.eigh(x.T @ x)
        inside = vectors.T @ (x.T @ (y - prior))
    found: list[tuple[Tensor, Tensor]] = []
    tried: list[tuple[float, float, float]] = []
    for strength in 10**RIDGE:
        shrunk = inside / (values.clamp(min=0) + strength * len(x))[:, None]
        weight = (x.T @ (vectors @ shrunk) if wide else vectors @ shrunk).T  # (K, D)
        unscaled = _unscaled(weight.float(), prior.float(), center, scale)
        found.append(_as_logits(*unscaled, *val))
        tried.append((float(strength), *_quality(*found[-1], *val)))
    return _solution(found, tried)


def svm(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], num_classes: int) -> Solution:
    """Linear support vector machines, each class against the rest.

    Each has the least mean of max(0, 1 - y f(x))^2, y = +1 or -1, + strength / 2 * (|w|^2 + b^2):
    scikit-learn's LinearSVC, but all at once by L-BFGS (benchmarks/LOG.md has the seconds). From
    strong regularisation to weak, as `logistic`. Scores are no logits either, see `ridge`:
    multiplied alike, which changes no decision.

    Args:
        train, val: features (N, D) and labels (N,).
        num_classes: K.
    """
    signs = 2.0 * functional.one_hot(train[1], num_classes) - 1  # (N, K)

    def loss(both: Tensor, scores: Tensor, strength: float) -> Tensor:
        gaps = functional.relu(1 - signs * scores)
        return gaps.square().mean(0).sum() + strength / 2 * both.square().sum()

    return _best_along((10**SVM).tolist(), loss, train, val, num_classes, as_logits=True)


def _best_along(
    strengths: Sequence[float], loss: Loss, train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor], num_classes: int, *, as_logits: bool = False,
) -> Solution:  # fmt: skip
    """The best on validation of the heads with the least loss, each found from the one before.

    The weakest strengths may end at `ITERATIONS`, short of their least loss.

    Args:
        strengths: strong first; ends when two in a row are no better.
        loss: of the head and its scores, and the strength.
        train, val: features (N, D) and labels (N,).
        num_classes: K.
        as_logits: multiply the scores by what suits validation best.
    """
    features, (center, scale) = train[0], _scale(train[0])
    x = (features.float() - center) / scale  # (N, D)
    shape = (num_classes, x.shape[1] + 1)
    flat = np.zeros(shape[0] * shape[1])

    def loss_and_slope(flat: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).to(x).view(shape).requires_grad_()
        scores = torch.addmm(both[:, -1], x, both[:, :-1].T)  # (N, K)
        value = loss(both, scores, strength)
        (slope,) = torch.autograd.grad(value, both)
        return value.item(), slope.double().reshape(-1).numpy()

    found: list[tuple[Tensor, Tensor]] = []
    tried: list[tuple[float, float, float]] = []
    for strength in strengths:
        solved = minimize(loss_and_slope, flat, (strength,), "L-BFGS-B", jac=True,
                          options={"maxiter": ITERATIONS})  # fmt: skip
        flat = solved.x
        both = torch.from_numpy(flat).float().view(shape)
        head = _unscaled(both[:, :-1], both[:, -1], center, scale)
        found.append(_as_logits(*head, *val) if as_logits else head)
        tried.append((float(strength), *_quality(*found[-1], *val)))
        if _best(tried) < len(tried) - WORSE:
            break
    return _solution(found, tried)


def _scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,), and the root of the mean variance ()."""
    features = features.float()
    return features.mean(0), features.var(0).mean().sqrt().clamp(min=1e-12)


def _unscaled(weight: Tensor, bias: Tensor, center: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The head for features as they are."""
    weight = weight / scale
    return weight, bias - weight @ center


def _as_logits(
    weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """The head times the number that gives the smallest cross-entropy (arXiv:1706.04599)."""
    scores = functional.linear(features.float(), weight, bias)
    losses = [functional.cross_entropy(scores * t, labels).item() for t in TEMPERATURES]
    best = TEMPERATURES[int(np.argmin(losses))]
    return weight * best, bias * best


def _quality(weight: Tensor, bias: Tensor, features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy."""
    scores = functional.linear(features.float(), weight, bias)
    right = (scores.argmax(1) == labels).float().mean()
    return right.item(), functional.cross_entropy(scores, labels).item()


def _best(tried: list[tuple[float, float, float]]) -> int:
    """The most accurate; of equal ones that with the smaller cross-entropy."""
    return max(range(len(tried)), key=lambda place: (tried[place][1], -tried[place][2]))


def _solution(
    found: list[tuple[Tensor, Tensor]], tried: list[tuple[float, float, float]]
) -> Solution:
    best = _best(tried)
    return Solution(*found[best], tried[best][0], tried[best][1], tried)
