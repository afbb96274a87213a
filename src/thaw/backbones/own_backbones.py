"""thaw's own small networks as backbones: `tiny`, with weights, and `cnn`, without."""

from torch import nn

from thaw.backbones import cnn, tiny
from thaw.backbones.backbone import Backbone, InputSpec, assemble, own_file
from thaw.backbones.parts import Granularity
from thaw.backbones.pretrained import check_weights
from thaw.errors import ConfigError


def tiny_backbone(
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """Builds thaw's small residual network, which was trained on generated pictures.

    Args:
        weights: "DEFAULT" (shipped with thaw), the path of a file, or None for random weights.
        image_size: Side of the input in pixels. None uses the size it was trained at.
        granularity: Of the layer groups, see `groups.split`.

    Raises:
        ConfigError: The weights are none of these, or a file does not fit.
    """
    check_weights(weights, ["DEFAULT"])
    file, licence = own_file(weights)
    if weights == "DEFAULT":
        file, licence = lambda: tiny.WEIGHTS, "weights: MIT (thaw, generated pictures)"

    def make(size: int) -> nn.Module:
        return tiny.TinyResNet(num_classes=1)  # takes any size; the last layer is removed

    spec = tiny.INPUT.at(image_size)
    return assemble("tiny", "tiny", make, spec, file, licence, weights, granularity)


def cnn_backbone(
    weights: str | None = None,
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """Builds the small convolutional network of `cnn`, for finetune=from_scratch.

    Args:
        weights: The path of a file, or None for random weights. thaw ships no weights for it.
        image_size: Side of the input in pixels. None means 128.
        granularity: Of the layer groups, see `groups.split`.

    Raises:
        ConfigError: The weights are neither, a file does not fit, or the size is too small.
    """
    check_weights(weights, [])
    size = 128 if image_size is None else image_size
    if cnn.side_left(size) < 1:
        raise ConfigError(f"backbone.image_size={size}: backbone=cnn needs 22 or more pixels")
    # The usual crop, and a mean and deviation that suit any photos: no weights ask for others.
    spec = InputSpec(224, 256, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).at(size)

    def make(size: int) -> nn.Module:
        return cnn.SmallCnn(num_classes=1, size=size)  # the last layer is removed

    file, licence = own_file(weights)
    return assemble("cnn", "cnn", make, spec, file, licence, weights, granularity)
