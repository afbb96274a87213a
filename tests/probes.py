"""Callbacks that a run in a process of its own loads by name, to look inside."""

import hashlib
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging


class HashWeights(pl.Callback):
    """Writes a hash of all weights and buffers of this rank, averages too, after every epoch."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One line an epoch into rank<r>.txt."""
        digest = hashlib.sha256()
        models = [pl_module.classifier]
        for part in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(part, WeightAveraging):
                models.append(part._average_model)  # pyright: ignore[reportArgumentType]
        for model in models:
            for name, value in sorted(model.state_dict().items()):  # pyright: ignore
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"rank{trainer.global_rank}.txt").open("a") as file:
            file.write(f"{trainer.current_epoch} {digest.hexdigest()}\n")


class FailOnRank(pl.Callback):
    """Raises on one rank when training starts, in runs of one seed."""

    def __init__(self, rank: int, seed: int, of: int) -> None:
        self.rank = rank
        self.fails = seed == of

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As a rank that runs out of memory."""
        if self.fails and trainer.global_rank == self.rank:
            raise MemoryError("on one rank")
