"""Splits a body into ordered, named layer groups.

Nothing here knows a model by name: the order of execution and the size of outputs (tracing.py) tell
what is a stage, the module tree tells what belongs together.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from torch import nn

from thaw.errors import ConfigError
from thaw.tracing import Trace

HEAD = "head"  # name of the last group of every model
Granularity = Literal["stage", "module", "block", "layer"]

MIN_UNITS = 5  # a body is taken apart until it has at least this many units (ResNet: 6)
MIN_STAGES = 3  # fewer resolutions than this (ViT has one): every unit is a group of its own


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
            `MIN_STAGES`, as in transformers, every block: layer-wise decay is used so on them,
            BEiT, arXiv:2106.08254, section 3). "module": the model's own parts (ResNet: conv1, bn1,
            layer1 to layer4). "block": residual, dense or transformer blocks. "layer": single
            layers; an attention or a block with parameters of its own counts as one.

    Parameters that stand beside all parts (class token, position embedding) belong to the stem;
    layers without parameters that do (dropout) to the group that runs before them. With "stage" and
    "block" norms that stand alone join the part before them: a rate of its own would mean nothing.

    Raises:
        ConfigError: an unknown granularity.
    """
    if granularity not in get_args(Granularity):
        allowed = ", ".join(get_args(Granularity))
        raise ConfigError(f"backbone.granularity={granularity}: allowed are {allowed}")
    if granularity == "module":
        parts = [[name] for name in sorted(_children(body, ""), key=seen.first_run)]
    elif granularity == "layer":
        parts = [[name] for name in _descend(body, seen, into_blocks=True)]
    elif granularity == "block":
        parts = _merge_norms(body, _descend(body, seen, into_blocks=False))
    else:
        parts = _stages(_merge_norms(body, _take_apart(body, seen)), seen)
    if not parts:
        raise ValueError("the body has no parameters to make layer groups of")
    owned = [_parameters(body, modules) for modules in parts]
    taken = {name for names in owned for name in names}
    owned[0] = tuple(name for name, _ in body.named_parameters() if name not in taken) + owned[0]
    flat = [len(seen.outputs.get(modules[-1], ())) == 2 for modules in parts]
    depths = _layer_depths(body, parts, seen) if granularity == "layer" else _depths(flat)
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


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _children(body: nn.Module, name: str) -> list[str]:
    """Names of the parts of a module that have parameters."""
    prefix = f"{name}." if name else ""
    module = body.get_submodule(name)
    return [prefix + child for child, part in module.named_children() if _size(part)]


def _take_apart(body: nn.Module, seen: Trace) -> list[str]:
    """Names of modules that together hold (nearly) all parameters, in order of execution.

    The largest is taken apart first, until there are `MIN_UNITS`.
    """
    units = _children(body, "")
    while len(units) < MIN_UNITS:
        divisible = [name for name in units if _children(body, name)]
        if not divisible:
            break
        largest = max(divisible, key=lambda name: _size(body.get_submodule(name)))
        place = units.index(largest)
        units[place : place + 1] = _children(body, largest)
    return sorted(units, key=seen.first_run)


def _descend(body: nn.Module, seen: Trace, *, into_blocks: bool) -> list[str]:
    """The units taken apart further, in order of execution: into blocks, or into single layers.

    Never below a module with parameters of its own, which would then be in no part. A container is
    a block when it holds nothing but single layers (convolution, norm, activation).
    """
    found: list[str] = []
    open_units = _take_apart(body, seen)
    while open_units:
        name = open_units.pop()
        module = body.get_submodule(name)
        children = _children(body, name)
        is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and any(
            True for child in module.children() for _ in child.children()
        )
        own = any(True for _ in module.parameters(recurse=False))
        if children and not own and (into_blocks or is_container):
            open_units += children
        else:
            found.append(name)
    return sorted(found, key=seen.first_run)


def _stages(units: list[list[str]], seen: Trace) -> list[list[str]]:
    stages: list[list[str]] = []
    resolutions: list[int | None] = []
    for unit in units:
        resolution = seen.resolution(unit[0])
        if stages and resolution is not None and resolution == resolutions[-1]:
            stages[-1] += unit
        else:
            stages.append(list(unit))
            resolutions.append(resolution)
    return stages if len(stages) >= MIN_STAGES else units


def _merge_norms(body: nn.Module, units: list[str]) -> list[list[str]]:
    merged: list[list[str]] = []
    for unit in units:
        weights = body.get_submodule(unit).parameters()
        if merged and all(
            weight.ndim <= 1 or weight.numel() == max(weight.shape) for weight in weights
        ):
            merged[-1].append(unit)
        else:
            merged.append([unit])
    return merged


def _depths(flat: list[bool]) -> list[float]:
    """Evenly spaced over the parts that see an image."""
    last = max(1, flat.count(False) - 1)
    return [1.0 if is_flat else place / last for place, is_flat in enumerate(flat)]


def _layer_depths(body: nn.Module, parts: list[list[str]], seen: Trace) -> list[float]:
    """Place of each layer among all layers that see an image, those without parameters too.

    So VGG16's 44 feature layers, activations and pooling among them, are 44 places, as
    `np.linspace(low, high, len(model.features))` would have it. Layers beside the model's own parts
    with parameters (the pooling before a classifier) do not count.
    """
    tops = tuple(f"{name}." for name in _children(body, ""))
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
        before = sum(start < seen.first_run(modules[0]) for start in starts)
        depths.append(1.0 if is_flat else min(1.0, before / last))
    return depths


def _parameters(body: nn.Module, modules: list[str]) -> tuple[str, ...]:
    return tuple(
        f"{module}.{name}"
        for module in modules
        for name, _ in body.get_submodule(module).named_parameters()
    )


def _beside(groups: list[list[str]], seen: Trace) -> list[list[str]]:
    """For each group the layers outside all units that run after it begins, before the next."""
    starts = [seen.first_run(modules[0]) for modules in groups]
    beside: list[list[str]] = [[] for _ in groups]
    for place, layer in enumerate(seen.order):
        inside = any(f"{layer}.".startswith(f"{unit}.") for unit in chain.from_iterable(groups))
        holds_others = any(name.startswith(f"{layer}.") for name in seen.order) or not layer
        if not inside and not holds_others:
            beside[max(0, sum(start <= place for start in starts) - 1)].append(layer)
    return beside


def _name(body: nn.Module, modules: list[str]) -> str:
    """The module's own name, or first-last; norms that joined are not named."""
    matrices = [
        module
        for module in modules
        if any(weight.ndim > 1 for weight in body.get_submodule(module).parameters())
    ] or modules
    first, last = matrices[0], matrices[-1]
    return first if first == last else f"{first}-{last.rpartition('.')[2]}"
