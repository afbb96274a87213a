"""What one forward pass without data shows of a classifier: the order of its modules, its shapes.

Nothing here knows a model by name.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call


@dataclass
class Trace:
    """What one forward pass showed: modules in the order they start, and their last output."""

    order: list[str] = field(default_factory=list)
    outputs: dict[str, torch.Size] = field(default_factory=dict)

    def first_run(self, module: str) -> int:
        """Place of the first module at or below `module` in the order of execution."""
        prefix = module + "."
        for place, name in enumerate(self.order):
            if name == module or name.startswith(prefix):
                return place
        return len(self.order)

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
        if any(True for _ in child.parameters()) and seen.first_run(name) == len(seen.order)
    ]
