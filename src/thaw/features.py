"""Features of a frozen body: computed once, kept on disk, and used instead of photos.

A frozen body gives the same features for the same view of a photo, so an epoch of a phase that
trains the head alone need not decode a photo or run the body. The file's name is a fingerprint of
everything the features depend on; a file that is not whole, or not what it says, is made anew.
"""

import hashlib
import json
import platform
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import thaw
from thaw.data.base import PhotoDataset
from thaw.data.loading import Key
from thaw.seeds import derive

BLOCK = 1 << 24  # bytes read at once when a file is checked


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
        views = self.table.shape[1]
        places = torch.tensor([index for index, _ in keys])
        chosen = torch.tensor([0 if seed is None else seed % views for _, seed in keys])
        return self.table[places, chosen], self.labels[places]


def view_keys(photos: int, views: int, seed: int) -> list[Key]:
    """Keys of all views of all photos, photo by photo: the evaluation view, then drawn ones."""
    return [
        (index, None if view == 0 else derive(seed, index, view))
        for index in range(photos)
        for view in range(views)
    ]


def fingerprint(body: nn.Module, dataset: PhotoDataset, *, views: int, seed: int,
                precision: str) -> dict[str, Any]:  # fmt: skip
    """Everything the features depend on, as plain values.

    Args:
        body: its weights and buffers are hashed.
        dataset: the photos' paths, sizes and times of change; both transforms, by their repr.
        views, seed: see `view_keys`.
        precision: Lightning's name of the precision the body runs in.
    """
    weights = hashlib.sha256()
    for name, value in sorted(body.state_dict().items()):
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    photos = hashlib.sha256()
    for path in dataset.photos.paths:
        facts = path.stat()
        photos.update(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return {
        "weights": weights.hexdigest(),
        "body": hashlib.sha256(repr(body).encode()).hexdigest(),
        "photos": photos.hexdigest(),
        "number": len(dataset),
        "views": views,
        "seed": seed if views > 1 else None,
        "drawn": repr(dataset.transform) if views > 1 else None,
        "plain": repr(dataset.plain),
        "precision": precision,
        "machine": platform.machine(),
        "versions": [thaw.__version__, torch.__version__, torchvision.__version__],
    }


class Store:
    """One file of features and the note beside it.

    Attributes:
        what: the fingerprint.
        path: of the features; the note has the same name and ends in .json.
    """

    def __init__(self, folder: Path, what: dict[str, Any]) -> None:
        self.what = what
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:24]
        self.path = folder / f"{name}.bin"
        self.part = self.path.with_suffix(".part")
        self.note = self.path.with_suffix(".json")

    def shape(self, out_features: int) -> tuple[int, int, int]:
        """(P, V, D)."""
        return self.what["number"], self.what["views"], out_features

    def is_whole(self) -> bool:
        """Whether a file is there and is what its note says: length, checksum and fingerprint."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return note["what"] == self.what and note["crc32"] == checksum(self.path)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def begin(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """An empty file of the full size."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.part.open("wb") as file:
            file.truncate(int(np.prod(shape)) * dtype.itemsize)

    def open(self, path: Path, shape: tuple[int, int, int], dtype: torch.dtype) -> Tensor:
        """The file as a tensor (P, V, D), in memory only as far as it is read or written."""
        size = int(np.prod(shape))
        flat = torch.from_file(str(path), shared=path == self.part, size=size, dtype=dtype)
        return flat.view(shape)

    def finish(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        """Puts the file in its place, and the note beside it."""
        note = {"what": self.what, "crc32": checksum(self.part), "shape": list(shape),
                "dtype": str(dtype).removeprefix("torch.")}  # fmt: skip
        self.part.replace(self.path)
        written = self.note.with_suffix(".note")
        written.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        written.replace(self.note)

    def read(self) -> Tensor:
        """(P, V, D)."""
        note = json.loads(self.note.read_text(encoding="utf-8"))
        shape: Any = tuple(note["shape"])
        return self.open(self.path, shape, getattr(torch, note["dtype"]))


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return value
