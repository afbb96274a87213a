"""A body without weights, as it was built for training: what a saved model needs to be loaded."""

from collections.abc import Callable

import torch
from torch import nn

from thaw.backbones.backbone import Backbone, Builder, torchvision_backbone
from thaw.backbones.own_backbones import cnn_backbone, tiny_backbone
from thaw.backbones.timm_backbone import timm_backbone
from thaw.errors import ConfigError


def rebuild(builder: Builder, name: str, image_size: int) -> nn.Module:
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
    builders: dict[str, Callable[[], Backbone]] = {
        "torchvision": lambda: torchvision_backbone(name, None, image_size),
        "timm": lambda: timm_backbone(name.removeprefix("timm/"), None, image_size),
        "tiny": lambda: tiny_backbone(None, image_size),
        "cnn": lambda: cnn_backbone(None, image_size),
    }
    if builder not in builders:
        raise ConfigError(f"builder {builder}: no such builder; known are {', '.join(builders)}")
    with torch.random.fork_rng(devices=[]):
        return builders[builder]().body
