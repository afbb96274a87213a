"""What one forward pass without data shows of a model: the order of its modules, and shapes.

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
    """One forward pass.

    Attributes:
        order: Names of the modules, in the order in which each first starts.
        outputs: Shape of each module's last output, for outputs that are one tensor.
    """

    order: list[str] = field(default_factory=list)
    outputs: dict[str, torch.Size] = field(default_factory=dict)
    _first: dict[str, int] = field(default_factory=dict)

    def start(self, module: str) -> None:
        """Notes that a module starts; only its first start counts."""
        if module in self.order:
            return
        for name in with_parents(module):
            self._first.setdefault(name, len(self.order))
        self.order.append(module)

    def first_run(self, module: str) -> int:
        """Returns the place in `order` of the first module at or below `module`."""
        return self._first.get(module, len(self.order))

    def resolution(self, module: str) -> int | None:
        """Returns the height of a module's output in pixels; None if it is not an image."""
        shape = self.outputs.get(module)
        if shape is None or len(shape) != 4:
            return None
        # The input is square, so (N, C, H, W) has equal last two; else it is (N, H, W, C), as Swin.
        return shape[3] if shape[2] == shape[3] else shape[2]


def with_parents(module: str) -> list[str]:
    """Returns the names of a module and of all that contain it: "a.b.c" gives a.b.c, a.b, a."""
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def trace(model: nn.Module, size: int) -> Trace:
    """Runs a model once in eval mode on two images of `size` pixels, with shapes only.

    Raises:
        RuntimeError, ValueError, AssertionError, IndexError: The model cannot take the size.
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


def run_without_data(model: nn.Module, size: int) -> Tensor:
    """Returns the output, without values, of a model in eval mode for two images.

    Weights and images are tensors of the meta device, so this needs neither time nor memory,
    however large the model is.
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


@contextmanager
def without_values() -> Iterator[None]:
    """Gives the models that are built inside it parameters and buffers on the meta device.

    Unlike with `torch.device("meta")`, constructors can still compute (RegNet computes its widths).
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
    """Returns the common side in pixels, up to 1024, nearest to `size` that the model can take."""
    common = {patch * number for patch in (14, 16, 32) for number in range(1, 1024 // patch + 1)}
    for other in sorted(common, key=lambda other: abs(other - size)):
        try:
            with without_values():
                model = make(other)
            run_without_data(model, other)
        except SIZE_ERRORS:
            continue
        return other
    return None


def last_layer(model: nn.Module, seen: Trace) -> str:
    """Returns the name of the layer that makes the class scores: the last linear or convolution."""
    for name in reversed(seen.order):
        if isinstance(model.get_submodule(name), nn.Linear | nn.Conv2d):
            return name
    raise ValueError(f"{type(model).__name__} has no linear or convolution layer to replace")


def described(model: nn.Module, name: str) -> str:
    """Returns the name and the kind of a layer, like "classifier.6 (Linear)"."""
    return f"{name} ({type(model.get_submodule(name)).__name__})"


def unused(model: nn.Module, seen: Trace) -> list[str]:
    """Returns the children with parameters that never run in eval mode: the auxiliary heads."""
    return [
        name
        for name, child in model.named_children()
        if any(True for _ in child.parameters()) and seen.first_run(name) == len(seen.order)
    ]
