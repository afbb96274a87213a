"""What every backbone provides, and torchvision's models as backbones.

A backbone owns the preprocessing that its weights were trained with, so no configuration file
contains an image size, mean, standard deviation or interpolation.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torchvision.models
from torch import nn
from torchvision.transforms import InterpolationMode

from thaw.backbones import groups, tracing
from thaw.backbones.groups import LayerGroup
from thaw.backbones.parts import Granularity
from thaw.backbones.pretrained import check_weights, load_into, official_file, read_weights
from thaw.backbones.tracing import Make, Trace
from thaw.errors import ConfigError, near

RANDOM = "weights: random"  # the licence line of a backbone that starts from random weights


@dataclass(frozen=True)
class InputSpec:
    """The images that a backbone expects.

    Attributes:
        size: Side of the square input, in pixels.
        resize: Short side of the image before the centre crop of `size`, in pixels.
        mean: Mean of each channel (R, G, B), for values in 0-1.
        std: Standard deviation of each channel, for values in 0-1.
        interpolation: How images are resized.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def at(self, size: int | None) -> "InputSpec":
        """Returns the spec for another input size that crops off the same share of the image."""
        if size is None:
            return self
        return replace(self, size=size, resize=round(size * self.resize / self.size))


@dataclass(frozen=True)
class Backbone:
    """A network without its last layer.

    Attributes:
        name: The name that the user chose; timm's models start with "timm/".
        body: The network, (N, 3, H, W) -> (N, D).
        out_features: D, the number of features.
        input_spec: The images that the body expects.
        groups: The layer groups, stem first. Every parameter of the body is in exactly one.
        licence: One line on the licence of the weights, as their publisher declares it.
        weights: One line on the weights that were loaded ("random" for none).
        last_layer: The layer that was removed, like "fc (Linear)"; empty if the model had none.
        builder: The function that built it, see `rebuild.BUILDERS`; empty for a user's own.
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
        """Whether most weights are convolutions. Such bodies run faster in channels_last."""
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
    """Builds any of torchvision's classification models as a backbone.

    Args:
        name: A name from `torchvision.models.list_models(module=torchvision.models)`.
        weights: "DEFAULT" (the best that torchvision has), a name from the model's weights enum
            ("IMAGENET1K_V1"), the path of a file (see `pretrained.read_weights`), or None for
            random weights.
        image_size: Side of the input in pixels. None uses the size the weights were trained at.
        granularity: Of the layer groups, see `groups.split`.

    Raises:
        ConfigError: The name or the weights are unknown, a file does not fit, or the model cannot
            take the size.
        DownloadError: The weights are not on this machine and cannot be fetched.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"backbone.name={name}: no such torchvision model{near(name, known)}. "
            "`thaw models` lists them."
        )
    enum = torchvision.models.get_model_weights(name)
    from_file = check_weights(weights, sorted({*enum.__members__, "DEFAULT"}))
    entry = None if weights is None or from_file else enum[weights]
    # Random weights and weights from a file use the preprocessing of the default weights.
    preset = (entry or enum.DEFAULT).transforms()  # pyright: ignore[reportAttributeAccessIssue]
    spec = InputSpec(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation,
    ).at(image_size)

    make = partial(torchvision_model, name, random=weights is None)
    if entry is not None:
        declared = entry.meta.get("license") or "no licence declared by torchvision"
        file = partial(official_file, entry.url)
        licence, weights = f"weights: {declared}", entry.name
    else:
        file, licence = own_file(weights)
    return assemble("torchvision", name, make, spec, file, licence, weights, granularity)


def torchvision_model(name: str, size: int, *, random: bool = True) -> nn.Module:
    """Builds the whole model for inputs of `size` pixels.

    Args:
        name: As in `torchvision_backbone`.
        size: Side of the input in pixels.
        random: Whether its weights stay random. If not, a slow initialisation is skipped.
    """
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = size  # the position embedding has one entry per patch
    elif name.startswith("maxvit_"):
        options["input_size"] = (size, size)  # the windows must tile every stage
    elif name in ("googlenet", "inception_v3"):
        # torchvision sets transform_input for its weights, which expect another mean and std.
        # thaw sets it always, so that a name stands for one function of the image.
        options.update(transform_input=True, init_weights=random)
    return torchvision.models.get_model(name, weights=None, **options)


def own_file(weights: str | None) -> tuple[Callable[[], Path] | None, str]:
    """Returns what fetches the user's own weight file, and its licence line; None: no file."""
    if weights is None:
        return None, RANDOM
    return lambda: Path(weights), f"weights: your own file, {weights}"


def make_traced(name: str, make: Make, size: int) -> tuple[nn.Module, Trace]:
    """Builds the model for inputs of `size` pixels and traces it.

    Raises:
        ConfigError: The model cannot take the size. The message has the nearest that it can take.
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
    """Returns D, the number of features that a body without its last layer gives.

    Raises:
        ConfigError: The output is not features (N, D).
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
    weights: str | None,
    granularity: Granularity,
) -> Backbone:
    """Builds the model, loads its weights, removes its last layer and splits the rest.

    Args:
        builder, name, licence, granularity: See `Backbone`.
        make: Builds the whole model for a size in pixels.
        spec: The images that it expects.
        file: Fetches the weight file; None for random weights.
        weights: One line on the weights; None for random weights.
    """
    model, seen = make_traced(name, make, spec.size)  # before anything is fetched
    last = tracing.last_layer(model, seen)
    if file is not None:
        path = file()
        state = read_weights(path, model.state_dict())
        load_into(model, state, last_layer=last, name=name, source=str(path))
    for auxiliary in tracing.unused(model, seen):
        setattr(model, auxiliary, None)
        model.aux_logits = False  # pyright: ignore[reportArgumentType]  a plain flag there
    removed = tracing.described(model, last)
    parent, _, child = last.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    layer_groups = groups.split(model, seen, granularity)
    features = width(name, model, spec.size)
    return Backbone(
        name, model, features, spec, layer_groups, licence, weights or "random", removed, builder
    )  # fmt: skip
