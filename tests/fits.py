"""Fits of the small network in this process, a tenth of a second each, with thaw's own parts."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from models import small_classifier
from torch import Tensor, nn
from torch.utils.data import Dataset

from thaw.classifier import Classifier
from thaw.data.loading import Key, make_loader
from thaw.finetune.builder import build_plan
from thaw.finetune.muon import Muon
from thaw.finetune.plan import Plan
from thaw.training.callbacks import ApplyPlan
from thaw.training.checkpoints import SaveLast
from thaw.training.module import TransferModule
from thaw.training.record import Record

EPOCHS, STEPS, BATCH = 6, 3, 4  # epochs, batches an epoch, images a batch
GROUPS = small_classifier().groups  # conv, low, middle, deep, head
CLASSES = ("a", "b", "c", "d")


class Views(Dataset[tuple[Tensor, int]]):
    """Fixed noise with labels, and a view that adds noise of its own seed."""

    def __init__(self, number: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(len(CLASSES), (number,), generator=generator).tolist()
        self.images = torch.randn(number, 3, 16, 16, generator=generator)
        for image, label in zip(self.images, self.labels, strict=True):
            image[0] += label

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index, view_seed = key
        image = self.images[index]
        if view_seed is not None:
            generator = torch.Generator().manual_seed(view_seed)
            image = image + 0.1 * torch.randn(image.shape, generator=generator)
        return image, self.labels[index]


class Data(pl.LightningDataModule):
    """Training batches, two of validation and of test, over all ranks together.

    Args:
        batch: Images of a training batch.
        steps: Training batches of `BATCH` images; there are fewer or more of another size.
    """

    def __init__(self, batch: int = BATCH, steps: int = STEPS) -> None:
        super().__init__()
        self.batch, self.steps = batch, steps

    def _loader(self, number: int, seed: int, train: bool) -> Any:
        views = Views(number, seed)
        trainer = self.trainer
        assert trainer is not None
        loader = make_loader(
            views, labels=views.labels, num_workers=0,
            batch_size=(self.batch if train else BATCH) // trainer.world_size,
            train=train, seed=3, rank=trainer.global_rank, world_size=trainer.world_size,
        )  # fmt: skip
        if train:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            loader.consumed = lambda: progress.current.ready
        return loader

    def train_dataloader(self) -> Any:
        return self._loader(BATCH * self.steps, 0, True)

    def val_dataloader(self) -> Any:
        return self._loader(BATCH * 2, 1, False)

    def test_dataloader(self) -> Any:
        return self._loader(BATCH * 2, 2, False)


def settings(**changes: Any) -> dict[str, Any]:
    """Of a phase."""
    return {"lr": 0.02, "schedule": "cosine", **changes}


def plan_of(mode: str, schedule: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """A mode over `EPOCHS` epochs; the body is unfrozen after three of them, or in part.

    "on_plateau" is freeze_unfreeze, unfrozen when the monitored metric stands still for an epoch.
    """
    how = schedule or settings()
    both = {
        "frozen": how,
        "unfrozen": how,
        "lr_decay": 0.5,
        "batchnorm": "train",
        "depthwise": "train",
    }
    groups = GROUPS
    if mode == "classifier":
        deep = replace(GROUPS[-2], is_classifier=True)
        groups = (*GROUPS[:-2], deep, GROUPS[-1])
    items = [
        {**how, "epochs": 2, "top": 0, "augment": False},
        {**how, "epochs": 2, "top": ["deep", "low"], "batchnorm": "frozen"},
        {**how, "lr_decay": 0.5, "batchnorm": "eval"},
    ]
    arguments: dict[str, dict[str, Any]] = {
        "feature_extraction": {"frozen": how},
        "freeze_unfreeze": {**both, "unfreeze_epoch": 3},
        "full": {"unfrozen": how, "batchnorm": "train", "depthwise": "train"},
        "from_scratch": {"unfrozen": how},
        "partial": {**both, "unfreeze_epoch": 3, "top": 2},
        "classifier": {
            "unfrozen": how, "top": "classifier", "batchnorm": "train", "depthwise": "train",
        },
        "phases": {"phases": items},
        "gradual": {**both, "unfreeze_epoch": 1, "every_epochs": 1},
        "on_plateau": {
            **both, "unfreeze_epoch": 4, "unfreeze_on_plateau": 1,
        },
    }  # fmt: skip
    name = "freeze_unfreeze" if mode == "on_plateau" else mode
    return build_plan(groups, EPOCHS, mode=name, **{**arguments[mode], **changes})


MODES = ("feature_extraction", "freeze_unfreeze", "full", "from_scratch", "partial", "classifier",
         "phases", "gradual", "on_plateau")  # fmt: skip


class Save(Checkpoint):
    """A checkpoint after each of the given optimiser steps, as GracefulStop would."""

    def __init__(self, folder: Path | str, steps: Sequence[int]) -> None:
        self.folder, self.steps = Path(folder), steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        path = self.folder / f"step{step}.ckpt"
        if step in self.steps and not trainer.is_last_batch and not path.exists():
            trainer.save_checkpoint(path)


class SaveEach(SaveLast):
    """One after each epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path.parent / f"epoch{trainer.current_epoch}.ckpt")


def module_of(
    plan: Plan, model: Classifier | None = None, *, fused: bool = True, **changes: Any
) -> TransferModule:
    optimizer = partial(Muon, weight_decay=0.05, fused=fused)
    arguments = {"classes": CLASSES, "monitor": "val/acc", "normalise": nn.Identity(), **changes}
    return TransferModule(model or small_classifier(), plan, optimizer, **arguments)


def fit(
    module: TransferModule, folder: Path, *callbacks: pl.Callback, resume: Path | None = None,
    data: Data | None = None, **trainer: Any,
) -> pl.Trainer:  # fmt: skip
    """Trains as train.py would, and leaves epoch<n>.ckpt for each epoch."""
    made = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[ApplyPlan(), Record(module.plan), *callbacks, SaveEach(str(folder))],
        use_distributed_sampler=False, log_every_n_steps=1,
        **{"gradient_clip_val": 1.0, "enable_checkpointing": True, **trainer},
    )  # fmt: skip
    made.fit(module, data or Data(), ckpt_path=resume, weights_only=True)
    return made


def difference(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two checkpoints differ: everything in them but the seconds that they took."""
    if isinstance(first, Tensor):
        same = torch.equal(first, second) or bool(first.isnan().all() and second.isnan().all())
        return [] if same else [place]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{place}: {first.keys() ^ second.keys()}"]
        skipped = ("seconds", "images", "record", "loops")
        return [
            found for key in first if key not in skipped
            for found in difference(first[key], second[key], f"{place}/{key}")
        ]  # fmt: skip
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [f"{place}: {len(first)} and {len(second)} entries"]
        return [
            found for number, pair in enumerate(zip(first, second, strict=True))
            for found in difference(*pair, f"{place}/{number}")
        ]  # fmt: skip
    return [] if first == second or first != first else [f"{place}: {first!r} {second!r}"]
