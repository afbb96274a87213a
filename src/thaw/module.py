"""The LightningModule: steps, logging and the optimiser. What trains when is in plan.py."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from thaw.callbacks import steps_per_epoch
from thaw.classifier import Classifier
from thaw.metrics import make_metrics
from thaw.optim import parameter_groups
from thaw.plan import Plan
from thaw.seeds import derive, seed_generators


class TransferModule(pl.LightningModule):
    """Trains a `Classifier` by a plan.

    Args:
        classifier: backbone and head.
        plan: gives the learning rate of each group at each step.
        make_optimizer: optimiser groups -> optimiser; a constructor with everything but the
            parameters filled in.
        classes: names of the K classes, in label order; saved in the checkpoint.
        label_smoothing: share 0-1 of the target spread over all classes (arXiv:1512.00567).
        channels_last: memory format of images and kernels; pays for convolutional bodies.
        seed: of dropout and of whatever else draws inside a step.
        config: the run's settings as plain Python, saved in the checkpoint.
    """

    def __init__(
        self,
        classifier: Classifier,
        plan: Plan,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        *,
        classes: tuple[str, ...],
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        seed: int = 0,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.plan = plan
        self.make_optimizer = make_optimizer
        self.label_smoothing = label_smoothing
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.seed = seed
        # plain values only: a checkpoint must load with weights_only=True
        self.save_hyperparameters({"classes": list(classes), "config": config or {}}, logger=False)
        # "train" alone would hide Module.train
        self.metrics = nn.ModuleDict(
            {f"{split}_": make_metrics(len(classes), split) for split in ("train", "val", "test")}
        )
        self.classifier.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> class scores (N, K)."""
        return self.classifier(images.contiguous(memory_format=self.memory_format))

    def configure_optimizers(self) -> Any:
        """One optimiser with all groups from the first step on, and the plan as its scheduler."""
        groups = parameter_groups(self.classifier)
        optimizer = self.make_optimizer(groups)
        steps = steps_per_epoch(self.trainer)

        def rate_of(group: str) -> Callable[[int], float]:
            return lambda step: self.plan.rate(group, step, steps)

        scheduler = LambdaLR(optimizer, [rate_of(group["layer_group"]) for group in groups])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Makes this step's random numbers a function of (seed, step, rank): see seeds.py."""
        step = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        seed_generators(derive(self.seed, step, self.global_rank))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of (images (N, 3, H, W), labels (N,))."""
        images, labels = batch
        scores = self(images)
        loss = functional.cross_entropy(scores, labels, label_smoothing=self.label_smoothing)
        self._log("train", scores.detach(), labels)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True,
                 batch_size=len(labels))  # fmt: skip
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Updates the metrics of val/."""
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Updates the metrics of test/."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: tuple[Tensor, Tensor] | Tensor, batch_idx: int) -> Tensor:
        """Class probabilities (N, K)."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).float().softmax(1)

    def _evaluate(self, batch: tuple[Tensor, Tensor], split: str) -> None:
        images, labels = batch
        scores = self(images)
        self._log(split, scores, labels)
        # plain cross-entropy, comparable whatever the training loss smooths
        loss = functional.cross_entropy(scores.float(), labels)
        self.log(f"{split}/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels),
                 sync_dist=True)  # fmt: skip

    def _log(self, split: str, scores: Tensor, labels: Tensor) -> None:
        """Updates the split's metrics with (N, K) and (N,); Lightning computes them once an epoch.

        Logged as metrics, not as values at the end of the epoch: callbacks see them in time then.
        """
        metrics = self.metrics[f"{split}_"]
        assert isinstance(metrics, MetricCollection)
        metrics.update(scores.float().softmax(1), labels)
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(labels))
