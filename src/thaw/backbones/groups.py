"""Splits a body into ordered, named layer groups.

Nothing here knows a model by name: the order of execution and the size of outputs (tracing.py) tell
what is a stage, the module tree tells what belongs together (parts.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from torch import nn

from thaw.backbones.parts import Granularity, children, parts_of
from thaw.backbones.tracing import Trace, with_holders

HEAD = "head"  # name of the last group of every model


@dataclass(frozen=True)
class LayerGroup:
    """A part of the model that is frozen, unfrozen and given its rate as one.

    Attributes:
        name: as printed, logged and used in the configuration.
        parameters: their names.
        modules: names of the modules it is made of; everything below them belongs to it.
        depth: place between the first (0) and the last (1) part that sees an image; 1 behind.
        is_classifier: gives (N, D), so belongs to what the weights came with as a classifier of
            several layers (VGG, AlexNet, MobileNetV3).
    """

    name: str
    parameters: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    depth: float = 1.0
    is_classifier: bool = False


def split(
    body: nn.Module, seen: Trace, granularity: Granularity = "stage"
) -> tuple[LayerGroup, ...]:
    """The body's layer groups, stem first.

    Args:
        body: without its last layer.
        seen: of the model as it was.
        granularity: "stage": parts with outputs of one resolution (where there are fewer than
            three, as in transformers, every block: layer-wise decay is used so on them, BEiT,
            arXiv:2106.08254, section 3). "module": the model's own parts (ResNet: conv1, bn1,
            layer1 to layer4). "block": residual, dense or transformer blocks. "layer": single
            layers; an attention or a block with parameters of its own counts as one.

    Parameters that stand beside all parts (class token, position embedding) belong to the stem;
    layers without parameters that do (dropout) to the group that runs before them. With "stage" and
    "block" norms that stand alone join the part before them: a rate of its own would mean nothing.

    Raises:
        ConfigError: an unknown granularity.
    """
    parts = parts_of(body, seen, granularity)
    owned = [_parameters(body, modules) for modules in parts]
    taken = {name for names in owned for name in names}
    owned[0] = tuple(name for name, _ in body.named_parameters() if name not in taken) + owned[0]
    return gather(body, seen, parts, owned, every_layer=granularity == "layer")


def gather(
    body: nn.Module,
    seen: Trace,
    parts: Sequence[Sequence[str]],
    owned: Sequence[tuple[str, ...]],
    *,
    every_layer: bool = False,
) -> tuple[LayerGroup, ...]:
    """Layer groups of given modules and parameters, stem first.

    Args:
        body: without its last layer.
        seen: of the body, or of the model as it was.
        parts: names of the modules that each group is made of.
        owned: names of the parameters of each group: those of its modules, and loose ones.
        every_layer: depths count all layers, not the groups.

    Raises:
        ValueError: a parameter of the body that is in none or in several.
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


def check_cover(groups: Iterable[LayerGroup], parameters: Iterable[str]) -> None:
    """Every parameter in exactly one group, every name once.

    Raises:
        ValueError: lists the parameters that are in none or in several, or the doubled names.
    """
    count = dict.fromkeys(parameters, 0)
    names: list[str] = []
    for group in groups:
        names.append(group.name)
        for parameter in group.parameters:
            count[parameter] = count.get(parameter, 0) + 1
    none = [name for name, times in count.items() if times == 0]
    several = [name for name, times in count.items() if times > 1]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if none or several or doubled:
        raise ValueError(
            f"layer groups must hold every parameter exactly once; in no group: {none}; "
            f"in several: {several}; group names used twice: {doubled}"
        )


def _depths(flat: list[bool]) -> list[float]:
    """Evenly spaced over the parts that see an image."""
    last = max(1, flat.count(False) - 1)
    return [1.0 if is_flat else place / last for place, is_flat in enumerate(flat)]


def _layer_depths(body: nn.Module, parts: Sequence[Sequence[str]], seen: Trace) -> list[float]:
    """Place of each layer among all layers that see an image, those without parameters too.

    So VGG16's 44 feature layers, activations and pooling among them, are 44 places, as
    `np.linspace(low, high, len(model.features))` would have it. Layers beside the model's own parts
    with parameters (the pooling before a classifier) do not count.
    """
    tops = tuple(f"{name}." for name in children(body, ""))
    layers = [
        name
        for name in seen.order
        if f"{name}.".startswith(tops)
        and not any(True for _ in body.get_submodule(name).children())
        and len(seen.outputs.get(name, ())) != 2
    ]
    starts = [seen.first_run(name) for name in layers]
    last = max(1, len(layers) - 1)
    depths = []
    for modules in parts:
        is_flat = len(seen.outputs.get(modules[-1], ())) == 2
        begin = seen.first_run(modules[0])
        before = sum(start < begin for start in starts)
        depths.append(1.0 if is_flat else min(1.0, before / last))
    return depths


def _parameters(body: nn.Module, modules: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"{module}.{name}"
        for module in modules
        for name, _ in body.get_submodule(module).named_parameters()
    )


def _beside(groups: Sequence[Sequence[str]], seen: Trace) -> list[list[str]]:
    """For each group the layers outside all units that run after it begins, before the next."""
    starts = [seen.first_run(modules[0]) for modules in groups]
    beside: list[list[str]] = [[] for _ in groups]
    units = set(chain.from_iterable(groups))
    holders = {name for layer in seen.order for name in with_holders(layer)[1:]}
    for place, layer in enumerate(seen.order):
        if layer and layer not in holders and units.isdisjoint(with_holders(layer)):
            beside[max(0, sum(start <= place for start in starts) - 1)].append(layer)
    return beside


def _name(body: nn.Module, modules: Sequence[str]) -> str:
    """The module's own name, or first-last; norms that joined are not named.

    What a model calls its head (its last norm, in timm) is "body.head": "head" is thaw's.
    """
    matrices = [
        module
        for module in modules
        if any(weight.ndim > 1 for weight in body.get_submodule(module).parameters())
    ] or modules
    first, last = matrices[0], matrices[-1]
    name = first if first == last else f"{first}-{last.rpartition('.')[2]}"
    return f"body.{name}" if f"{name}.".startswith(f"{HEAD}.") else name
