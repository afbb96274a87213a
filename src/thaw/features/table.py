"""Features of a frozen body: computed once, kept on disk, and used instead of photos.

A frozen body gives the same features for the same view of a photo, so an epoch of a phase that
trains the head alone need not decode a photo or run the body.
"""

import hashlib
import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

import thaw
from thaw.data.dataset import PhotoDataset
from thaw.data.loading import Key
from thaw.seeds import derive
from thaw.store import Store
from thaw.training.device import describe


@dataclass(frozen=True)
class Features:
    """What a body gives for each view of each photo.

    Attributes:
        table: (P, V, D) for P photos in V views; the first view is the one of evaluation.
        labels: (P,)
    """

    table: Tensor
    labels: Tensor

    def batch(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of N keys (index, view seed); see `PhotoSampler`."""
        places = torch.tensor([index for index, _ in keys])
        chosen = torch.tensor([self.view(key) for key in keys])
        return self.table[places, chosen], self.labels[places]

    def view(self, key: Key) -> int:
        """Which of the views a key asks for."""
        _, seed = key
        return 0 if seed is None else seed % self.table.shape[1]

    def rows(self) -> tuple[Tensor, Tensor]:
        """All views as features (P * V, D) and labels (P * V,)."""
        return self.table.flatten(0, 1), self.labels.repeat_interleave(self.table.shape[1])


def view_key(index: int, view: int) -> Key:
    """Key of a photo's view: 0 is that of evaluation, the others are drawn.

    Not of the run's seed, so that runs with other seeds find them; those draw which view a step
    sees, and the order.
    """
    return index, None if view == 0 else derive(index, view)


def fingerprint(body: nn.Module, dataset: PhotoDataset, normalise: Any, *, views: int,
                precision: str, device: torch.device) -> dict[str, Any]:  # fmt: skip
    """Everything the features depend on, as plain values.

    Args:
        body: its weights and buffers are hashed.
        dataset: the photos' paths, sizes and times of change; its transforms, by their repr, so a
            transform of one's own must have its settings in it.
        normalise: by its repr too.
        views: see `view_key`.
        precision: Lightning's name of the precision the body runs in.
        device: that it runs on.
    """
    weights = hashlib.sha256()
    for name, value in sorted(body.state_dict().items()):
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {
        "weights": weights.hexdigest(),
        "body": hashlib.sha256(f"{body!r} {_plain_attributes(body)}".encode()).hexdigest(),
        "photos": dataset.photos.fingerprint(),
        "number": len(dataset),
        "views": views,
        "drawn": repr(dataset.transform) if views > 1 else None,
        "shrunk": dataset.pictures.shrunk if dataset.pictures and views > 1 else None,
        "plain": repr(dataset.plain),
        "normalise": repr(normalise),
        "precision": precision,
        "device": [
            platform.machine(),
            describe(device),
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
        ],
        "versions": [
            thaw.__version__, torch.__version__, torchvision.__version__, *_other_versions(body)
        ],
    }  # fmt: skip


def _plain_attributes(body: nn.Module) -> list[tuple[str, str, object]]:
    """Flags and numbers that a forward pass may look at, which need not stand in the repr."""
    return [
        (name, key, value)
        for name, module in body.named_modules()
        for key, value in sorted(vars(module).items())
        if isinstance(value, bool | int | float | str) and key != "training"
    ]


def _other_versions(body: nn.Module) -> list[str]:
    """Of packages that code of the body comes from, as timm."""
    packages = {type(module).__module__.partition(".")[0] for module in body.modules()}
    versions = {name: getattr(sys.modules[name], "__version__", None) for name in packages}
    return [f"{name} {version}" for name, version in sorted(versions.items()) if version]


def open_table(path: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A file as a tensor (P, V, D), in memory only as far as it is read or written.

    Shared also where it is only read: Linux refuses a private mapping larger than its memory.
    """
    flat = torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype)
    return flat.view(*shape)


def read_table(store: Store) -> Tensor:
    """(P, V, D) of a whole store."""
    facts = store.facts()
    return open_table(store.path, facts["shape"], getattr(torch, facts["dtype"]))
