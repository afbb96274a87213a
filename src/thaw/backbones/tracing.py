"""What one forward pass without data shows of any model: the order of its modules, and shapes."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

Make = Callable[[int], nn.Module]  # side of the input in pixels -> the model
SIZE_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError)  # how models refuse a size


@dataclass
class Trace:
    order: list[str] = field(default_factory=list)  # modules, as each starts for the first time
    # the shape of each module's latest output, where it is a single tensor
    outputs: dict[str, torch.Size] = field(default_factory=dict)

    def first_run(self, module: str) -> int:
        """Returns the place in `order` of the first module at or below `module`."""
        places = (i for i, name in enumerate(self.order) if f"{name}.".startswith(f"{module}."))
        return next(places, len(self.order))

    def is_flat(self, module: str) -> bool:
        """Returns whether the output is features (N, D)."""
        return len(self.outputs.get(module, ())) == 2

    def resolution(self, module: str) -> int | None:
        """Returns the height of a module's output in pixels; None if it is not an image."""
        shape = self.outputs.get(module, ())
        if len(shape) != 4:
            return None
        # The input is square, so (N, C, H, W) has equal last two; else it is (N, H, W, C), as Swin.
        return shape[3] if shape[2] == shape[3] else shape[2]


def trace(model: nn.Module, size: int) -> Trace:
    """Runs a model once in eval mode, with shapes only; one of `SIZE_ERRORS`: not at this size."""
    seen = Trace()
    names = {module: name for name, module in model.named_modules()}

    def before(module: nn.Module, _inputs: object) -> None:
        if names[module] not in seen.order:
            seen.order.append(names[module])

    def after(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            seen.outputs[names[module]] = output.shape

    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_pre_hook(before))
            hooks.enter_context(module.register_forward_hook(after))
        run_without_data(model, size)
    return seen


def run_without_data(model: nn.Module, size: int) -> Tensor:
    """Returns the output of a model in eval mode for two images, all on the meta device."""
    was_training = model.training
    named = [*model.named_parameters(), *model.named_buffers()]
    weights = {name: tensor.to("meta") for name, tensor in named}
    try:
        model.eval()
        with torch.no_grad():
            images = torch.zeros(2, 3, size, size, device="meta")  # N 3 H W
            return functional_call(model, weights, (images,))
    finally:
        model.train(was_training)


def last_layer(model: nn.Module, seen: Trace) -> str:
    """Returns the name of the layer that makes the class scores: the last linear or convolution."""
    layers = {key for key, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)}
    return [name for name in seen.order if name in layers][-1]
