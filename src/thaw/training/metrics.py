"""What is measured on every split, and which way each number is better."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from thaw.errors import ConfigError
from thaw.training.calibration import Calibration
from thaw.training.measures import MODES


class MeanClassAccuracy(MulticlassAccuracy):
    """Mean, over the classes that have photos, of the accuracy within each.

    torchmetrics' macro average counts a class without photos as 0 once it is predicted anywhere.
    """

    def compute(self) -> Tensor:
        """Computes it from the counts of all batches."""
        right, _, _, missed = self._final_state()  # (K,) each
        photos = right + missed
        return (right[photos > 0] / photos[photos > 0]).mean()


class Means:
    """Weighted means of training over an epoch, on the device and without waiting for it.

    Lightning's `self.log` does the same, for half a millisecond a value and step. All ranks train
    on equally many photos, so their means may be averaged.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight = 0

    def add(self, values: Mapping[str, Tensor], weight: int) -> None:
        """Adds the means of one step, which are over `weight` photos."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.float() * weight
        self.weight += weight

    def pop(self) -> tuple[dict[str, Tensor], int]:
        """Returns the means and the number of photos that they are over, and starts again."""
        means = {name: total / self.weight for name, total in self.sums.items()}
        weight = self.weight
        self.sums, self.weight = {}, 0
        return means, weight


class Scores(nn.Module):
    """All metrics of a split over an epoch, logged once as `split`/name, at its end.

    acc: share of photos whose best class is right. acc_top5: share of photos whose label is among
    the best five classes. acc_macro: mean over classes of the accuracy within each, as the Pets and
    Flowers papers report. f1: macro F1. loss, ece, ece_uncalibrated, temperature: see
    `Calibration`.

    Args:
        num_classes: K.
        split: "val" or "test".
        temperature: Of the calibration; None: it is fitted to the photos and logged.
    """

    def __init__(self, num_classes: int, split: str, temperature: float | None = None) -> None:
        super().__init__()
        micro: dict[str, Any] = {"average": "micro", "validate_args": False}
        macro: dict[str, Any] = {"average": "macro", "validate_args": False}
        self.metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(num_classes, **micro),
                "acc_top5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), **micro),
                "acc_macro": MeanClassAccuracy(num_classes, **macro),
                "f1": MulticlassF1Score(num_classes, **macro),
                "calibration": Calibration(temperature),
            },
            prefix=f"{split}/",
            # By hand: torchmetrics joins those whose counts agree in the first batch, and a first
            # batch that is all right would make acc_top5 one with acc for good.
            compute_groups=[["acc"], ["acc_top5"], ["acc_macro", "f1"], ["calibration"]],
        )

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Adds the class scores (N, K) and labels (N,) of a batch."""
        self.metrics.update(scores.float(), labels)

    def log(self, module: LightningModule) -> dict[str, Tensor]:
        """Logs the metrics over the photos of all ranks, returns them, and starts again."""
        values = self.metrics.compute()
        module.log_dict(values, sync_dist=True)  # torchmetrics has made them equal on all ranks
        self.metrics.reset()
        return values


def monitor_modes(
    callbacks: Mapping[str, Any] | None, *, validates: bool, validate_every: int = 1
) -> dict[str, Any]:
    """Callback nodes with `mode` filled in where a metric is monitored.

    So the metric is chosen in one place, and "max" for a loss cannot happen.

    Args:
        callbacks: Nodes by name.
        validates: Whether there are validation photos; without them the last checkpoint is the
            best.
        validate_every: Epochs between two validations; checkpoints are chosen among those epochs.

    Raises:
        ConfigError: A metric that is not logged on the validation split, or early stopping
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
