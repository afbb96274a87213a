"""Lightning with its BackboneFinetuning, defaults all over or tuned.

    python benchmarks/peer_lightning.py --data ../shared/data

After the example in the docstring of lightning.pytorch.callbacks.BackboneFinetuning (2.6.6) and
lightning.ai/docs/pytorch/stable/advanced/transfer_learning.html: Adam 1e-3 on the head, the
callback adds the body at a tenth of that and raises it by 1.5 an epoch up to the head's rate.
--tuned: label smoothing, the callback's `backbone_initial_lr` and `train_bn=False`, which leaves
BatchNorm's statistics moving, so the module stops those itself; a cosine on the head's rate, which
the callback's `should_align` holds the body's below. The module sets it: of torch's schedulers,
LambdaLR and OneCycleLR refuse an optimiser that the callback has added a group to (2.15). The last
epoch is the result.
"""

import math
import tempfile

import lightning.pytorch as pl
from job import CLASSES, Job, asked, keep_statistics
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn, optim
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy
from watch import Watch

Batch = tuple[Tensor, Tensor]


class TransferLearningModel(pl.LightningModule):
    """As in the docstring, with accuracy."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job, self.backbone = job, job.network()
        self.backbone.reset_classifier(0)  # leaves the pooled features
        width = self.backbone.num_features
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, CLASSES))
        self.accuracy = nn.ModuleDict(
            {split: MulticlassAccuracy(CLASSES, average="micro") for split in ("val", "test")}
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> class scores (N, K)."""
        return self.head(self.backbone(images))

    def configure_optimizers(self) -> optim.Optimizer:
        """Of the head; the callback adds the body."""
        return optim.Adam(self.head.parameters(), lr=self.job.head_rate)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self.job.tuned:
            keep_statistics(self.backbone)
            share = self.global_step / self.trainer.estimated_stepping_batches
            rate = self.job.head_rate * (1 + math.cos(math.pi * share)) / 2
            self.optimizers().param_groups[0]["lr"] = rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        smoothing = self.job.smoothing
        loss = functional.cross_entropy(self(batch[0]), batch[1], label_smoothing=smoothing)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluate(batch, "test")

    def evaluate(self, batch: Batch, split: str) -> None:
        metric = self.accuracy[split]
        metric.update(self(batch[0]), batch[1])
        self.log(f"{split}_acc", metric, prog_bar=True)


def main() -> None:
    watch, job = Watch(), asked("lightning")
    pl.seed_everything(job.seed, workers=True)
    model = TransferLearningModel(job)
    tuned = {"backbone_initial_lr": job.body_rate, "train_bn": False} if job.tuned else {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=job.frozen + job.unfrozen,
            callbacks=[BackboneFinetuning(job.frozen, **tuned), watch],
            accelerator=job.device, devices=1, default_root_dir=folder, log_every_n_steps=10,
        )  # fmt: skip
        trainer.fit(model, job.loader("train"), job.loader("val"))
        val = trainer.callback_metrics["val_acc"].item()
        if job.test:
            trainer.test(model, job.loader("test"))
    clock = watch.watch
    clock.seconds["frozen"] = sum(watch.epochs[: job.frozen])
    clock.seconds["unfrozen"] = sum(watch.epochs[job.frozen :])
    clock.line(val, trainer.callback_metrics["test_acc"].item() if job.test else None)


if __name__ == "__main__":
    main()
