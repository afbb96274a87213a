"""What every backbone provides, and torchvision's models as backbones.

A backbone owns the preprocessing that its weights were trained with, so no configuration file
contains an image size, mean, standard deviation or interpolation.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torchvision.models
from torch import nn
from torchvision.transforms import InterpolationMode

from thaw.backbones import groups, tracing
from thaw.backbones.groups import Granularity, LayerGroup
from thaw.backbones.pretrained import Source, load_into, official_file, own_source
from thaw.backbones.tracing import Make, Trace
from thaw.errors import ConfigError, near

Crop = Literal["center", "squash", "pad"]


@dataclass(frozen=True)
class InputSpec:
    """The images that a backbone expects."""

    size: int  # side of the square input, in pixels
    resize: int  # short side of the image before a centre crop of `size`, in pixels
    mean: tuple[float, float, float]  # of each channel (R, G, B), for values in 0-1
    std: tuple[float, float, float]  # standard deviation of each channel, for values in 0-1
    interpolation: InterpolationMode = InterpolationMode.BILINEAR
    crop: Crop = "center"  # how evaluation makes images square, see `transforms.eval_transform`

    def at(self, size: int | None) -> "InputSpec":
        """Returns the spec for another input size that crops off the same share of the image."""
        if size is None:
            return self
        return replace(self, size=size, resize=round(size * self.resize / self.size))


@dataclass(frozen=True)
class Backbone:
    """A network without its last layer."""

    name: str  # that the user chose; timm's models start with "timm/"
    body: nn.Module  # (N, 3, H, W) -> (N, D)
    out_features: int  # D
    input_spec: InputSpec
    groups: tuple[LayerGroup, ...]  # stem first; every parameter of the body is in exactly one
    licence: str  # one line on the licence of the weights, as their publisher declares it
    weights: str  # one line on the weights that were loaded ("random" for none)
    builder: str = ""  # what built it, see `rebuild.BUILDERS`; empty for a user's own

    def cropped(self, crop: Crop) -> "Backbone":
        """Returns the same backbone with images made square in this way."""
        return replace(self, input_spec=replace(self.input_spec, crop=crop))

    @property
    def is_convolutional(self) -> bool:
        """Whether most weights are convolutions. Such bodies run faster in channels_last."""
        convolutions = sum(
            module.weight.numel() for module in self.body.modules() if isinstance(module, nn.Conv2d)
        )
        return convolutions > 0.5 * sum(weight.numel() for weight in self.body.parameters())


def torchvision_backbone(
    name: str, weights: str | None = "DEFAULT", image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:  # fmt: skip
    """Builds any of torchvision's classification models as a backbone.

    Args:
        name: A name from `torchvision.models.list_models(module=torchvision.models)`.
        weights: "DEFAULT" (the best that torchvision has), a name from the model's weights enum
            ("IMAGENET1K_V1"), the path of a file, or None for random weights.
        image_size: Side of the input in pixels. None uses the size the weights were trained at.
        granularity: Of the layer groups, see `groups.split`.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"backbone.name={name}: no such torchvision model{near(name, known)}. "
            "`thaw models` lists them."
        )
    enum: Any = torchvision.models.get_model_weights(name)
    source = own_source(weights, sorted({*enum.__members__, "DEFAULT"}))
    # Random weights and weights from a file use the preprocessing of the default weights.
    entry = enum.DEFAULT if source else enum[weights]
    preset = entry.transforms()
    if source is None:
        declared = entry.meta.get("license") or "no licence declared by torchvision"
        source = Source(entry.name, f"weights: {declared}", partial(official_file, entry.url))
    mean, std = tuple(preset.mean), tuple(preset.std)
    spec = InputSpec(preset.crop_size[0], preset.resize_size[0], mean, std, preset.interpolation)
    spec = spec.at(image_size)
    make = partial(torchvision_model, name, random=weights is None)
    return assemble("torchvision", name, make, spec, source, granularity)


def torchvision_model(name: str, size: int, *, random: bool = True) -> nn.Module:
    """Builds the whole model for inputs of `size` pixels; without a slow start if not `random`."""
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = size  # the position embedding has one entry per patch
    elif name.startswith("maxvit_"):
        options["input_size"] = (size, size)  # the windows must tile every stage
    elif name in ("googlenet", "inception_v3"):
        # torchvision sets transform_input for its weights, which expect another mean and std.
        # thaw always sets it, so that the input means the same with any weights.
        options.update(transform_input=True, aux_logits=False, init_weights=random)
    return torchvision.models.get_model(name, weights=None, **options)


def assemble(
    builder: str, name: str, make: Make, spec: InputSpec, source: Source, granularity: Granularity
) -> Backbone:
    """Builds the model with its weights, removes its last layer and splits the rest."""
    model, seen = make_traced(name, make, spec.size)  # before anything is fetched
    last = tracing.last_layer(model, seen)
    if source.fetch is not None:
        load_into(model, source.fetch(), last_layer=last, name=name)
    model.set_submodule(last, nn.Identity())
    parts = groups.split(model, seen, granularity)
    features = tracing.run_without_data(model, spec.size).shape[1]
    licence, label = source.licence, source.label
    return Backbone(name, model, features, spec, parts, licence, label, builder)


def make_traced(name: str, make: Make, size: int) -> tuple[nn.Module, Trace]:
    """Builds the model and traces it; raises ConfigError if it cannot take inputs of this size."""
    try:
        model = make(size)
        return model, tracing.trace(model, size)
    except tracing.SIZE_ERRORS as error:
        raise ConfigError(
            f"backbone.image_size={size}: {name} cannot take this size "
            f"({str(error).partition(chr(10))[0]}); backbone.image_size=null is the size that its "
            "weights were made for"
        ) from error
