"""A trained model in use: photos in, labels and calibrated probabilities out.

Neither Lightning nor Hydra nor a network is needed, and no code of the model folder runs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from thaw.backbones.backbone import InputSpec
from thaw.backbones.pretrained import differences
from thaw.backbones.rebuild import BUILDERS, rebuild
from thaw.data.decode import decode, from_pillow
from thaw.errors import ConfigError
from thaw.head import linear, mlp
from thaw.model_folder import FORMAT, sha256
from thaw.transforms import eval_transform, normalise

HEADS = {"thaw.head.linear": linear, "thaw.head.mlp": mlp}
Photo = str | Path | Image.Image | Tensor


@dataclass(frozen=True)
class Prediction:
    """What the model says of one photo.

    Attributes:
        label: the most probable class.
        probability: its probability, 0-1, calibrated.
        probabilities: of all classes, the most probable first.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


class ImageClassifier(nn.Module):
    """A trained body and head, with everything that is needed to use them on photos.

    Attributes:
        classes: names of the K classes, in the order of the probabilities.
        input_spec: size and normalisation of the input.
        temperature: that the class scores are divided by before the softmax.
        transform: a decoded picture, uint8 (3, H, W) -> uint8 (3, S, S).
        facts: the content of model.json.
    """

    def __init__(self, body: nn.Module, head: nn.Module, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.body, self.head, self.facts = body, head, facts
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.temperature = float(facts["temperature"])
        size, resize, mean, std, interpolation = (
            facts["input"][name] for name in ("size", "resize", "mean", "std", "interpolation")
        )
        mode = InterpolationMode(interpolation)
        self.input_spec = InputSpec(size, resize, tuple(mean), tuple(std), mode)
        self.transform = eval_transform(self.input_spec)
        self.normalise = normalise(self.input_spec)
        fast = facts["backbone"]["channels_last"]
        self.memory_format = torch.channels_last if fast else torch.contiguous_format
        self.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S), uint8 or float of 0-1 -> probabilities (N, K)."""
        images = images.clone(memory_format=self.memory_format)  # normalising works in place
        scores = self.head(self.body(self.normalise(images)))
        return (scores / self.temperature).softmax(1)

    @torch.inference_mode()
    def predict(self, photos: Photo | Sequence[Photo], batch_size: int = 64) -> list[Prediction]:
        """Labels and probabilities of photos of any size, resized and cropped as in training.

        Args:
            photos: one or a list of them: paths, Pillow pictures, tensors uint8 (3, H, W) in RGB.
            batch_size: photos that are computed at once.

        Raises:
            PhotoError: a file that cannot be read as a picture.
            TypeError: something else than a photo.
        """
        many = isinstance(photos, Sequence) and not isinstance(photos, str)
        every: Sequence[Photo] = photos if many else [photos]  # pyright: ignore
        device = next(self.parameters()).device
        predictions: list[Prediction] = []
        for start in range(0, len(every), batch_size):
            views = [self.transform(_decoded(photo)) for photo in every[start : start + batch_size]]
            predictions += self.named(self(torch.stack(views).to(device)))
        return predictions

    def named(self, probabilities: Tensor) -> list[Prediction]:
        """One `Prediction` for each row of the probabilities (N, K)."""
        values, order = probabilities.sort(dim=1, descending=True, stable=True)
        predictions = []
        for row, labels in zip(values.tolist(), order.tolist(), strict=True):
            names = [self.classes[label] for label in labels]
            predictions.append(Prediction(names[0], row[0], dict(zip(names, row, strict=True))))
        return predictions


def _decoded(photo: Photo) -> Tensor:
    """uint8 (3, H, W)."""
    if isinstance(photo, str | Path):
        return decode(Path(photo))
    if isinstance(photo, Image.Image):
        return from_pillow(photo)
    if isinstance(photo, Tensor) and photo.dtype == torch.uint8 and photo.shape[:-2] == (3,):
        return photo
    raise TypeError(
        f"predict: no photo: {type(photo).__name__} {tuple(getattr(photo, 'shape', ()))}; give a "
        "path, a Pillow picture (of an array in RGB: PIL.Image.fromarray(array)) or a tensor "
        "uint8 (3, H, W) in RGB"
    )


def load(
    path: str | Path, *, body: nn.Module | None = None, head: nn.Module | None = None
) -> ImageClassifier:
    """The model of a model folder, or of a run folder, on the CPU and in eval mode.

    Args:
        path: the folder.
        body, head: needed where the run had a backbone or a head of your own: the module, with any
            weights. Body: (N, 3, S, S) -> (N, D); head: (N, D) -> (N, K).

    Raises:
        ConfigError: no model there, of a newer format, changed since it was written, with parts
            that thaw cannot build, or with weights that do not fit them.
    """
    given = Path(path).expanduser()
    folder = given if (given / "model.json").is_file() else given / "model"
    described, weights = folder / "model.json", folder / "model.safetensors"
    if not described.is_file():
        raise ConfigError(
            f"{given}: holds no model (neither model.json nor model/model.json). Give the folder "
            "of a finished run, like logs/train/runs/2026-01-31_12-00-00, or its model folder"
        )
    try:
        record = json.loads(described.read_text(encoding="utf-8"))
        if record["format"] > FORMAT:
            raise ConfigError(
                f"{described}: has format {record['format']}, and this thaw reads up to {FORMAT}; "
                "update thaw"
            )
        if not weights.is_file() or sha256(weights) != record["sha256"]:
            raise ConfigError(
                f"{weights}: is missing, or is not the file that model.json was written with (by "
                "its sha256); copy the whole model folder again"
            )
        if not 0 < float(record["temperature"]) < math.inf:
            raise ValueError(f"temperature {record['temperature']}")
        model = ImageClassifier(body or _body(record), head or _head(record), record)
        state = load_file(weights)
        if misfit := differences(model.state_dict(), state):
            raise ConfigError(f"{weights}: these weights do not fit the model ({misfit})")
        model.load_state_dict(state)
    except SafetensorError as error:
        raise ConfigError(f"{weights}: is no safetensors file ({error})") from error
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"{described}: is no description of a model ({error!r})") from error
    return model


def _body(record: Mapping[str, Any]) -> nn.Module:
    facts = record["backbone"]
    if facts["builder"] not in BUILDERS:
        raise _unknown("body", facts["builder"])
    return rebuild(facts["builder"], facts["name"], facts["image_size"])


def _head(record: Mapping[str, Any]) -> nn.Module:
    facts = record["head"]
    if facts["builder"] not in HEADS:
        raise _unknown("head", facts["builder"])
    sizes = record["backbone"]["features"], len(record["classes"])
    return HEADS[facts["builder"]](*sizes, **facts["arguments"])


def _unknown(part: str, builder: str) -> ConfigError:
    return ConfigError(
        f"thaw.load: the {part} was built by {builder}, which is not thaw's, and a model folder "
        f"runs no code. Build the module yourself and give it: thaw.load(path, {part}=MODULE)"
    )
