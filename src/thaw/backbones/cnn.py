"""The small network that tutorials on cats and dogs train from scratch: a baseline, no weights."""

from collections import OrderedDict

from torch import nn

from thaw.backbones.backbone import Backbone, InputSpec, assemble
from thaw.backbones.groups import Granularity
from thaw.backbones.pretrained import own_source


class SmallCnn(nn.Sequential):
    """(N, 3, size, size) -> (N, num_classes): three convolutions, two linear layers."""

    def __init__(self, num_classes: int, size: int) -> None:
        if size < 22:
            raise ValueError("it needs 22 pixels or more")
        side = (size - 14) // 8  # each 3x3 convolution without padding takes 2, pooling half
        super().__init__(OrderedDict(
            conv1=nn.Conv2d(3, 32, 3), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 3), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(64, 128, 3), relu3=nn.ReLU(), pool3=nn.MaxPool2d(2),
            flatten=nn.Flatten(), fc1=nn.Linear(128 * side**2, 128), relu4=nn.ReLU(),
            fc2=nn.Linear(128, num_classes),
        ))  # fmt: skip


def cnn_backbone(
    weights: str | None = None, image_size: int | None = None, granularity: Granularity = "stage"
) -> Backbone:
    """Builds `SmallCnn` as a backbone, as `torchvision_backbone` does; without a size for 128."""
    # The usual crop, and a mean and deviation that suit any photos: no weights ask for others.
    spec = InputSpec(224, 256, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    spec = spec.at(128 if image_size is None else image_size)
    source = own_source(weights, [])
    assert source is not None  # no names are allowed
    return assemble("cnn", "cnn", lambda size: SmallCnn(1, size), spec, source, granularity)
