"""Bodies without weights: built anew for a saved model, or without values, to look at shapes."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from thaw.errors import ConfigError

BUILDERS = {  # imported when used: timm is an extra
    "torchvision": "thaw.backbones.torchvision_backbone.torchvision_backbone",
    "timm": "thaw.backbones.timm_backbone.timm_backbone",
    "tiny": "thaw.backbones.tiny.tiny_backbone",
    "cnn": "thaw.backbones.cnn.cnn_backbone",
}


def rebuild(builder: str, name: str, image_size: int) -> nn.Module:
    """Builds the body of a `Backbone` again, with random weights and without a network.

    Names and shapes are the same. torch's random numbers go on as if nothing had been built.
    """
    if builder not in BUILDERS:
        raise not_ours("body", builder)
    module, _, function = BUILDERS[builder].rpartition(".")
    build = getattr(importlib.import_module(module), function)
    named = {"name": name.removeprefix("timm/")} if builder in ("torchvision", "timm") else {}
    with torch.random.fork_rng(devices=[]):
        return build(**named, weights=None, image_size=image_size).body


def not_ours(part: str, builder: str) -> ConfigError:
    """The error for a part of a model whose builder only the user has."""
    return ConfigError(
        f"thaw.load: the {part} was built by {builder}, which is not thaw's, and a model folder "
        f"runs no code. Build the module yourself: thaw.load(path, {part}=MODULE)"
    )


@contextmanager
def without_values() -> Iterator[None]:
    """Models that are built inside have values on the meta device; yet constructors can compute."""

    def parameter(_module: nn.Module, _name: str, value: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(value.to("meta"), value.requires_grad)

    def buffer(_module: nn.Module, _name: str, value: Tensor | None) -> Tensor | None:
        return None if value is None else value.to("meta")

    torch_hooks: Any = nn.modules.module
    with (
        torch_hooks.register_module_parameter_registration_hook(parameter),
        torch_hooks.register_module_buffer_registration_hook(buffer),
    ):
        yield
