"""The LightningModule: steps, logging and the optimiser. What trains when is in plan.py."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from thaw.classifier import Classifier
from thaw.errors import ConfigError
from thaw.features.table import FeatureBatch
from thaw.finetune.plan import Phase, Plan
from thaw.finetune.rates import parameter_groups
from thaw.seeds import derive, seed_generators
from thaw.store import read_checkpoint
from thaw.training.checkpoints import check_model, use_settings
from thaw.training.measures import MODES
from thaw.training.metrics import Scores, best_class, in_order

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Batch = tuple[Tensor, Tensor] | FeatureBatch  # images (N, 3, H, W) and labels (N,), or features


class TransferModule(pl.LightningModule):
    """Trains a `Classifier` by a plan.

    Args:
        classes: Names of the K classes, in label order; saved in the checkpoint, as `config` (the
            settings of the run) and `model` (what `thaw.load` builds it from) are.
        monitor: The validation metric whose plateaus the plan waits for.
        normalise: Images uint8 (N, 3, H, W) -> float32 as the body wants them.
        mix: Images (N, 3, H, W) and labels (N,) -> mixed images and soft labels (N, K).

    Attributes:
        plan: The plan as it stands after the validations so far; `written_plan` is the given one.
        temperature: What class scores are divided by, see `Calibration`; of the last validation.
        test_predictions: `best_class` of all photos of the test, in their order; on all ranks.
    """

    def __init__(
        self, classifier: Classifier, plan: Plan,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer], *, classes: tuple[str, ...],
        normalise: Callable[[Tensor], Tensor], monitor: str = "val/acc",
        mix: Mix | None = None, label_smoothing: float = 0.0, channels_last: bool = False,
        seed: int = 0, config: dict[str, Any] | None = None, model: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.classifier, self.make_optimizer, self.monitor = classifier, make_optimizer, monitor
        self.written_plan = self.plan = plan
        self.normalise, self.mix = normalise, mix
        self.label_smoothing, self.seed = label_smoothing, seed
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.classes = list(classes)
        # plain values only: a checkpoint must load with weights_only=True
        saved = {"classes": self.classes, "config": config or {}, "model": model or {}}
        self.save_hyperparameters(saved, logger=False)
        self.saved_batches: int | None = None  # batches of an epoch in the checkpoint resumed from
        self.val_scores = Scores(len(classes), "val")
        self.temperature, self.validated_step = 1.0, -1
        self.test_predictions = torch.empty(0, 3)
        self.classifier.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    @property
    def phase(self) -> Phase:
        return self.plan.phase_at(self.current_epoch)

    @property
    def is_validated(self) -> bool:
        """Whether the val/ metrics are of the weights as they are now, and these are finite."""
        return self.validated_step == self.trainer.global_step

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), see `prepare` -> class scores (N, K)."""
        return self.classifier(self.prepare(images))

    def scores(self, batch: Batch) -> Tensor:
        """The class scores (N, K) of a batch."""
        if isinstance(batch, FeatureBatch):
            return self.classifier.head(batch.features)
        return self(batch[0])

    def prepare(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), uint8 or normalised float -> what the body takes."""
        images = images.contiguous(memory_format=self.memory_format)
        if images.dtype == torch.uint8:
            return self.normalise(images).to(next(self.classifier.parameters()).dtype)
        return images

    def configure_optimizers(self) -> Optimizer:
        """One optimiser with all groups from the first step on; `ApplyPlan` writes their rates."""
        rates = [phase.rates for phase in self.plan.phases]
        return self.make_optimizer(parameter_groups(self.classifier, rates))

    def set_plan(self, values: list[float], steps_per_epoch: int | None) -> None:
        """Brings the plan to where it stands after these validation results."""
        self.written_plan = replace(self.written_plan, steps_per_epoch=steps_per_epoch)
        self.plan = self.written_plan.after(values)

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Makes this step's random numbers a function of (seed, step, rank): see seeds.py."""
        step = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        seed_generators(derive(self.seed, step, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The cross-entropy of a batch, and sums (3,): of it over photos, right ones, photos."""
        images, labels = batch
        if self.mix is not None and self.phase.mix:
            images, targets = self.mix(self.prepare(images), labels)  # (N, K)
            scores = self(images)
        else:
            scores, targets = self.scores(batch), labels
        loss = functional.cross_entropy(scores, targets, label_smoothing=self.label_smoothing)
        right = (scores.detach().argmax(1) == labels).sum()
        number = torch.full_like(right, len(labels))
        sums = torch.stack([loss.detach().float() * number, right, number])
        self.log("train/loss_step", loss.detach())
        # Lightning 2.6.6 divides an epoch's last step by all of accumulate_grad_batches too.
        steps = self.trainer.accumulate_grad_batches
        batches = int(self.trainer.num_training_batches)
        left = batches % steps if batch_idx >= batches - batches % steps else steps
        return {"loss": loss * steps / left, "sums": sums}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.val_scores.add(self.scores(batch), batch[1])

    def on_validation_epoch_end(self) -> None:
        values = self.val_scores.log(self)
        self.temperature = float(values["val/temperature"])
        if values["val/loss"].isfinite():  # no epoch with weights that are not is ever the best
            self.validated_step = self.trainer.global_step

    def on_test_epoch_start(self) -> None:
        """Calibration is measured at the temperature that the validation photos gave."""
        self.test_scores = Scores(len(self.classes), "test", self.temperature).to(self.device)
        self.test_rows: list[Tensor] = []  # of this rank, a batch each

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        # as `thaw predict` computes: in float32 whatever trainer.precision is, nothing folded
        with torch.autocast(self.device.type, enabled=False):
            scores = self.classifier.head(self.classifier.body(self.prepare(batch[0])))
        self.test_scores.add(scores, batch[1])
        self.test_rows.append(best_class(scores, self.temperature))

    def on_test_epoch_end(self) -> None:
        self.test_scores.log(self)
        self.test_predictions = in_order(self.trainer, torch.cat(self.test_rows)).cpu()

    def on_train_epoch_end(self) -> None:
        if self.is_validated:
            value = float(self.trainer.callback_metrics[self.monitor])
            sign = -1 if MODES[self.monitor.partition("/")[2]] == "min" else 1
            self.set_plan([*self.plan.values, sign * value], self.plan.steps_per_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["temperature"] = self.temperature
        checkpoint["plan"] = {
            "monitor": self.monitor, "values": list(self.plan.values),
            "steps_per_epoch": self.plan.steps_per_epoch,
            "batches": int(self.trainer.num_training_batches),
            "phases": self.plan.begun(self.current_epoch),
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_model(checkpoint, self.classes, self.state_dict())
        use_settings(checkpoint, self.configure_optimizers().param_groups)
        self.temperature = checkpoint["temperature"]
        saved, epoch = checkpoint["plan"], checkpoint["epoch"]
        self.saved_batches = saved["batches"]
        self.set_plan(saved["values"], saved["steps_per_epoch"])
        here, there = self.plan.begun(epoch), saved["phases"]
        if here != there:
            phases = f"[first epoch, what trains] to epoch {epoch + 1}: there {there}, here {here}"
            fault = f"was trained by another plan than finetune=... of this run. {phases}"
            raise ConfigError(f"ckpt_path: {fault}; go on with the finetune settings it began with")
        number, theirs = len(saved["values"]), saved["monitor"]
        known = theirs == self.monitor and number in (epoch, epoch + 1)
        if self.plan.needs_validation and not known:
            has = f"has {number} values of {theirs} after epoch {epoch + 1}, but the plan goes by"
            hint = "go on with the settings that the run began with"
            raise ConfigError(f"ckpt_path: {has} {self.monitor} of each; {hint}")

    def load_checkpoint(self, path: str | Path) -> dict[str, Any]:
        """Loads the weights and the temperature of a checkpoint, to test; gives its content."""
        checkpoint = read_checkpoint(path)
        check_model(checkpoint, self.classes, self.state_dict())
        self.load_state_dict(checkpoint["state_dict"])
        self.temperature = checkpoint["temperature"]
        return checkpoint
