"""What one forward pass without data shows of a classifier: the order of its modules, its shapes.

Nothing here knows a model by name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

Make = Callable[[int], nn.Module]  # side of the input in pixels -> the model
SIZE_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError)  # how models refuse a size


@dataclass
class Trace:
    """What one forward pass showed: modules in the order they start, and their last output."""

    order: list[str] = field(default_factory=list)
    outputs: dict[str, torch.Size] = field(default_factory=dict)
    _started: set[str] = field(default_factory=set)
    _first: dict[str, int] = field(default_factory=dict)  # place of a module or of a part of it

    def start(self, module: str) -> None:
        """Notes that a module runs; the first time counts."""
        if module in self._started:
            return
        for name in with_holders(module):
            self._first.setdefault(name, len(self.order))
        self._started.add(module)
        self.order.append(module)

    def first_run(self, module: str) -> int:
        """Place of the first module at or below `module` in the order of execution."""
        return self._first.get(module, len(self.order))

    def resolution(self, module: str) -> int | None:
        """Height of the module's output in pixels; None where it is not an image any more."""
        shape = self.outputs.get(module)
        if shape is None or len(shape) != 4:
            return None
        # square input: (N, C, H, W) has equal last two, else it is (N, H, W, C) as in Swin
        return shape[3] if shape[2] == shape[3] else shape[2]


def with_holders(module: str) -> list[str]:
    """ "a.b.c" -> a.b.c, a.b, a: the module's name and those of all that hold it."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def places(shape: torch.Size) -> tuple[int, ...]:
    """Dimensions of an output that are pixels or tokens; the input was square.

    (N, C, H, W) has equal last two, else it is (N, H, W, C) as in Swin. Where all three are equal
    that cannot be told; it is taken for (N, C, H, W).
    """
    if len(shape) == 4:
        return (2, 3) if shape[2] == shape[3] else (1, 2)
    return (1,) if len(shape) == 3 else ()


def trace(model: nn.Module, size: int) -> Trace:
    """Runs `model` once in eval mode on two images of `size` pixels, without data: shapes only.

    Raises:
        RuntimeError, ValueError, AssertionError: whatever the model says of a size it cannot take.
    """
    seen = Trace()
    hooks = []
    for name, module in model.named_modules():

        def before(_module: nn.Module, _inputs: object, name: str = name) -> None:
            seen.start(name)

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


@contextmanager
def without_values() -> Iterator[None]:
    """Models made in here have shapes only: their parameters and buffers are on the meta device.

    Unlike with `torch.device("meta")` constructors can compute (RegNet its widths).
    """
    module_class: Any = nn.Module
    plain = module_class.register_parameter, module_class.register_buffer

    def parameter(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None:
            param = nn.Parameter(param.to("meta"), param.requires_grad)
        plain[0](module, name, param)

    def buffer(
        module: nn.Module, name: str, tensor: Tensor | None, persistent: bool = True
    ) -> None:
        plain[1](module, name, None if tensor is None else tensor.to("meta"), persistent)

    module_class.register_parameter, module_class.register_buffer = parameter, buffer
    try:
        yield
    finally:
        module_class.register_parameter, module_class.register_buffer = plain


def nearest_size(make: Make, size: int) -> int | None:
    """The side in pixels nearest to `size`, of common ones up to 1024, that the model can take."""
    common = {patch * number for patch in (14, 16, 32) for number in range(1, 1024 // patch + 1)}
    for other in sorted(common, key=lambda other: abs(other - size)):
        try:
            with without_values():
                model = make(other)
            trace(model, other)
        except SIZE_ERRORS:
            continue
        return other
    return None


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


def described(model: nn.Module, name: str) -> str:
    """Name and kind of a layer, as "classifier.6 (Linear)"."""
    return f"{name} ({type(model.get_submodule(name)).__name__})"


def unused(model: nn.Module, seen: Trace) -> list[str]:
    """Children with parameters that never run in eval mode: the auxiliary heads."""
    return [
        name
        for name, child in model.named_children()
        if any(True for _ in child.parameters()) and seen.first_run(name) == len(seen.order)
    ]
