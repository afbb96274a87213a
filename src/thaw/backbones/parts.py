"""Takes a body apart into the modules that its layer groups are made of.

Nothing here knows a model by name: containers are opened, in order of execution, down to what the
granularity asks for.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from torch import nn

from thaw.backbones.tracing import Trace
from thaw.errors import ConfigError

Granularity = Literal["stage", "module", "block", "layer"]

MIN_UNITS = 5  # a body is taken apart until it has at least this many units (ResNet: 6)
MIN_STAGES = 3  # fewer resolutions than this (ViT has one): every unit is a group of its own


def parts_of(body: nn.Module, seen: Trace, granularity: Granularity) -> list[list[str]]:
    """Names of the modules of each layer group, stem first; see `groups.split`.

    Raises:
        ConfigError: an unknown granularity.
    """
    if granularity not in get_args(Granularity):
        allowed = ", ".join(get_args(Granularity))
        raise ConfigError(f"backbone.granularity={granularity}: allowed are {allowed}")
    if granularity == "module":
        parts = [[name] for name in sorted(children(body, ""), key=seen.first_run)]
    elif granularity == "layer":
        parts = [[name] for name in _descend(body, seen, into_blocks=True)]
    elif granularity == "block":
        parts = _merge_norms(body, _descend(body, seen, into_blocks=False))
    else:
        parts = _stages(_merge_norms(body, _take_apart(body, seen)), seen)
    if not parts:
        raise ValueError("the body has no parameters to make layer groups of")
    return parts


def children(body: nn.Module, name: str) -> list[str]:
    """Names of the parts of a module that have parameters."""
    prefix = f"{name}." if name else ""
    module = body.get_submodule(name)
    return [prefix + child for child, part in module.named_children() if _size(part)]


def only_vectors(weights: Iterable[nn.Parameter]) -> bool:
    """Whether these are what a norm has: scales and shifts, no matrix and no kernel."""
    return all(weight.ndim <= 1 or weight.numel() == max(weight.shape) for weight in weights)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _take_apart(body: nn.Module, seen: Trace) -> list[str]:
    """Names of modules that together hold (nearly) all parameters, in order of execution.

    The largest is taken apart first, until there are `MIN_UNITS`.
    """
    units = children(body, "")
    while len(units) < MIN_UNITS:
        divisible = [name for name in units if children(body, name)]
        if not divisible:
            break
        largest = max(divisible, key=lambda name: _size(body.get_submodule(name)))
        place = units.index(largest)
        units[place : place + 1] = children(body, largest)
    return sorted(units, key=seen.first_run)


def _descend(body: nn.Module, seen: Trace, *, into_blocks: bool) -> list[str]:
    """The units taken apart further, in order of execution: into blocks, or into single layers.

    Never below a module with parameters of its own, which would then be in no part, nor below one
    that reads a child's parameters without calling it (timm's relative positions): when that runs
    cannot be seen. A container is a block when it holds nothing but single layers (convolution,
    norm, activation).
    """
    found: list[str] = []
    open_units = _take_apart(body, seen)
    while open_units:
        name = open_units.pop()
        module = body.get_submodule(name)
        inside = children(body, name)
        is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and any(
            True for child in module.children() for _ in child.children()
        )
        own = any(True for _ in module.parameters(recurse=False))
        all_run = all(seen.first_run(child) < len(seen.order) for child in inside)
        if inside and not own and all_run and (into_blocks or is_container):
            open_units += inside
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
        if merged and only_vectors(body.get_submodule(unit).parameters()):
            merged[-1].append(unit)
        else:
            merged.append([unit])
    return merged
