"""Fits of the small network in this process, a tenth of a second each, with thaw's own parts."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from models import small_classifier
from torch import Tensor
from torch.utils.data import Dataset

from thaw.classifier import Classifier
from thaw.data.loading import Key, make_loader
from thaw.finetune import modes
from thaw.finetune.phase_list import phases
from thaw.finetune.plan import PhaseSettings, Plan
from thaw.finetune.plateau import Plateau
from thaw.training.callbacks import ApplyPlan
from thaw.training.checkpoints import SaveLast
from thaw.training.module import TransferModule
from thaw.training.progress import Record

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
    """`STEPS` training batches, two of validation and of test, over all ranks together."""

    def _loader(self, number: int, seed: int, train: bool) -> Any:
        views = Views(number, seed)
        trainer = self.trainer
        assert trainer is not None
        loader = make_loader(
            views, labels=views.labels, batch_size=BATCH // trainer.world_size, num_workers=0,
            train=train, seed=3, rank=trainer.global_rank, world_size=trainer.world_size,
        )  # fmt: skip
        if train:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            loader.consumed = lambda: progress.current.ready
        return loader

    def train_dataloader(self) -> Any:
        return self._loader(BATCH * STEPS, 0, True)

    def val_dataloader(self) -> Any:
        return self._loader(BATCH * 2, 1, False)

    def test_dataloader(self) -> Any:
        return self._loader(BATCH * 2, 2, False)


def settings(**changes: Any) -> PhaseSettings:
    return PhaseSettings(**{"lr": 0.02, "shape": "cosine", **changes})


def plans(schedule: PhaseSettings) -> dict[str, Plan]:
    """Each mode over `EPOCHS` epochs; the body is unfrozen after two of them, or in part."""
    both: dict[str, Any] = {"frozen": schedule, "unfrozen": schedule, "lr_decay": 0.5}
    flat = [*GROUPS]
    flat[-2] = type(flat[-2])(
        flat[-2].name, flat[-2].parameters, flat[-2].modules, is_classifier=True
    )
    how = dict(vars(schedule))
    items = [
        {**how, "start": 0, "groups": 0, "augment": False},
        {**how, "start": 2, "groups": ["deep", "low"], "batchnorm": "frozen"},
        {**how, "start": 4, "lr_decay": 0.5, "reset_optimizer": True, "batchnorm": "eval"},
    ]
    return {
        "feature_extraction": modes.feature_extraction(GROUPS, EPOCHS, frozen=schedule),
        "freeze_unfreeze": modes.freeze_unfreeze(GROUPS, EPOCHS, unfreeze_epoch=3, **both),
        "full": modes.full(GROUPS, EPOCHS, unfrozen=schedule),
        "from_scratch": modes.from_scratch(GROUPS, EPOCHS, unfrozen=schedule),
        "partial": modes.partial(GROUPS, EPOCHS, top=2, unfreeze_epoch=3, **both),
        "classifier": modes.classifier(flat, EPOCHS, frozen=schedule),
        "phases": phases(GROUPS, EPOCHS, phases=items),
    }


def gradual(schedule: PhaseSettings, **changes: Any) -> Plan:
    """Phases of one epoch, but for the last."""
    arguments: dict[str, Any] = {
        "unfreeze_epoch": 1, "every_epochs": 1, "stop_at": None, "frozen": schedule,
        "unfrozen": schedule, "lr_decay": 0.5, **changes,
    }  # fmt: skip
    return modes.gradual(GROUPS, EPOCHS, **arguments)


def on_plateau(schedule: PhaseSettings) -> Plan:
    """Unfrozen when the monitored metric stands still for an epoch."""
    return modes.freeze_unfreeze(
        GROUPS, EPOCHS, unfreeze_epoch=4, frozen=schedule, unfrozen=schedule, lr_decay=0.5,
        unfreeze_on_plateau=Plateau(1, min_delta=0.02),
    )  # fmt: skip


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


def module_of(plan: Plan, model: Classifier | None = None, **changes: Any) -> TransferModule:
    optimizer = partial(torch.optim.AdamW, weight_decay=0.05, fused=True)
    arguments = {"classes": CLASSES, "monitor": "val/loss", **changes}
    return TransferModule(model or small_classifier(), plan, optimizer, **arguments)


def fit(
    module: TransferModule, folder: Path, *callbacks: pl.Callback, resume: Path | None = None,
    **trainer: Any,
) -> pl.Trainer:  # fmt: skip
    """Trains as train.py would, and leaves epoch<n>.ckpt for each epoch."""
    made = pl.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[ApplyPlan(), Record(module.plan), *callbacks, SaveEach(str(folder))],
        use_distributed_sampler=False, log_every_n_steps=1,
        **{"gradient_clip_val": 1.0, "enable_checkpointing": True, **trainer},
    )  # fmt: skip
    made.fit(module, Data(), ckpt_path=resume, weights_only=True)
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
