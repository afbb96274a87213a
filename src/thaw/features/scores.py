"""How well features tell classes apart: guesses of what training on top of them will give.

Pure functions of features (N, D) and labels (N,). None of them sees a test photo.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from thaw.features.solvers import logistic

FOLDS = 5
NEIGHBOURS = (5, 20)  # 20 was best on ImageNet (DINO), 5 suits classes of ten photos
TEMPERATURE = 0.07  # of the neighbours' votes, DINO's
CHUNK = 1024  # photos whose similarities to all others are held at once
ROUNDS = 1000  # of LogME's iteration at most
CLOSE = 1e-6  # relative change of alpha / beta at which it ends
NEARLY_ALL = 1e-9  # of a direction's spread: alpha / beta below this share of it is as good as 0


@dataclass(frozen=True)
class Probe:
    """A linear classifier on features, cross-validated.

    Attributes:
        accuracy: share 0-1 of all photos that are right when they are held out.
        strength: of the regularisation, see `solvers.logistic`.
        right: (N,) which photos these are.
    """

    accuracy: float
    strength: float
    right: Tensor

    @property
    def error(self) -> float:
        """Standard error of the accuracy, from the number of photos."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / len(self.right))


def probe(features: Tensor, labels: Tensor, *, folds: int = FOLDS) -> Probe:
    """Logistic regression in stratified cross-validation.

    The strength is the one that is best on the first fold; the others are solved with it alone. So
    that fold's fifth of the accuracy is a little too good, for every backbone alike.

    Args:
        features: (N, D).
        labels: (N,).
        folds: number of parts; each is held out once.
    """
    classes = int(labels.max()) + 1
    fold = folds_of(labels, folds)
    right = torch.zeros(len(labels), dtype=torch.bool)
    strengths: tuple[float, ...] | None = None  # all
    for number in range(folds):
        held = fold == number
        found = logistic(
            (features[~held], labels[~held]), (features[held], labels[held]), classes,
            strengths=strengths,
        )  # fmt: skip
        strengths = (found.strength,)
        scores = functional.linear(features[held].float(), found.weight, found.bias)
        right[held] = scores.argmax(1) == labels[held]
    assert strengths is not None
    return Probe(right.float().mean().item(), strengths[0], right)


def folds_of(labels: Tensor, folds: int) -> Tensor:
    """(N,) which part each photo is in: every class spread evenly, drawn the same each time."""
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = drawn[labels[drawn].argsort(stable=True)]
    fold = torch.empty_like(labels)
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold


def difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    """How much more often `one` is right, and the standard error of that.

    Photos that both get right or wrong do not blur it: they were asked about the same ones.

    Args:
        one, other: (N,) which photos are right.
    """
    gap = one.double() - other.double()  # -1, 0 or 1
    return gap.mean().item(), (gap.var(correction=0) / len(gap)).sqrt().item()


def nearest(
    features: Tensor, labels: Tensor, *, neighbours: tuple[int, ...] = NEIGHBOURS
) -> tuple[float, int]:
    """Accuracy of the nearest neighbours among all other photos, and the best number of them.

    Neighbours by cosine, each voting for its class with the weight exp(cosine / 0.07), as Wu et al.
    (arXiv:1805.01978) and DINO (arXiv:2104.14294, section 3.2) evaluate features.

    Args:
        features: (N, D).
        labels: (N,).
        neighbours: numbers to try.
    """
    x = functional.normalize(features.float(), dim=1)
    numbers = sorted({min(number, len(x) - 1) for number in neighbours})
    right = dict.fromkeys(numbers, 0)
    classes = int(labels.max()) + 1
    for start in range(0, len(x), CHUNK):
        cosine = x[start : start + CHUNK] @ x.T  # (n, N)
        rows = torch.arange(len(cosine))
        cosine[rows, start + rows] = -math.inf  # not itself
        top, places = cosine.topk(numbers[-1], dim=1)
        votes = ((top - top[:, :1]) / TEMPERATURE).exp()  # from the nearest's, against overflow
        for number in numbers:
            count = torch.zeros(len(cosine), classes)
            count.scatter_add_(1, labels[places[:, :number]], votes[:, :number])
            right[number] += int((count.argmax(1) == labels[start + rows]).sum())
    best = max(numbers, key=lambda number: right[number])
    return right[best] / len(x), best


def logme(features: Tensor, labels: Tensor) -> float:
    """LogME: mean over classes of the largest log evidence, per photo, of a Bayesian linear model.

    For each class the one-hot label is y = F w + noise with w ~ N(0, 1 / alpha) and noise
    ~ N(0, 1 / beta), features F as they are; alpha and beta maximise p(y | F). (You et al. 2021,
    arXiv:2102.11005; the fixed-point iteration of arXiv:2110.10545, here to its end. With fewer
    photos than features the authors' code (thuml/LogME) lacks a term of log|A| for the directions
    that no photo spans; here it is in, as in the paper.)

    Args:
        features: (N, D).
        labels: (N,); classes without photos do not count.
    """
    f = features.double()
    number = len(f)
    y = functional.one_hot(labels).double()
    y = y[:, y.sum(0) > 0]  # (N, K)
    # F = U S V'; r directions with a spread. The smaller of F'F and FF' is decomposed.
    if f.shape[1] <= number:
        sigma, vectors = torch.linalg.eigh(f.T @ f)
    else:
        sigma, vectors = torch.linalg.eigh(f @ f.T)
    real = sigma > sigma.max() * 1e-12
    sigma, vectors = sigma[real, None], vectors[:, real]  # (r, 1), (., r)
    inside = vectors.T @ (f.T @ y) if f.shape[1] <= number else vectors.T @ y  # (r, K)
    squares = inside.square() / sigma if f.shape[1] <= number else inside.square()  # of U'y
    outside = number > len(sigma)  # else it is rounding
    rest = (y.square().sum(0) - squares.sum(0)).clamp(min=0) * outside  # (K,) in no direction
    # alpha / beta; features that fit all labels, or none, send it to 0 or infinity
    lowest, highest = NEARLY_ALL * sigma.min(), sigma.max() / NEARLY_ALL
    ratio = sigma.mean() * torch.ones(y.shape[1], dtype=torch.float64)
    alpha, beta, length, wrong = _update(ratio, sigma, squares, rest, number)
    for _ in range(ROUNDS):
        before, ratio = ratio, (alpha / beta).clamp(lowest, highest)
        alpha, beta, length, wrong = _update(ratio, sigma, squares, rest, number)
        if ((ratio - before).abs() <= CLOSE * before).all():
            break
    evidence = number * (beta / (2 * math.pi)).log() - beta * wrong - alpha * length
    # D/2 log alpha - 1/2 log|alpha + beta F'F|: alpha cancels outside of the r directions
    evidence = evidence + (alpha / (alpha + beta * sigma)).log().sum(0)
    return (evidence / 2 / number).mean().item()


def _update(
    ratio: Tensor, sigma: Tensor, squares: Tensor, rest: Tensor, number: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha, beta, |m|^2 and |y - F m|^2, each (K,), of the weights m at alpha / beta = ratio.

    Args:
        ratio: (K,).
        sigma: (r, 1) squared singular values of the features.
        squares: (r, K) of the labels along their directions.
        rest: (K,) of the labels in none of them.
        number: N.
    """
    tiny = torch.finfo(torch.float64).tiny
    used = (sigma / (sigma + ratio)).sum(0)  # the effective number of weights
    free = (ratio / (sigma + ratio)).sum(0) + number - len(sigma)  # number - used, exactly
    length = (sigma * squares / (sigma + ratio).square()).sum(0).clamp(min=tiny)
    wrong = (squares * (ratio / (sigma + ratio)).square()).sum(0) + rest
    return used / length, free / wrong.clamp(min=tiny), length, wrong
