"""The order in which a network reads its parameters, by operator and not by module."""

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Reads(TorchDispatchMode):
    """Names of parameters in the order in which an operator first takes them."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.names = {id(weight): name for name, weight in module.named_parameters()}
        self.order: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs)):
            if name := self.names.pop(id(value), None):
                self.order.append(name)
        return func(*args, **(kwargs or {}))


def reads(module: nn.Module, size: int) -> dict[str, int]:
    """Place of each parameter that a pass in eval mode reads; all on the meta device."""
    module.eval()
    with torch.no_grad(), Reads(module) as seen:
        module(torch.zeros(2, 3, size, size, device="meta"))
    return {name: place for place, name in enumerate(seen.order)}
