"""A trained model in use: photos in, labels and calibrated probabilities out.

Neither Lightning nor Hydra nor a network is needed, and no code of the model folder runs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from thaw.backbones.backbone import InputSpec
from thaw.backbones.pretrained import differences
from thaw.backbones.rebuild import not_ours, rebuild, without_values
from thaw.data.decode import decode, from_pillow
from thaw.errors import ConfigError, PhotoError, check, reason
from thaw.head import linear, norm_linear
from thaw.mlp_head import mlp
from thaw.model_reader import find_model, read_model
from thaw.transforms import eval_transform, normalise

HEADS = {"thaw.head.linear": linear, "thaw.head.norm_linear": norm_linear, "thaw.mlp_head.mlp": mlp}
Photo = str | Path | Image.Image | Tensor


@dataclass(frozen=True)
class Prediction:
    """What the model says of one photo."""

    label: str  # the most probable class
    probability: float  # of it, 0-1, calibrated
    probabilities: dict[str, float]  # of all classes, the most probable first

    def record(self, top: int) -> dict[str, Any]:
        """Plain values, as they are written to files: label, probability and the `top` classes."""
        best = [{"label": label, "probability": value}
                for label, value in islice(self.probabilities.items(), top)]  # fmt: skip
        return {**best[0], "top": best}


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
        spec = facts["input"]
        colours = {"mean": tuple(spec["mean"]), "std": tuple(spec["std"])}
        mode = InterpolationMode(spec["interpolation"])
        self.input_spec = InputSpec(**{**spec, **colours, "interpolation": mode})
        self.transform = eval_transform(self.input_spec)
        self.normalise = normalise(self.input_spec)
        fast = facts["backbone"]["channels_last"]
        self.memory_format = torch.channels_last if fast else torch.contiguous_format
        self.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        self.eval()

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S), uint8 or float of 0-1 -> what the head gets of them, (N, D)."""
        images = images.clone(memory_format=self.memory_format)  # normalising works in place
        return self.body(self.normalise(images).to(next(self.parameters()).dtype))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S), uint8 or float of 0-1 -> calibrated probabilities (N, K)."""
        return (self.head(self.features(images)).float() / self.temperature).softmax(1)

    @torch.inference_mode()
    def predict(self, photos: Photo | Iterable[Photo], batch_size: int = 64) -> list[Prediction]:
        """Labels and probabilities of photos of any size, made square as in training.

        Args:
            photos: one or many of them: paths, Pillow pictures, tensors uint8 (3, H, W) or
                (N, 3, H, W) in RGB.
            batch_size: photos that are computed at once.

        Raises:
            PhotoError: a file or Pillow picture that cannot be read as a photo.
            TypeError: something else than a photo.
            ConfigError: a batch_size below 1.
        """
        check(batch_size >= 1, "batch_size", batch_size, "1 or more")
        views, predictions = map(self.transform, _pictures(photos)), []
        while batch := list(islice(views, batch_size)):
            predictions += self.named(self(torch.stack(batch).to(next(self.parameters()).device)))
        return predictions

    def named(self, probabilities: Tensor) -> list[Prediction]:
        """One `Prediction` for each row of the probabilities (N, K)."""
        values, order = probabilities.sort(dim=1, descending=True, stable=True)
        rows = [{self.classes[label]: value for label, value in zip(*pair, strict=True)}
                for pair in zip(order.tolist(), values.tolist(), strict=True)]  # fmt: skip
        return [Prediction(*next(iter(row.items())), row) for row in rows]


def _pictures(photos: Any) -> Iterator[Tensor]:
    """uint8 (3, H, W) of each photo, decoded when it is asked for."""
    if isinstance(photos, str | Path):
        yield decode(Path(photos))
    elif isinstance(photos, Image.Image):
        try:
            yield from_pillow(photos)
        except (ValueError, OSError) as error:
            raise PhotoError(
                f"predict: cannot read the Pillow picture ({error}); give a whole one of mode RGB, "
                "RGBA, L or another of 8 bits"
            ) from error
    elif isinstance(photos, Iterable) and not hasattr(photos, "dtype"):
        for photo in photos:
            yield from _pictures(photo)
    elif (
        isinstance(photos, Tensor) and photos.dtype == torch.uint8
        and photos.ndim in (3, 4) and photos.shape[-3] == 3
    ):  # fmt: skip
        yield from photos if photos.ndim == 4 else [photos]
    else:
        facts = f"{getattr(photos, 'dtype', '')} {(*getattr(photos, 'shape', ()),)}"
        raise TypeError(
            f"predict: no photo: {type(photos).__name__} {facts}; give a path, a Pillow picture or "
            "a tensor uint8 (3, H, W) or (N, 3, H, W) in RGB. Of an array of OpenCV's, which is "
            "BGR, give PIL.Image.fromarray(array[..., ::-1])"
        )


def load(
    path: str | Path, *, body: nn.Module | None = None, head: nn.Module | None = None
) -> ImageClassifier:
    """The model of a model folder, a run folder or a checkpoint of a run, on the CPU, in eval mode.

    Args:
        path: the folder, or the .ckpt file, also of a run that is not finished.
        body, head: needed where the run had a backbone or a head of your own: the module, with any
            weights. Body: (N, 3, S, S) -> (N, D); head: (N, D) -> (N, K).

    Raises:
        ConfigError: no model there, of a newer format, changed since it was written, with parts
            that thaw cannot build, or with weights that do not fit them.
    """
    file = find_model(Path(path).expanduser())
    try:
        facts, state = read_model(file)
        built = facts["backbone"]
        body = body or rebuild(built["builder"], built["name"], built["image_size"])
        with without_values():  # sizes that the weights do not have could fill the memory
            shapes = nn.ModuleDict({"body": body, "head": head or _head(facts)}).state_dict()
        if misfit := differences(shapes, state):
            raise ConfigError(f"{file}: its weights do not fit the model ({misfit})")
        model = ImageClassifier(body, head or _head(facts), facts)
        model.load_state_dict(state)
        return model
    except ConfigError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError,
            SafetensorError) as error:  # fmt: skip
        raise ConfigError(
            f"{file}: is no description of a model ({reason(error)}); copy the whole model folder "
            "again, or make it again with the settings of its run and train=false "
            "ckpt_path=CHECKPOINT"
        ) from error


def _head(facts: Mapping[str, Any]) -> nn.Module:
    builder, features = facts["head"]["builder"], facts["backbone"]["features"]
    if builder not in HEADS:
        raise not_ours("head", builder)
    return HEADS[builder](features, len(facts["classes"]), **facts["head"]["arguments"])
