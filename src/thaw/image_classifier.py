"""A trained model in use: photos in, labels and calibrated probabilities out.

Neither Lightning nor Hydra nor a network is needed, and no code of the model folder runs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from thaw.backbones.backbone import InputSpec
from thaw.backbones.pretrained import differences
from thaw.backbones.rebuild import not_ours, rebuild, without_values
from thaw.data.decode import decode, from_pillow
from thaw.errors import ConfigError, PhotoError, check
from thaw.head import linear, mlp
from thaw.model_reader import check_values, described_by, read_model
from thaw.transforms import eval_transform, normalise

HEADS = {"thaw.head.linear": linear, "thaw.head.mlp": mlp}
Photo = str | Path | Image.Image | Tensor | np.ndarray


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

    def probabilities(self, features: Tensor) -> Tensor:
        """Features (N, D) -> calibrated probabilities (N, K)."""
        return (self.head(features).float() / self.temperature).softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S), uint8 or float of 0-1 -> calibrated probabilities (N, K)."""
        return self.probabilities(self.features(images))

    @torch.inference_mode()
    def predict(
        self, photos: Photo | Iterable[Photo], batch_size: int = 64,
        channels: Literal["rgb", "bgr"] | None = None,
    ) -> list[Prediction]:  # fmt: skip
        """Labels and probabilities of photos of any size, made square as in training.

        Args:
            photos: one or many of them: paths, Pillow pictures, tensors uint8 (3, H, W) or
                (N, 3, H, W) in RGB, arrays uint8 (H, W, 3) or (N, H, W, 3).
            batch_size: photos that are computed at once.
            channels: the order of the colours in arrays; Pillow's is "rgb", OpenCV's is "bgr".

        Raises:
            PhotoError: a file or Pillow picture that cannot be read as a photo.
            TypeError: something else than a photo, or an array of which `channels` is not said, or
                another photo with `channels`.
            ConfigError: a batch_size below 1.
        """
        check(batch_size >= 1, "batch_size", batch_size, "1 or more")
        pictures = _pictures(photos, channels)
        device = next(self.parameters()).device
        predictions: list[Prediction] = []
        while batch := list(islice(pictures, batch_size)):
            views = torch.stack([self.transform(picture) for picture in batch])
            predictions += self.named(self(views.to(device)))
        return predictions

    def named(self, probabilities: Tensor) -> list[Prediction]:
        """One `Prediction` for each row of the probabilities (N, K)."""
        values, order = probabilities.sort(dim=1, descending=True, stable=True)
        predictions = []
        for row, labels in zip(values.tolist(), order.tolist(), strict=True):
            names = [self.classes[label] for label in labels]
            predictions.append(Prediction(names[0], row[0], dict(zip(names, row, strict=True))))
        return predictions


def _pictures(photos: Any, channels: str | None) -> Iterator[Tensor]:
    """uint8 (3, H, W) of each photo, decoded when it is asked for."""
    if channels is not None and isinstance(photos, str | Path | Image.Image | Tensor):
        raise TypeError(
            f"predict: channels={channels}: is for arrays, and this is a {type(photos).__name__}; "
            "leave channels out: a file or a Pillow picture knows its colours, a tensor is in RGB"
        )
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
    elif isinstance(photos, Tensor | np.ndarray):
        colours, byte = (-3, torch.uint8) if isinstance(photos, Tensor) else (-1, np.uint8)
        if photos.dtype != byte or photos.ndim not in (3, 4) or photos.shape[colours] != 3:
            raise _no_photo(photos)
        pictures = photos if isinstance(photos, Tensor) else _from_array(photos, channels)
        yield from pictures if pictures.ndim == 4 else [pictures]
    elif isinstance(photos, Iterable):
        for photo in photos:
            yield from _pictures(photo, channels)
    else:
        raise _no_photo(photos)


def _from_array(array: np.ndarray, channels: str | None) -> Tensor:
    """(..., H, W, 3) -> (..., 3, H, W) in RGB."""
    if channels not in ("rgb", "bgr"):
        raise TypeError(
            f"predict: channels={channels}: an array does not say whether it is RGB or BGR; give "
            'channels="bgr" for OpenCV\'s pictures, channels="rgb" for those of most others'
        )
    rgb = array[..., ::-1] if channels == "bgr" else array
    return torch.from_numpy(np.ascontiguousarray(rgb)).movedim(-1, -3)


def _no_photo(what: Any) -> TypeError:
    found = f"{type(what).__name__} {getattr(what, 'dtype', '')} {(*getattr(what, 'shape', ()),)}"
    return TypeError(
        f"predict: no photo: {found}; give a path, a Pillow picture, a tensor uint8 (3, H, W) or "
        "(N, 3, H, W) in RGB, or an array uint8 (H, W, 3) or (N, H, W, 3) with channels=..."
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
    file, facts, state = read_model(Path(path).expanduser())
    with described_by(file):
        check_values(file, facts)
        built = facts["backbone"]
        body = body or rebuild(built["builder"], built["name"], built["image_size"])
        if head is None:
            with without_values():  # sizes that the weights do not have could fill the memory
                _check_fit(file, nn.ModuleDict({"head": _head(facts)}), state, "body.")
        model = ImageClassifier(body, head or _head(facts), facts)
        _check_fit(file, model, state)
        model.load_state_dict(state)
        return model


def _head(facts: Mapping[str, Any]) -> nn.Module:
    builder, features = facts["head"]["builder"], facts["backbone"]["features"]
    if builder not in HEADS:
        raise not_ours("head", builder)
    return HEADS[builder](features, len(facts["classes"]), **facts["head"]["arguments"])


def _check_fit(file: Path, model: nn.Module, state: Mapping[str, Tensor], *ignored: str) -> None:
    if misfit := differences(model.state_dict(), state, ignored):
        raise ConfigError(f"{file}: its weights do not fit the model ({misfit})")
