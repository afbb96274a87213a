"""A body without weights, as it was built for training: what a saved model needs to be loaded."""

import importlib

import torch
from torch import nn

from thaw.errors import ConfigError

BUILDERS = {  # imported when used: timm is an extra
    "torchvision": "thaw.backbones.backbone.torchvision_backbone",
    "timm": "thaw.backbones.timm_backbone.timm_backbone",
    "tiny": "thaw.backbones.own_backbones.tiny_backbone",
    "cnn": "thaw.backbones.own_backbones.cnn_backbone",
}


def rebuild(builder: str, name: str, image_size: int) -> nn.Module:
    """Builds the body of a `Backbone` again, with random weights and without a network.

    Its modules and its state dict have the names and shapes of the first one, so that
    `load_state_dict` gives the same function of the image. The input spec belongs to the weights
    and not to the body, so whoever saves a model must save it as well. torch's random numbers go on
    as if nothing had been built.

    Args:
        builder: `Backbone.builder`.
        name: `Backbone.name`.
        image_size: `Backbone.input_spec.size`, in pixels.

    Raises:
        ConfigError: The builder or the name is unknown, or timm is needed and not installed.
    """
    if builder not in BUILDERS:
        raise ConfigError(f"builder {builder}: no such builder; known are {', '.join(BUILDERS)}")
    module, _, function = BUILDERS[builder].rpartition(".")
    build = getattr(importlib.import_module(module), function)
    named = {"name": name.removeprefix("timm/")} if builder in ("torchvision", "timm") else {}
    with torch.random.fork_rng(devices=[]):
        return build(**named, weights=None, image_size=image_size).body
