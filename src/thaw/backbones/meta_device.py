"""Models without values, to look at shapes before anything is fetched or allocated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def without_values() -> Iterator[None]:
    """Gives the models that are built inside it parameters and buffers on the meta device.

    Unlike with `torch.device("meta")`, constructors can still compute, as RegNet's do.
    """

    def parameter(_module: nn.Module, _name: str, value: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(value.to("meta"), value.requires_grad)

    def buffer(_module: nn.Module, _name: str, value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to("meta")

    torch_hooks: Any = nn.modules.module
    hooks = (
        torch_hooks.register_module_parameter_registration_hook(parameter),
        torch_hooks.register_module_buffer_registration_hook(buffer),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
