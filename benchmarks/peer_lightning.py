"""Lightning with its BackboneFinetuning, defaults all over.

    python benchmarks/peer_lightning.py --data ../shared/data

After the example in the docstring of lightning.pytorch.callbacks.BackboneFinetuning (2.6.6) and
lightning.ai/docs/pytorch/stable/advanced/transfer_learning.html: Adam 1e-3 on the head, the
callback adds the body at a tenth of that and raises it by 1.5 an epoch up to the head's rate.
The last epoch is the result.
"""

import tempfile

import lightning.pytorch as pl
import torch
from job import CLASSES, Job, asked
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn, optim
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy
from torchvision import models
from watch import Watch

Batch = tuple[Tensor, Tensor]


class TransferLearningModel(pl.LightningModule):
    """As in the docstring, with accuracy."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        network = models.mobilenet_v2()
        network.load_state_dict(torch.load(job.weights, weights_only=True))
        self.backbone = nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(network.last_channel, CLASSES))
        self.accuracy = nn.ModuleDict(
            {split: MulticlassAccuracy(CLASSES, average="micro") for split in ("val", "test")}
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> class scores (N, K)."""
        return self.head(self.backbone(images))

    def configure_optimizers(self) -> optim.Optimizer:
        """Of the head; the callback adds the body."""
        return optim.Adam(self.head.parameters(), lr=1e-3)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self(batch[0]), batch[1])
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
    watch, job = Watch(), asked()
    pl.seed_everything(job.seed, workers=True)
    model = TransferLearningModel(job)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=job.frozen + job.unfrozen,
            callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=job.frozen), watch],
            accelerator="cpu", default_root_dir=folder, log_every_n_steps=10,
        )  # fmt: skip
        trainer.fit(model, job.loader("train"), job.loader("val"))
        val = trainer.callback_metrics["val_acc"].item()
        trainer.test(model, job.loader("test"))
    clock = watch.watch
    clock.seconds["frozen"] = sum(watch.epochs[: job.frozen])
    clock.seconds["unfrozen"] = sum(watch.epochs[job.frozen :])
    clock.line(val, trainer.callback_metrics["test_acc"].item())


if __name__ == "__main__":
    main()
