"""A name -> a pretrained body, its input spec and its layer groups.

The backbone owns the preprocessing that its weights were trained with, so image size, mean, std
and interpolation stand in no configuration file.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torchvision.models
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.transforms import InterpolationMode

from thaw.backbones import groups, licences, tracing
from thaw.backbones.groups import LayerGroup
from thaw.backbones.parts import Granularity
from thaw.backbones.pretrained import is_path, load_into, official_file, read_weights
from thaw.backbones.tracing import Make, Trace
from thaw.errors import ConfigError, near


@dataclass(frozen=True)
class InputSpec:
    """What a backbone wants to see.

    Attributes:
        size: side of the square input, in pixels.
        resize: short side of the picture before the centre crop of `size`, in pixels.
        mean, std: of each channel (R, G, B), for values in 0-1.
        interpolation: used when resizing.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def at(self, size: int) -> "InputSpec":
        """The same spec at another input size, with the same share of the picture cropped off."""
        return replace(self, size=size, resize=round(size * self.resize / self.size))


@dataclass(frozen=True)
class Backbone:
    """A body without its last layer.

    Attributes:
        name: as the user chose it.
        body: (N, 3, H, W) -> (N, D).
        out_features: D.
        input_spec: what the body wants to see.
        groups: layer groups, stem first; every parameter of the body is in exactly one.
        licence: of the weights, one line.
        weights: what was loaded, one line ("random" for none).
        last_layer: what was taken off, as "fc (Linear)"; empty: the model had none.
        builder: which of thaw's constructors made it, as "torchvision"; empty: the user's own.
    """

    name: str
    body: nn.Module
    out_features: int
    input_spec: InputSpec
    groups: tuple[LayerGroup, ...]
    licence: str
    weights: str
    last_layer: str = ""
    builder: str = ""

    @property
    def is_convolutional(self) -> bool:
        """Whether most weights are convolutions: such bodies run faster in channels_last."""
        convolutions = sum(
            module.weight.numel() for module in self.body.modules() if isinstance(module, nn.Conv2d)
        )
        return convolutions > 0.5 * sum(weight.numel() for weight in self.body.parameters())


def torchvision_backbone(
    name: str,
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """Any of torchvision's classification models.

    Args:
        name: as in `torchvision.models.list_models(module=torchvision.models)`.
        weights: "DEFAULT" (the best that torchvision has), a name from the model's weights enum
            ("IMAGENET1K_V1"), a path (.pth, .pt or .safetensors), or None for random weights.
        image_size: side of the input in pixels; None takes the size the weights were trained at.
        granularity: of the layer groups, see `groups.split`.

    Raises:
        ConfigError: an unknown name or weights, a file that does not fit, a size the model cannot
            take.
        DownloadError: the weights are not here and cannot be fetched.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"backbone.name={name}: no such torchvision model{near(name, known)}. "
            "`python train.py --help` lists them."
        )
    enum = torchvision.models.get_model_weights(name)
    entry = _choose(name, weights, enum)
    # random weights and weights by path: the preprocessing of the default ones
    preset = (entry or enum.DEFAULT).transforms()  # pyright: ignore[reportAttributeAccessIssue]
    spec = InputSpec(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation,
    )
    if image_size is not None:
        spec = spec.at(image_size)

    make = partial(torchvision_model, name, random=weights is None)
    if weights is None:
        return assemble(
            "torchvision", name, make, spec, None, licences.RANDOM, "random", granularity
        )
    if entry is None:
        licence = licences.of_file(weights)
        return assemble(
            "torchvision", name, make, spec, lambda: Path(weights), licence, weights, granularity
        )
    licence = licences.of_torchvision(entry).line
    file = partial(official_file, entry.url)
    return assemble("torchvision", name, make, spec, file, licence, entry.name, granularity)


def torchvision_model(name: str, size: int, *, random: bool = True) -> nn.Module:
    """The whole model for inputs of `size` pixels; `random`: its weights stay so."""
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = size  # its position embedding has one place a patch
    elif name.startswith("maxvit_"):
        options["input_size"] = (size, size)  # its windows must tile every stage
    elif name in ("googlenet", "inception_v3"):
        # as torchvision builds them for its weights, which were made for other mean and std
        options.update(transform_input=not random, init_weights=random)
    return torchvision.models.get_model(name, weights=None, **options)


def make_traced(name: str, make: Make, size: int) -> tuple[nn.Module, Trace]:
    """The model for inputs of `size` pixels, and what one pass without data through it shows.

    Raises:
        ConfigError: a size that the model cannot take, and the nearest that it can.
    """
    try:
        model = make(size)
        return model, tracing.trace(model, size)
    except tracing.SIZE_ERRORS as error:
        nearest = tracing.nearest_size(make, size)
        hint = f"backbone.image_size={nearest} is the nearest that it can, " if nearest else ""
        raise ConfigError(
            f"backbone.image_size={size}: {name} cannot take this size "
            f"({str(error).splitlines()[0]}); {hint}backbone.image_size=null what its weights were "
            "made for"
        ) from error


def width(name: str, body: nn.Module, size: int) -> int:
    """D: how many features a body without its last layer gives.

    Raises:
        ConfigError: it does not give features (N, D).
    """
    features = tracing.run_without_data(body, size)  # (N, D)
    if features.ndim != 2:
        raise ConfigError(
            f"backbone.name={name}: its body gives {tuple(features.shape)}, not (N, D) features"
        )
    return features.shape[1]


def assemble(
    builder: str,
    name: str,
    make: Make,
    spec: InputSpec,
    file: Callable[[], Path] | None,
    licence: str,
    label: str,
    granularity: Granularity,
) -> Backbone:
    """Builds the model, loads its weights, takes its last layer off and splits the rest."""
    model, seen = make_traced(name, make, spec.size)  # before anything is fetched
    last = tracing.last_layer(model, seen)
    if file is not None:
        path = file()
        load_into(model, read_weights(path), last_layer=last, name=name, source=str(path))
    for auxiliary in tracing.unused(model, seen):
        setattr(model, auxiliary, None)
        model.aux_logits = False  # pyright: ignore[reportArgumentType]  a plain flag there
    taken_off = tracing.described(model, last)
    parent, _, child = last.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    layer_groups = groups.split(model, seen, granularity)
    features = width(name, model, spec.size)
    return Backbone(name, model, features, spec, layer_groups, licence, label, taken_off, builder)


def _choose(name: str, weights: str | None, enum: type[WeightsEnum]) -> WeightsEnum | None:
    """The entry of torchvision's enum that `weights` names; None for a path or for no weights."""
    if weights is None or is_path(weights):
        return None
    if weights in enum.__members__:
        return enum[weights]
    names = sorted({*enum.__members__, "DEFAULT"})
    raise ConfigError(
        f"backbone.weights={weights}: {name} has {', '.join(names)}; or give a path "
        f"(.pth, .pt, .safetensors), or null for random weights{near(weights, names)}"
    )
