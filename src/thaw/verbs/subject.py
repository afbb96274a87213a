"""What `rank` and `advise` share: a run's backbone on its photos, without training and testing."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from thaw import config, launch, transforms
from thaw.backbones.backbone import Backbone
from thaw.data.base import PhotoDataModule
from thaw.data.dataset import PhotoDataset
from thaw.data.loading import ResumableLoader
from thaw.errors import ConfigError
from thaw.features.extraction import Runner, features_of
from thaw.features.scores import FOLDS
from thaw.features.table import fingerprint
from thaw.store import Store
from thaw.training import device

SHORT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}  # as Lightning reads them


@dataclass(frozen=True)
class Subject:
    """A backbone and the photos that it would be trained and validated on.

    Attributes:
        backbone: as `python train.py` would build it.
        data: the same.
        cache: folder of files of features; training finds them there.
        precision: Lightning's name of it.
        device: that a run would have.
    """

    backbone: Backbone
    data: PhotoDataModule
    cache: Path
    precision: str
    device: torch.device

    def runner(self, body: nn.Module | None = None) -> Runner:
        """The body, or another network, as a training step runs it."""
        return Runner(
            body or self.backbone.body, transforms.normalise(self.backbone.input_spec),
            precision=self.precision, device=self.device,
            channels_last=self.backbone.is_convolutional,
        )  # fmt: skip

    def features(self, run: Runner) -> tuple[Tensor, Tensor]:
        """Of all training and validation photos in the evaluation view: (N, D), labels (N,).

        From the cache where they are, else computed into it: the same files as in training, of one
        view. The test split is not read.

        Raises:
            ConfigError: too few photos, or nowhere to write features.
        """
        found = [self._split(name, loader, run) for name, loader in self.loaders()]
        labels = torch.cat([labels for _, labels in found])
        if len(labels) < 2 * FOLDS or len(labels.unique()) < 2:
            raise ConfigError(
                f"data: {len(labels)} photos of {len(labels.unique())} classes are too few to "
                f"measure anything by; give at least {2 * FOLDS} of two classes"
            )
        return torch.cat([table for table, _ in found]).float(), labels

    def loaders(self) -> list[tuple[str, ResumableLoader]]:
        """Of training and validation photos."""
        every = [("train", self.data.train_dataloader()), ("val", self.data.val_dataloader())]
        return [(name, loader) for name, loader in every if isinstance(loader, ResumableLoader)]

    def _split(self, name: str, loader: ResumableLoader, run: Runner) -> tuple[Tensor, Tensor]:
        dataset = loader.dataset
        assert isinstance(dataset, PhotoDataset)
        what = fingerprint(
            run.body, dataset, run.normalise, views=1, precision=self.precision, device=self.device
        )
        began = time.perf_counter()
        features, made = features_of(
            Store(self.cache, what), dataset, run, batch_size=loader.batch_size or 1,
            num_workers=loader.num_workers,
        )  # fmt: skip
        took = f"{time.perf_counter() - began:.1f} s" if made else "from cache"
        print(f"features: {self.backbone.name}, {name}, {len(dataset):,} photos, {took}")
        return features.rows()


def subject_of(cfg: DictConfig, backbone: Backbone) -> Subject:
    """The subject of a run's configuration.

    Raises:
        ThawError: a setting or a download that the user can mend.
    """
    settings = config.plain(cfg)
    view = transforms.eval_transform(backbone.input_spec)
    data = config.build(
        cfg.data, "data", train_transform=view, eval_transform=view,
        shrink=transforms.Shrink(backbone.input_spec),
    )  # fmt: skip
    trainer = device.trainer_settings(settings["trainer"], validates=True)
    precision = str(trainer["precision"])
    return Subject(
        backbone, data, Path(cfg.paths.cache_dir) / "features", SHORT.get(precision, precision),
        device.main_device(str(trainer["accelerator"])),
    )  # fmt: skip


def check(cfg: DictConfig) -> None:
    """Refuses, before anything is loaded, what a run would refuse.

    Raises:
        ConfigError: names the setting.
    """
    config.check_keys(cfg)
    device.check_trainer(config.plain(cfg)["trainer"])


def backbone_of(cfg: DictConfig) -> Backbone:
    """The backbone of a run's configuration as its head sees it, random weights drawn as there.

    Raises:
        ThawError: weights that cannot be had, a size that the model cannot take.
    """
    device.keep_freed_memory()
    torch.manual_seed(cfg.seed)
    return config.build(cfg.backbone, "backbone")


def word(key: str, value: object) -> str:
    """`key=value` for Hydra, which wants quotes around what is more than letters and a path."""
    text = str(value)
    if re.fullmatch(r"[\w./+-]+", text):
        return f"{key}={text}"
    return f"{key}={launch.quoted(text)}"


def table_of(rows: list[list[str]]) -> str:
    """Rows under each other, the first as a head; the first column to the left, others right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
