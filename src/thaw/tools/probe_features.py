"""What `thaw probe` measures on: the features of a run's own backbone on a run's own photos."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from thaw import config, transforms
from thaw.backbones import tracing
from thaw.backbones.backbone import Backbone
from thaw.data.dataset import PhotoDataset
from thaw.data.loading import ResumableLoader
from thaw.errors import ConfigError
from thaw.features.fill import Run, load_or_compute
from thaw.features.key import feature_key
from thaw.training import device
from thaw.training.caching import terminal_bar

Table = tuple[Tensor, Tensor]  # features (N, D) and labels (N,)


@dataclass(frozen=True)
class Subject:
    """A backbone on the photos that it would be trained and validated on.

    Attributes:
        words: that choose the backbone.
        backbone: as train.py would build it.
        layers: names of the layer groups whose output was taken, and D of each.
        train, val: all of them side by side: (N, D1 + D2 + ...); val is None without such photos.
        seconds: to compute them, or to read them.
    """

    words: tuple[str, ...]
    backbone: Backbone
    layers: dict[str, int]
    train: Table
    val: Table | None
    seconds: float


def measure(words: tuple[str, ...], cfg: DictConfig, *, every_layer: bool) -> Subject:
    """Builds a backbone and its data as train.py would, and computes the features.

    Raises:
        ThawError: a setting, a photo or a download that the user can mend.
    """
    device.keep_freed_memory()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    backbone = config.build(cfg.backbone, "backbone")
    view = transforms.eval_transform(backbone.input_spec)
    shrink = transforms.Shrink(backbone.input_spec)
    data = config.build(
        cfg.data, "data", train_transform=view, eval_transform=view, shrink=shrink
    )  # fmt: skip
    body: nn.Module = LayerOutputs(backbone) if every_layer else backbone.body
    layers = {backbone.groups[-1].name: backbone.out_features}
    if isinstance(body, LayerOutputs):
        layers = dict(zip(body.names, body.widths, strict=True))
    settings = device.trainer_settings(config.plain(cfg)["trainer"], validates=True)
    trainer = config.build(
        {**settings, "devices": 1, "strategy": "auto"}, "trainer", logger=False,
        enable_progress_bar=False, enable_checkpointing=False,
    )  # fmt: skip
    normalise = transforms.normalise(backbone.input_spec)
    forward = runner(trainer, body, normalise, channels_last=backbone.is_convolutional)
    began = time.perf_counter()
    tables: dict[str, Table] = {}
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        if isinstance(loader, ResumableLoader):
            dataset = loader.dataset
            assert isinstance(dataset, PhotoDataset)
            key = feature_key(body, dataset, normalise, views=1, precision=str(trainer.precision),
                              device=trainer.strategy.root_device)  # fmt: skip
            labels = torch.tensor(dataset.photos.labels)
            folder = Path(cfg.paths.cache_dir) / "features"
            tables[split] = _features(folder, key, loader, forward, labels, backbone.name)
    seconds = time.perf_counter() - began
    return Subject(words, backbone, layers, tables["train"], tables.get("val"), seconds)


def runner(trainer: pl.Trainer, body: nn.Module, normalise: Any, *, channels_last: bool) -> Run:
    """The frozen body as a training step runs it: uint8 (N, 3, H, W) -> (N, D)."""
    place, precision = trainer.strategy.root_device, trainer.precision_plugin
    order = torch.channels_last if channels_last else torch.contiguous_format
    body = precision.convert_module(body.eval().to(place).requires_grad_(False))
    body.to(memory_format=order)  # pyright: ignore[reportCallIssue]
    kind = next(body.parameters()).dtype

    def forward(images: Tensor) -> Tensor:
        with torch.no_grad(), precision.forward_context():
            return body(normalise(images.to(place).contiguous(memory_format=order)).to(kind))

    return forward


def _features(
    folder: Path, key: dict[str, Any], loader: ResumableLoader, run: Run, labels: Tensor, name: str
) -> Table:
    """(N, D) and (N,), from the cache or computed into it."""
    try:
        with terminal_bar(f"features  {name}") as on_progress:
            features, _ = load_or_compute(
                folder, key, loader, run, views=1, labels=labels, on_progress=on_progress
            )
    except OSError as error:
        raise ConfigError(
            f"paths.cache_dir={folder.parent}: features cannot be written there ({error}); give a "
            "folder on a disk with room"
        ) from error
    return features.table[:, 0].float(), features.labels


class LayerOutputs(nn.Module):
    """Images (N, 3, H, W) -> (N, D1 + D2 + ...), the output of each layer group, stem first.

    The output of a group is that of its last module to run, averaged over places (or tokens). The
    last part is what the body gives a head.

    Attributes:
        names: of the groups.
        widths: D1, D2, ..., of each group.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = backbone.body
        self.names = tuple(group.name for group in backbone.groups)
        self.places = {
            name: place for place, group in enumerate(backbone.groups) for name in group.modules
        }
        images = tracing.run_without_data(self, backbone.input_spec.size)
        assert images.shape[1] == sum(self.widths)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D1 + D2 + ...)."""
        outputs: dict[int, Tensor] = {}
        started: set[str] = set()

        def note(name: str, output: object) -> None:
            # a module that runs again further up (one ReLU for all) counts where it ran first
            if isinstance(output, Tensor) and output.ndim > 1 and name not in started:
                started.add(name)
                outputs[self.places[name]] = pooled(output)

        handles = [
            self.body.get_submodule(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: note(name, output)
            )
            for name in self.places
        ]
        try:
            last = self.body(images)
        finally:
            for handle in handles:
                handle.remove()
        outputs[len(self.names) - 1] = last
        if silent := [name for place, name in enumerate(self.names) if place not in outputs]:
            raise ConfigError(
                f"layers=all: the layer groups {', '.join(silent)} give no tensor; use "
                "backbone.granularity=stage or block, or layers=last"
            )
        parts = [outputs[place] for place in range(len(self.names))]
        self.widths = tuple(part.shape[1] for part in parts)
        return torch.cat(parts, 1)


def pooled(output: Tensor) -> Tensor:
    """Mean over places: (N, C, H, W), (N, H, W, C), (N, T, C) or (N, C) -> (N, C).

    The input was square, so (N, C, H, W) has two equal sizes at its end and (N, H, W, C), as in
    Swin, has them in its middle; where all three are equal it is taken for (N, C, H, W).
    """
    if output.ndim == 4:
        return output.mean((2, 3) if output.shape[2] == output.shape[3] else (1, 2))
    return output.mean(1) if output.ndim == 3 else output
