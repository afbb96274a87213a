"""A body that ends at one of its layer groups: features from an earlier layer.

The later a layer, the more it knows of the pictures that the weights were trained on, so where the
photos are few and of another kind, an earlier one can serve better (Yosinski et al.,
arXiv:1411.1792).
"""

from dataclasses import replace

from torch import Tensor, nn

from thaw.backbones import tracing
from thaw.backbones.backbone import Backbone
from thaw.backbones.groups import LayerGroup
from thaw.errors import ConfigError
from thaw.finetune.layers import groups_named as find

KEY = "finetune.features_from"


class Reached(Exception):  # noqa: N818  no error: how the forward pass is left
    """Carries a layer's output out of the forward pass of the model around it."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def leave(module: nn.Module, inputs: object, output: Tensor) -> None:
    """Forward hook of the layer that the features come from."""
    raise Reached(output)


class CutBody(nn.Module):
    """(N, 3, H, W) -> (N, D): one layer's output, its mean over all places.

    A model's forward pass is code of its own, so it is not rewritten but left, by an exception from
    a hook. That works for every model, and nothing behind the layer is computed.

    Attributes:
        body: whose later layers are gone.
        last: name of the layer.
        places: dimensions of its output that the mean is taken over.
    """

    def __init__(self, body: nn.Module, last: str, places: tuple[int, ...]) -> None:
        super().__init__()
        self.body = body
        self.last = last
        self.places = places
        body.get_submodule(last).register_forward_hook(leave)

    def forward(self, images: Tensor) -> Tensor:
        try:
            self.body(images)
        except Reached as reached:
            output = reached.output
        else:
            raise RuntimeError(f"the forward pass ended without running {self.last}")
        return output.mean(self.places) if self.places else output

    def extra_repr(self) -> str:  # part of what names cached features
        return f"last={self.last}, places={self.places}"


def cut(backbone: Backbone, features_from: str) -> Backbone:
    """The backbone up to a layer group, whose output is its features.

    They are the output of the group's last layer, as a mean over all places: pixels (N, C, H, W) or
    (N, H, W, C), or tokens (N, L, C), class token and all.

    Args:
        backbone: taken apart, not to be used any more.
        features_from: name of a layer group, or of a module that holds some.

    Raises:
        ConfigError: no such group, the last one, or one whose output is no tensor.
    """
    groups = backbone.groups
    names = [group.name for group in groups]
    place = max(names.index(name) for name in find(groups, features_from, KEY))
    if place == len(groups) - 1:
        raise ConfigError(
            f"{KEY}={features_from}: has no effect, since {names[-1]} is the last layer group; "
            f"leave it out, or choose an earlier one: {', '.join(names[:-1])}"
        )
    body, size = backbone.body, backbone.input_spec.size
    seen = tracing.trace(body, size)
    last = max(groups[place].modules, key=seen.first_run)
    shape = seen.outputs.get(last)
    if shape is None:
        raise ConfigError(
            f"{KEY}={features_from}: {last} gives no tensor that could be features; choose a layer "
            f"group around it, with backbone.granularity=block or stage"
        )
    if len(shape) == 4 and len({*shape[1:]}) == 1:  # as many channels as pixels: which is which?
        shape = tracing.trace(body, 2 * size).outputs[last]
    for group in groups[place + 1 :]:
        for name in group.modules:
            parent, _, child = name.rpartition(".")
            setattr(body.get_submodule(parent), child, nn.Identity())
    short = CutBody(body, last, tracing.places(shape))
    return replace(
        backbone,
        name=f"{backbone.name} up to {names[place]}",
        body=short,
        out_features=tracing.run_without_data(short, size).shape[1],
        groups=tuple(_inside(group) for group in groups[: place + 1]),
    )


def _inside(group: LayerGroup) -> LayerGroup:
    """The group with the names that its parameters and modules have in `CutBody`."""
    return replace(
        group,
        parameters=tuple(f"body.{name}" for name in group.parameters),
        modules=tuple(f"body.{name}" for name in group.modules),
    )
