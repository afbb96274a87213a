"""Splits a body into the modules that its layer groups consist of.

Nothing here knows a model by name: containers are opened, in the order of execution, down to what
the granularity asks for.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from torch import nn

from thaw.backbones.tracing import Trace
from thaw.errors import ConfigError

Granularity = Literal["stage", "module", "block", "layer"]

MIN_UNITS = 5  # a body is opened until it has at least this many units (ResNet has 6)
MIN_STAGES = 3  # with fewer resolutions than this (ViT has one) every unit is a group of its own


def parts_of(body: nn.Module, seen: Trace, granularity: Granularity) -> list[list[str]]:
    """Returns the names of the modules of each layer group, stem first; see `groups.split`.

    Raises:
        ConfigError: The granularity is unknown.
    """
    if granularity not in get_args(Granularity):
        allowed = ", ".join(get_args(Granularity))
        raise ConfigError(f"backbone.granularity={granularity}: allowed are {allowed}")
    if granularity == "module":
        parts = [[name] for name in sorted(children(body, ""), key=seen.first_run)]
    elif granularity == "layer":
        parts = [[name] for name in _open_further(body, seen, into_blocks=True)]
    elif granularity == "block":
        parts = _merge_norms(body, _open_further(body, seen, into_blocks=False))
    else:
        parts = _stages(_merge_norms(body, _units(body, seen)), seen)
    if not parts:
        raise ValueError("the body has no parameters to make layer groups of")
    return parts


def children(body: nn.Module, name: str) -> list[str]:
    """Returns the names of a module's children that have parameters."""
    prefix = f"{name}." if name else ""
    module = body.get_submodule(name)
    return [prefix + child for child, part in module.named_children() if _size(part)]


def only_vectors(weights: Iterable[nn.Parameter]) -> bool:
    """Returns whether these are scales and shifts, as norms have them: no matrix and no kernel."""
    return all(weight.ndim <= 1 or weight.numel() == max(weight.shape) for weight in weights)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _units(body: nn.Module, seen: Trace) -> list[str]:
    """Returns modules that together hold (nearly) all parameters, in the order of execution.

    The largest is replaced by its children until there are `MIN_UNITS`.
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


def _open_further(body: nn.Module, seen: Trace, *, into_blocks: bool) -> list[str]:
    """Opens the units into blocks, or also the blocks into single layers.

    A container is a block if it contains only single layers (convolution, norm, activation). Two
    kinds of modules stay whole: those with parameters of their own, which would be in no part, and
    those that read a child's parameters without calling it (timm's relative positions), because
    then the trace does not show when that child runs.
    """
    parts: list[str] = []
    unopened = _units(body, seen)
    while unopened:
        name = unopened.pop()
        module = body.get_submodule(name)
        inside = children(body, name)
        is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) and any(
            True for child in module.children() for _ in child.children()
        )
        own = any(True for _ in module.parameters(recurse=False))
        all_run = all(seen.first_run(child) < len(seen.order) for child in inside)
        if inside and not own and all_run and (into_blocks or is_container):
            unopened += inside
        else:
            parts.append(name)
    return sorted(parts, key=seen.first_run)


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
