"""Splits a body into ordered, named layer groups.

Nothing here knows a model by name: the order of execution and the resolution of outputs
(tracing.py) show what a stage is, the module tree shows what belongs together (parts.py).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from torch import nn

from thaw.backbones.parts import Granularity, children, parts_of
from thaw.backbones.tracing import Trace, with_parents

HEAD = "head"  # the name of every model's last group


@dataclass(frozen=True)
class LayerGroup:
    """A part of the model that is frozen, unfrozen and given a learning rate as one.

    Attributes:
        name: As printed, logged and used in the configuration.
        parameters: Names of its parameters.
        modules: Names of the modules it consists of; everything below them belongs to it.
        depth: Its place among the parts that see an image, from 0 (first) to 1 (last). Parts
            behind them have 1.
        is_classifier: Whether it gives (N, D), so that it belongs to the classifier of several
            layers that the weights came with (VGG, AlexNet, MobileNetV3).
    """

    name: str
    parameters: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    depth: float = 1.0
    is_classifier: bool = False


def split(
    body: nn.Module, seen: Trace, granularity: Granularity = "stage"
) -> tuple[LayerGroup, ...]:
    """Splits a body into layer groups, stem first.

    Parameters outside all parts (class token, position embedding) belong to the stem. Layers
    without parameters outside all parts (dropout) belong to the group that runs before them. With
    "stage" and "block", norms that stand alone join the part before them, because a learning rate
    of their own would mean nothing.

    Args:
        body: The model without its last layer.
        seen: The trace of the whole model.
        granularity: "stage": parts whose outputs have the same resolution. If there are fewer than
            three, as in transformers, every block is a group, as layer-wise decay is used on them
            (BEiT, arXiv:2106.08254, section 3). "module": the model's own children (ResNet:
            conv1, bn1, layer1 to layer4). "block": residual, dense or transformer blocks. "layer":
            single layers; an attention, or a block with parameters of its own, counts as one.

    Raises:
        ConfigError: The granularity is unknown.
    """
    parts = parts_of(body, seen, granularity)
    owned = [
        tuple(
            f"{module}.{name}"
            for module in modules
            for name, _ in body.get_submodule(module).named_parameters()
        )
        for modules in parts
    ]
    in_parts = {name for names in owned for name in names}
    loose = tuple(name for name, _ in body.named_parameters() if name not in in_parts)
    owned[0] = loose + owned[0]
    return gather(body, seen, parts, owned, every_layer=granularity == "layer")


def gather(
    body: nn.Module,
    seen: Trace,
    parts: Sequence[Sequence[str]],
    owned: Sequence[tuple[str, ...]],
    *,
    every_layer: bool = False,
) -> tuple[LayerGroup, ...]:
    """Makes layer groups of given modules and parameters, stem first.

    Args:
        body: The model without its last layer.
        seen: The trace of the body or of the whole model.
        parts: For each group the names of its modules.
        owned: For each group the names of its parameters: those of its modules, and loose ones.
        every_layer: Whether the depths count all layers instead of the groups.

    Raises:
        ValueError: A parameter of the body is in no group or in several.
    """
    flat = [all(len(seen.outputs.get(name, ())) == 2 for name in modules) for modules in parts]
    depths = _layer_depths(body, parts, seen) if every_layer else _depths(flat)
    groups = tuple(
        LayerGroup(_name(body, modules), parameters, (*modules, *beside), depth, is_flat)
        for modules, parameters, beside, depth, is_flat in zip(
            parts, owned, _beside(parts, seen), depths, flat, strict=True
        )
    )
    check_cover(groups, [name for name, _ in body.named_parameters()])
    return groups


def check_cover(groups: Sequence[LayerGroup], parameters: Iterable[str]) -> None:
    """Checks that every parameter is in exactly one group and that all group names differ.

    Raises:
        ValueError: Lists the parameters in no group or in several, and the repeated group names.
    """
    count = Counter(chain.from_iterable(group.parameters for group in groups))
    none = [name for name in parameters if not count[name]]
    several = [name for name, times in count.items() if times > 1]
    names = Counter(group.name for group in groups)
    doubled = sorted(name for name, times in names.items() if times > 1)
    if none or several or doubled:
        raise ValueError(
            f"layer groups must hold every parameter exactly once; in no group: {none}; "
            f"in several: {several}; group names used twice: {doubled}"
        )


def _depths(flat: list[bool]) -> list[float]:
    """Spaces the parts that see an image evenly."""
    last = max(1, flat.count(False) - 1)
    return [1.0 if is_flat else place / last for place, is_flat in enumerate(flat)]


def _layer_depths(body: nn.Module, parts: Sequence[Sequence[str]], seen: Trace) -> list[float]:
    """Places each part among all layers that see an image, also those without parameters.

    VGG16's 44 feature layers, including activations and pooling, are 44 places, as in
    `np.linspace(low, high, len(model.features))`. Layers outside the children that have parameters
    (the pooling before a classifier) do not count.
    """
    tops = tuple(f"{name}." for name in children(body, ""))
    starts = [
        seen.first_run(name)
        for name in seen.order
        if f"{name}.".startswith(tops)
        and not any(True for _ in body.get_submodule(name).children())
        and len(seen.outputs.get(name, ())) != 2
    ]
    last = max(1, len(starts) - 1)
    depths = []
    for modules in parts:
        is_flat = len(seen.outputs.get(modules[-1], ())) == 2
        before = sum(start < seen.first_run(modules[0]) for start in starts)
        depths.append(1.0 if is_flat else min(1.0, before / last))
    return depths


def _beside(parts: Sequence[Sequence[str]], seen: Trace) -> list[list[str]]:
    """Returns for each part the layers outside all parts that run after it, before the next."""
    starts = [seen.first_run(modules[0]) for modules in parts]
    beside: list[list[str]] = [[] for _ in parts]
    modules = set(chain.from_iterable(parts))
    containers = {name for layer in seen.order for name in with_parents(layer)[1:]}
    for place, layer in enumerate(seen.order):
        if layer and layer not in containers and modules.isdisjoint(with_parents(layer)):
            beside[max(0, sum(start <= place for start in starts) - 1)].append(layer)
    return beside


def _name(body: nn.Module, modules: Sequence[str]) -> str:
    """Returns the module's own name, or first-last. Norms that joined are not named.

    What a model itself calls "head" (its last norm, in timm) becomes "body.head", because "head"
    is thaw's.
    """
    matrices = [
        module
        for module in modules
        if any(weight.ndim > 1 for weight in body.get_submodule(module).parameters())
    ] or modules
    first, last = matrices[0], matrices[-1]
    name = first if first == last else f"{first}-{last.rpartition('.')[2]}"
    return f"body.{name}" if f"{name}.".startswith(f"{HEAD}.") else name
