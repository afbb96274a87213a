"""thaw's own small nets as backbones: `tiny`, with weights, and `cnn`, to train from scratch."""

from pathlib import Path

from torch import nn

from thaw.backbones import cnn, licences, tiny
from thaw.backbones.backbone import Backbone, InputSpec, assemble
from thaw.backbones.parts import Granularity
from thaw.backbones.pretrained import is_path
from thaw.errors import ConfigError


def tiny_backbone(
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """thaw's own small residual net, trained by `python train.py experiment=demo_pretrain`.

    Args:
        weights: "DEFAULT" (shipped with thaw), a path, or None for random weights.
        image_size: side of the input in pixels; None takes the size it was trained at.
        granularity: of the layer groups, see `groups.split`.
    """
    if weights is not None and weights != "DEFAULT" and not is_path(weights):
        raise ConfigError(
            f"backbone.weights={weights}: backbone=tiny has DEFAULT, a path (.pth, .safetensors) "
            "or null"
        )
    own = tiny.INPUT
    spec = InputSpec(own.size, own.resize, own.mean, own.std)
    if image_size is not None:
        spec = spec.at(image_size)
    if weights is None:
        path, licence = None, licences.RANDOM
    elif weights == "DEFAULT":
        path, licence = tiny.WEIGHTS, "weights: MIT (thaw, generated pictures)"
    else:
        path, licence = Path(weights), licences.of_file(weights)
    file = (lambda: path) if path else None

    def make(size: int) -> nn.Module:
        return tiny.TinyResNet(num_classes=1)  # of any size; the last layer is taken off

    return assemble("tiny", "tiny", make, spec, file, licence, weights or "random", granularity)


def cnn_backbone(
    weights: str | None = None,
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """The small convolutional net of `cnn`, for finetune=from_scratch.

    Args:
        weights: a path, or None for random weights; none come with it.
        image_size: side of the input in pixels; None: 128.
        granularity: of the layer groups, see `groups.split`.
    """
    if weights is not None and not is_path(weights):
        raise ConfigError(
            f"backbone.weights={weights}: backbone=cnn has a path (.pth, .safetensors) or null"
        )
    size = 128 if image_size is None else image_size
    if cnn.side_left(size) < 1:
        raise ConfigError(f"backbone.image_size={size}: backbone=cnn wants 22 or more pixels")
    # the usual crop, and means and deviations that suit any pictures: there are no weights to suit
    spec = InputSpec(224, 256, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).at(size)
    path = None if weights is None else Path(weights)
    licence = licences.RANDOM if weights is None else licences.of_file(weights)

    def make(size: int) -> nn.Module:
        return cnn.SmallCnn(num_classes=1, size=size)  # the last layer is taken off

    file = (lambda: path) if path else None
    return assemble("cnn", "cnn", make, spec, file, licence, weights or "random", granularity)
