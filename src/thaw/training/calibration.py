"""Calibration: one temperature that makes a model's confidence honest.

A model is calibrated when, of all photos for which it says 0.9, nine in ten are right. Guo et al.
(arXiv:1706.04599) divide all class scores by one number, the temperature, before the softmax, and
choose the number with the smallest negative log-likelihood on the validation photos. This changes
no label, only how sure the model is.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import Metric

BINS = 15  # of confidence; the number that Guo et al. use
STEP = 1.05  # from one temperature to the next; the true best one is at most 2.5 % away
LARGEST = 61  # steps away from 1, to both sides: temperatures from 0.051 to 19.6


class Calibration(Metric):
    """Fits the temperature while batches pass by, and measures the calibration error.

    No class scores are kept: the sums below are enough. For every temperature of a grid they are
    added up over the batches, and over the processes of a distributed run, so that the result is
    the same however the photos were divided.

    The calibration error (ECE) puts photos into 15 bins by the confidence of their best class,
    and is the mean over all photos of the difference between the confidence and the accuracy of
    their bin.

    Args:
        temperature: measure the error at this temperature; None: fit the temperature.

    Attributes:
        grid: the T temperatures; one of them is exactly 1.
    """

    # torchmetrics would call update twice for each `forward` otherwise
    full_state_update = False
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
        """Adds the class scores (N, K), before the softmax, and labels (N,) of a batch."""
        best, chosen = scores.float().max(1, keepdim=True)
        below = scores.float() - best  # N K, none above 0: the largest term of each sum is 1
        # One temperature at a time: (T, N, K) would be 31 MB for 64 photos of 1,000 classes.
        # Below -80 a term no longer counts, and the processor is slow at numbers that small.
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
        """The mean `loss` and calibration error `ece_uncalibrated` of the scores as they are, the
        `temperature`, and the calibration error `ece` with it.

        Where every validation photo is right, the likelihood alone would choose the smallest
        temperature there is and call every later answer certain. So one photo is added of which
        nothing is known, each of its K classes being the label with a share of 1 / K. With the
        many photos of a usual split it changes nothing. Platt's targets (N + 1) / (N + 2) do the
        same (Probabilistic outputs for support vector machines, 1999, section 2.2).
        """
        photos = self.bins[0, :, 0].sum()
        plain = self.grid.index(1.0)
        best = int((self.loss + self.spread / photos).argmin()) if self.fits else 1
        _, confidence, right = self.bins.unbind(2)  # T BINS each
        error = (confidence - right).abs().sum(1) / photos  # T
        values = {
            "loss": self.loss[plain] / photos,
            "ece": error[best],
            "ece_uncalibrated": error[plain],
        }
        return values | (
            {"temperature": self.loss.new_tensor(self.grid[best])} if self.fits else {}
        )
