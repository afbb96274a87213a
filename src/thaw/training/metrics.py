"""What is measured on every split, and which way each number is better."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
)

from thaw.errors import ConfigError
from thaw.training.measures import MODES


class MeanClassAccuracy(MulticlassAccuracy):
    """Mean, over the classes that have photos, of the accuracy within each.

    torchmetrics' macro average counts a class without photos as 0 once it is predicted anywhere.
    """

    def compute(self) -> Tensor:
        """From the counts of all batches."""
        right, _, _, missed = self._final_state()  # (K,) each
        photos = right + missed
        return (right[photos > 0] / photos[photos > 0]).mean()


class Means:
    """Weighted means over an epoch, on the device and without waiting for it.

    Lightning's `self.log` does the same, for half a millisecond a value and step.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight = 0

    def add(self, values: Mapping[str, Tensor], weight: int) -> None:
        """One step's means over `weight` photos."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.float() * weight
        self.weight += weight

    def take(self) -> tuple[dict[str, Tensor], int]:
        """The means, and the photos that they are of; begins anew."""
        means = {name: total / self.weight for name, total in self.sums.items()}
        weight = self.weight
        self.sums, self.weight = {}, 0
        return means, weight


def make_metrics(num_classes: int, split: str) -> MetricCollection:
    """Metrics over probabilities (N, K) and labels (N,), logged as `split`/name.

    acc: share of photos whose best class is right. acc_top5: among the best five (or all, where
    there are fewer classes). acc_macro: mean over classes of the accuracy within each, as the Pets
    and Flowers papers report; classes without photos left out. f1: macro F1. ece: expected
    calibration error over 15 bins (arXiv:1706.04599).
    """
    return MetricCollection(
        {
            "acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False),
            "acc_top5": MulticlassAccuracy(
                num_classes, top_k=min(5, num_classes), average="micro", validate_args=False
            ),
            "acc_macro": MeanClassAccuracy(num_classes, average="macro", validate_args=False),
            "f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, validate_args=False),
        },
        prefix=f"{split}/",
        # by hand: torchmetrics joins those whose counts agree in the first batch, and a first batch
        # that is all right makes acc_top5 one with acc for good
        compute_groups=[["acc"], ["acc_top5"], ["acc_macro", "f1"], ["ece"]],
    )


class Scores(nn.Module):
    """All metrics of a split over an epoch, logged once, at its end.

    In every step Lightning would take as long to note a metric as it takes to update it.
    """

    def __init__(self, num_classes: int, split: str) -> None:
        super().__init__()
        self.split = split
        self.metrics = make_metrics(num_classes, split)
        self.means = Means()

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Class scores (N, K) and labels (N,) of a batch."""
        scores = scores.float()
        self.metrics.update(scores.softmax(1), labels)
        # plain cross-entropy, comparable whatever the training loss smooths
        self.means.add({f"{self.split}/loss": cross_entropy(scores, labels)}, len(labels))

    def log(self, module: LightningModule) -> None:
        """Over the photos of all ranks; begins anew."""
        means, weight = self.means.take()
        module.log_dict(means, batch_size=weight, sync_dist=True)
        module.log_dict(self.metrics.compute(), sync_dist=True)  # equal on all ranks already
        self.metrics.reset()


def monitor_modes(
    callbacks: Mapping[str, Any] | None, *, validates: bool, validate_every: int = 1
) -> dict[str, Any]:
    """Callback nodes with `mode` filled in wherever a metric is monitored.

    So the metric is chosen in one place, and "max" for a loss cannot happen.

    Args:
        callbacks: nodes by name.
        validates: whether there are validation photos. Without, checkpoints go by nothing: the
            best is the last.
        validate_every: epochs between two validations; checkpoints are chosen among those epochs.

    Raises:
        ConfigError: a metric that is not logged on the validation split, or early stopping
            without one.
    """
    nodes = dict(callbacks or {})
    for name, node in nodes.items():
        monitor = node.get("monitor") if isinstance(node, Mapping) else None
        if monitor is None:
            continue
        split, _, metric = str(monitor).partition("/")
        if split != "val" or metric not in MODES:
            allowed = ", ".join(f"val/{known}" for known in MODES)
            raise ConfigError(
                f"callbacks.{name}.monitor={monitor}: no such validation metric (monitor=... sets "
                f"it for all callbacks). Allowed: {allowed}"
            )
        if validates:
            nodes[name] = {"mode": MODES[metric], **node}
            if name == "checkpoint" and validate_every > 1:
                nodes[name] = {"every_n_epochs": validate_every, **nodes[name]}
        elif name == "checkpoint":
            nodes[name] = {**node, "monitor": None}
        else:
            raise ConfigError(
                f"callbacks.{name}.monitor={monitor}: there are no validation photos to measure it "
                "on; set data.val_fraction=0.2, or choose callbacks=default"
            )
    return nodes
