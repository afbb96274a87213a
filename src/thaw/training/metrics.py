"""What is measured on every split, and which way each number is better."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from thaw.errors import check
from thaw.training.measures import BINS, MODES

STEP = 1.05  # from one temperature to the next; the true best one is at most 2.5 % away
LARGEST = 61  # steps away from 1, to both sides: temperatures from 0.051 to 19.6


class MeanClassAccuracy(MulticlassAccuracy):
    """Mean accuracy of the classes that have photos; torchmetrics may count one without as 0."""

    def compute(self) -> Tensor:
        right, _, _, missed = self._final_state()  # (K,) each
        photos = right + missed
        return (right[photos > 0] / photos[photos > 0]).mean()


class Calibration(Metric):
    """Fits the temperature (or takes the one given), and measures the calibration error.

    A model is calibrated if nine in ten of the photos for which it says 0.9 are right. Guo et al.
    (arXiv:1706.04599) divide all class scores by a temperature before the softmax, the one with the
    smallest negative log-likelihood on the validation photos. For every temperature of a grid, sums
    are added up over batches and ranks. The calibration error (ECE) puts photos into 15 bins by the
    confidence of their best class: the mean gap between confidence and accuracy of their bin.
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
        for name, shape in (("loss", (size,)), ("spread", (size,)), ("bins", (size, BINS, 3))):
            self.add_state(name, torch.zeros(shape), dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Adds the class scores (N, K), before the softmax, and the labels (N,) of a batch."""
        best, chosen = scores.float().max(1, keepdim=True)
        below = scores.float() - best  # N K, none above 0: the largest term of each sum is 1
        # One temperature at a time, since (T, N, K) needs 31 MB for 64 photos of 1,000 classes.
        # A term below -80 no longer counts, and processors are slow at numbers that small.
        part = torch.empty_like(below)
        sums = [torch.mul(below, 1 / temperature, out=part).clamp_(min=-80).exp_().sum(1)
                for temperature in self.grid]  # fmt: skip
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
        # a sum, since in mixed precision a product of matrices would round to 8 bits
        self.bins += (one_hot(number, BINS)[..., None] * facts[:, :, None]).sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Gives `loss` and `ece_uncalibrated` of the scores, the `temperature`, and `ece` with it.

        One photo is added whose label is each class with a share of 1 / K; else, if all photos are
        right, the smallest temperature would be best (Platt 1999, section 2.2).
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


class Scores(nn.Module):
    """All metrics of a split over an epoch, logged once as `split`/name, at its end.

    acc: share of photos whose best class is right; acc_top5: whose label is among the best five.
    acc_macro: mean over classes of the accuracy within each, as the Pets and Flowers papers report.
    f1: macro F1. The others are of `Calibration`, which fits the temperature where it is None.
    """

    def __init__(self, num_classes: int, split: str, temperature: float | None = None) -> None:
        super().__init__()
        micro: dict[str, Any] = {"average": "micro", "validate_args": False}
        macro: dict[str, Any] = {"average": "macro", "validate_args": False}
        metrics: dict[str, Any] = {
            "acc": MulticlassAccuracy(num_classes, **micro),
            "acc_top5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), **micro),
            "acc_macro": MeanClassAccuracy(num_classes, **macro),
            "f1": MulticlassF1Score(num_classes, **macro),
            "calibration": Calibration(temperature),
        }
        # By hand: torchmetrics joins those whose counts agree in the first batch, and a first
        # batch that is all right would make acc_top5 one with acc for good.
        groups = [["acc"], ["acc_top5"], ["acc_macro", "f1"], ["calibration"]]
        self.metrics = MetricCollection(metrics, prefix=f"{split}/", compute_groups=groups)

    def add(self, scores: Tensor, labels: Tensor) -> None:  # (N, K), (N,)
        self.metrics.update(scores.float(), labels)

    def log(self, module: LightningModule) -> dict[str, Tensor]:
        """Logs the metrics over the photos of all ranks, returns them, and starts again."""
        values = self.metrics.compute()
        module.log_dict(values, sync_dist=True)  # torchmetrics has made them equal on all ranks
        self.metrics.reset()
        return values


def best_class(scores: Tensor, temperature: float) -> Tensor:
    """Scores (N, K) -> float32 (N, 3): best class, its probability, and that before calibration."""
    scores = scores.float()
    shares = [(scores / divisor).softmax(1).amax(1) for divisor in (temperature, 1)]
    return torch.stack([scores.argmax(1).float(), *shares], 1)


def in_order(trainer: Trainer, own: Tensor) -> Tensor:
    """Joins the rows (n, C) of all ranks, of which rank r of W has r, r + W, r + 2 W, ..."""
    total = trainer.strategy.reduce(torch.tensor(len(own), device=own.device), reduce_op="sum")
    table = own.new_zeros(int(total), own.shape[1])
    table[trainer.global_rank :: trainer.world_size] = own
    return trainer.strategy.reduce(table, reduce_op="sum")


def monitor_modes(callbacks: Any, *, monitor: str, validates: bool) -> dict[str, Any]:
    """Fills in `mode` where a callback (by name) monitors a metric, so "max" for a loss cannot be.

    The best checkpoint is chosen among the epochs that are validated; the last one without photos.
    """
    known = ", ".join(f"val/{name}" for name in MODES)
    check(str(monitor) in known.split(", "), "monitor", monitor, known)
    nodes: dict[str, Any] = dict(callbacks or {})
    for name, node in nodes.items():
        if not isinstance(node, Mapping):  # off, or told when it is built
            continue
        key, target = f"callbacks.{name}", str(node.get("_target_"))
        bad = target.endswith(("StochasticWeightAveraging", "Finetuning")) and "lightning" in target
        check(not bad, f"{key}._target_", target, "callbacks=ema, or a choice of finetune=")
        if (own := node.get("monitor")) is None:
            continue
        check(str(own) in known.split(", "), f"{key}.monitor", own, known)
        if name == "checkpoint":
            allowed = f"{monitor}, by which the run goes; set monitor={own} instead"
            check(own == monitor, f"{key}.monitor", own, allowed)
        else:
            allowed = "null without validation photos; set data.val_fraction=0.2, or"
            check(validates, f"{key}.monitor", own, f"{allowed} choose callbacks=default")
        mode = {"mode": MODES[own.partition("/")[2]], **node}
        nodes[name] = mode if validates else {**node, "monitor": None}
    return nodes
