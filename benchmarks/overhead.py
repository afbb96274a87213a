"""What thaw adds to a training step: the same tiny network on tensors in memory, in train.py and in
a minimal LightningModule that logs its loss and nothing else.

    python benchmarks/overhead.py --folder OUT     the minimal one; bench.py starts both

Same Trainer settings, TensorBoard, progress bar, gradient clipping, memory format and allocator
setting. What differs is thaw: its metrics, plan, layer-wise rates and callbacks.
"""

import argparse
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, optim
from torch.nn import functional
from torch.utils.data import DataLoader
from watch import Watch

from thaw.backbones.tiny import TinyResNet
from thaw.training.device import keep_freed_memory

CLASSES, BATCH, SIZE = 16, 16, 64  # as data=demo and backbone=tiny have them
EPOCHS = 2  # the second is timed
Batch = tuple[Tensor, Tensor]


def batches(steps: int) -> DataLoader:
    """`steps` batches, made before; images are normalised already."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, BATCH, 3, SIZE, SIZE, generator=generator)
    labels = torch.randint(0, CLASSES, (8, BATCH), generator=generator)
    made: Any = [(images[k % 8], labels[k % 8]) for k in range(steps)]
    return DataLoader(made, batch_size=None)


class TensorData(pl.LightningDataModule):
    """For train.py, as `data._target_=overhead.TensorData`; whatever it computes is not needed."""

    name, licence = "tensors", "none"
    classes = tuple(f"class {k}" for k in range(CLASSES))
    train, val, test = (), (), None

    def __init__(self, steps: int, **_: Any) -> None:
        super().__init__()
        self.steps = steps

    def train_dataloader(self) -> DataLoader:
        return batches(self.steps)

    def val_dataloader(self) -> DataLoader:
        return batches(1)


class Minimal(pl.LightningModule):
    """The least that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyResNet(CLASSES).to(memory_format=torch.channels_last)  # pyright: ignore

    def configure_optimizers(self) -> optim.Optimizer:
        """One group."""
        return optim.AdamW(self.parameters(), 1e-3, weight_decay=1e-2)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logs the loss."""
        images = batch[0].contiguous(memory_format=torch.channels_last)
        loss = functional.cross_entropy(self.network(images), batch[1], label_smoothing=0.1)
        self.log("train_loss", loss, prog_bar=True)
        return loss


def main() -> None:
    """Writes watch.json into the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300, help="of an epoch")
    given = parser.parse_args()
    keep_freed_memory()
    callbacks: list[Callback] = [TQDMProgressBar(), Watch()]
    trainer = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", default_root_dir=given.folder, callbacks=callbacks,
        logger=TensorBoardLogger(given.folder), log_every_n_steps=10, gradient_clip_val=1.0,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Minimal(), batches(given.steps))


if __name__ == "__main__":
    main()
