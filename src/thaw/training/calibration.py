"""Calibration: one number, the temperature, that makes a model's confidence honest.

A model is calibrated if nine in ten of the photos for which it says 0.9 are right. Guo et al.
(arXiv:1706.04599) divide all class scores by a temperature before the softmax. They choose the one
with the smallest negative log-likelihood on the validation photos. The labels stay the same.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

from thaw.training.measures import BINS

STEP = 1.05  # from one temperature to the next; the true best one is at most 2.5 % away
LARGEST = 61  # steps away from 1, to both sides: temperatures from 0.051 to 19.6


class Calibration(Metric):
    """Fits the temperature (or takes the one given), and measures the calibration error.

    For every temperature of a grid, sums are added up over batches and ranks, so no class scores
    are kept. The calibration error (ECE) puts photos into 15 bins by the confidence of their best
    class, and is the mean over photos of the gap between confidence and accuracy of their bin.
    """

    full_state_update = False  # else torchmetrics calls update twice for each `forward`
    loss: Tensor  # (T,), sums over photos of the negative log-likelihood of the label
    spread: Tensor  # (T,), the same as a mean over all classes instead of the label
    bins: Tensor  # (T, BINS, 3), sums over photos of 1, confidence, and 1 where it is right

    def __init__(self, temperature: float | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.fits = temperature is None
        steps = range(-LARGEST, LARGEST + 1)
        self.grid = [STEP**step for step in steps] if temperature is None else [1.0, temperature]
        size = len(self.grid)
        self.add_state("loss", torch.zeros(size), dist_reduce_fx="sum")
        self.add_state("spread", torch.zeros(size), dist_reduce_fx="sum")
        self.add_state("bins", torch.zeros(size, BINS, 3), dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Adds the class scores (N, K), before the softmax, and the labels (N,) of a batch."""
        best, chosen = scores.float().max(1, keepdim=True)
        below = scores.float() - best  # N K, none above 0: the largest term of each sum is 1
        # One temperature at a time, since (T, N, K) needs 31 MB for 64 photos of 1,000 classes.
        # A term below -80 no longer counts, and processors are slow at numbers that small.
        part = torch.empty_like(below)
        sums = [
            torch.mul(below, 1 / temperature, out=part).clamp_(min=-80).exp_().sum(1)
            for temperature in self.grid
        ]
        total = torch.stack(sums).log()  # T N
        temperatures = below.new_tensor(self.grid)[:, None]  # T 1
        of_label = below.gather(1, labels[:, None]).T / temperatures  # T N
        of_mean = below.mean(1) / temperatures
        self.loss += (total - of_label).sum(1)
        self.spread += (total - of_mean).sum(1)
        confidence = (-total).exp()  # of the best class
        right = (chosen.squeeze(1) == labels).float().expand_as(confidence)
        facts = torch.stack([torch.ones_like(confidence), confidence, right], 2)  # T N 3
        number = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
        self.bins += one_hot(number, BINS).float().transpose(1, 2) @ facts

    def compute(self) -> dict[str, Tensor]:
        """Gives `loss` and `ece_uncalibrated` of the scores, the `temperature`, and `ece` with it.

        If every validation photo is right, the likelihood alone would choose the smallest
        temperature. So one photo is added whose label is each class with a share of 1 / K. Platt's
        targets (N + 1) / (N + 2) do the same (Probabilistic outputs for SVMs, 1999, section 2.2).
        """
        photos = self.bins[0, :, 0].sum()
        plain = self.grid.index(1.0)
        best = int((self.loss + self.spread / photos).argmin()) if self.fits else 1
        _, confidence, right = self.bins.unbind(2)  # T BINS each
        error = (confidence - right).abs().sum(1) / photos  # T
        loss = self.loss[plain] / photos
        values = {"loss": loss, "ece": error[best], "ece_uncalibrated": error[plain]}
        fitted = {"temperature": self.loss.new_tensor(self.grid[best])}
        return values | fitted if self.fits else values
