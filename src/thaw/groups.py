"""Splits any image classifier into its last layer and ordered, named layer groups.

Nothing here knows a model by name. One forward pass without data (on the meta device) tells the
order in which modules run and the size of their outputs; the module tree tells what belongs
together.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call

MIN_UNITS = 5  # a body is taken apart until it has at least this many units (ResNet: 6)
MIN_STAGES = 3  # fewer resolutions than this (ViT has one): every unit is a group of its own


@dataclass(frozen=True)
class LayerGroup:
    """A part of the body that is frozen, unfrozen and given its rate as one.

    Attributes:
        name: as printed, logged and used in the configuration.
        parameters: their names in the body.
        modules: names of the body's modules it is made of; everything below them belongs to it.
    """

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


@dataclass
class Trace:
    """What one forward pass showed: modules in the order they start, and their last output."""

    order: list[str] = field(default_factory=list)
    outputs: dict[str, torch.Size] = field(default_factory=dict)

    def resolution(self, module: str) -> int | None:
        """Height of the module's output in pixels; None where it is not an image any more."""
        shape = self.outputs.get(module)
        if shape is None or len(shape) != 4:
            return None
        # square input: (N, C, H, W) has equal last two, else it is (N, H, W, C) as in Swin
        return shape[3] if shape[2] == shape[3] else shape[2]


def trace(model: nn.Module, size: int) -> Trace:
    """Runs `model` once in eval mode on two images of `size` pixels, without data: shapes only.

    Raises:
        RuntimeError, ValueError, AssertionError: whatever the model says of a size it cannot take.
    """
    seen = Trace()
    hooks = []
    for name, module in model.named_modules():

        def before(_module: nn.Module, _inputs: object, name: str = name) -> None:
            if name not in seen.order:
                seen.order.append(name)

        def after(_module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor):
                seen.outputs[name] = output.shape

        hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        run_without_data(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def run_without_data(model: nn.Module, size: int) -> Tensor:
    """The output, without values, of `model` in eval mode for two images of `size` pixels.

    Weights and images stand in as tensors of the meta device, so this costs neither time nor
    memory whatever the model's size.
    """
    was_training = model.training
    weights = {
        name: tensor.to("meta")
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
    }
    try:
        model.eval()
        with torch.no_grad():
            images = torch.zeros(2, 3, size, size, device="meta")  # (N, 3, H, W)
            return functional_call(model, weights, (images,))
    finally:
        model.train(was_training)


def last_layer(model: nn.Module, seen: Trace) -> str:
    """Name of the layer that makes the class scores: the last linear or convolution to run."""
    for name in reversed(seen.order):
        if isinstance(model.get_submodule(name), nn.Linear | nn.Conv2d):
            return name
    raise ValueError(f"{type(model).__name__} has no linear or convolution layer to replace")


def unused(model: nn.Module, seen: Trace) -> list[str]:
    """Children with parameters that never run in eval mode: the auxiliary heads."""
    return [
        name
        for name, child in model.named_children()
        if _size(child) and _first_run(name, seen) == len(seen.order)
    ]


def split(body: nn.Module, seen: Trace) -> tuple[LayerGroup, ...]:
    """The body's layer groups, stem first.

    1. Take the module tree apart, the largest part first, down to at least `MIN_UNITS` units.
    2. A unit of norms alone joins the unit before it (a rate of its own would mean nothing).
    3. Units with outputs of one resolution are one stage; where there are fewer than `MIN_STAGES`
       (transformers), each unit stays a group, as layer-wise decay is used on them (BEiT,
       arXiv:2106.08254, section 3).
    Parameters that stand beside units (class token, position embedding) belong to the stem; layers
    without parameters that do (dropout) to the group that runs before them.
    """
    units = _merge_norms(body, _take_apart(body, seen), seen)
    if not units:
        raise ValueError("the body has no parameters to make layer groups of")
    stages: list[list[str]] = []
    resolutions: list[int | None] = []
    for unit in units:
        resolution = seen.resolution(unit[0])
        if stages and resolution is not None and resolution == resolutions[-1]:
            stages[-1] += unit
        else:
            stages.append(list(unit))
            resolutions.append(resolution)
    chosen = stages if len(stages) >= MIN_STAGES else units
    owned = [_parameters(body, modules) for modules in chosen]
    taken = {name for names in owned for name in names}
    loose = tuple(name for name, _ in body.named_parameters() if name not in taken)
    owned[0] = loose + owned[0]
    groups = tuple(
        LayerGroup(_name(body, modules), parameters, (*modules, *beside))
        for modules, parameters, beside in zip(chosen, owned, _beside(chosen, seen), strict=True)
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


def _first_run(module: str, seen: Trace) -> int:
    """Place of the first module at or below `module` in the order of execution."""
    prefix = module + "."
    for place, name in enumerate(seen.order):
        if name == module or name.startswith(prefix):
            return place
    return len(seen.order)


def _take_apart(body: nn.Module, seen: Trace) -> list[str]:
    """Names of modules that together hold (nearly) all parameters, in order of execution."""

    def children(name: str) -> list[str]:
        prefix = f"{name}." if name else ""
        module = body.get_submodule(name)
        return [prefix + child for child, part in module.named_children() if _size(part)]

    units = children("")
    while len(units) < MIN_UNITS:
        divisible = [name for name in units if children(name)]
        if not divisible:
            break
        largest = max(divisible, key=lambda name: _size(body.get_submodule(name)))
        place = units.index(largest)
        units[place : place + 1] = children(largest)
    return sorted(units, key=lambda name: _first_run(name, seen))


def _merge_norms(body: nn.Module, units: list[str], seen: Trace) -> list[list[str]]:
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


def _parameters(body: nn.Module, modules: list[str]) -> tuple[str, ...]:
    return tuple(
        f"{module}.{name}"
        for module in modules
        for name, _ in body.get_submodule(module).named_parameters()
    )


def _beside(groups: list[list[str]], seen: Trace) -> list[list[str]]:
    """For each group the layers outside all units that run after it begins, before the next."""
    starts = [_first_run(modules[0], seen) for modules in groups]
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
