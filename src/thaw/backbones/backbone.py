"""What every backbone provides, also the preprocessing that its weights were trained with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn
from torchvision.transforms import InterpolationMode

from thaw.backbones import groups, tracing
from thaw.backbones.groups import Granularity, LayerGroup
from thaw.backbones.pretrained import Source, load_into
from thaw.backbones.tracing import Make, Trace
from thaw.errors import ConfigError, reason

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
        size = size or self.size
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
    fold: Callable[..., Any] | None = None  # makes it faster, see `folding.fold`

    def cropped(self, crop: Crop) -> "Backbone":
        """Returns the same backbone with images made square in this way."""
        return replace(self, input_spec=replace(self.input_spec, crop=crop))

    @property
    def is_convolutional(self) -> bool:
        """Whether most weights are convolutions. Such bodies run faster in channels_last."""
        modules, every = self.body.modules(), sum(w.numel() for w in self.body.parameters())
        return sum(m.weight.numel() for m in modules if isinstance(m, nn.Conv2d)) > 0.5 * every


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
    return Backbone(name, model, features, spec, parts, source.licence, source.label, builder)


def make_traced(name: str, make: Make, size: int) -> tuple[nn.Module, Trace]:
    """Builds the model and traces it; raises ConfigError if it cannot take inputs of this size."""
    try:
        model = make(size)
        return model, tracing.trace(model, size)
    except tracing.SIZE_ERRORS as error:
        raise ConfigError(
            f"backbone.image_size={size}: {name} cannot take this size ({reason(error)}); "
            "backbone.image_size=null is the size that its weights were made for"
        ) from error
