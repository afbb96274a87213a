"""A residual network of 0.4 million parameters for images of 64 pixels; it runs anywhere, offline.

Its weights were trained on generated shapes and textures by benchmarks/tiny_weights/make.py.
"""

from collections import OrderedDict
from pathlib import Path

from torch import nn
from torchvision.models.resnet import BasicBlock

from thaw.backbones.backbone import Backbone, InputSpec, assemble
from thaw.backbones.groups import Granularity
from thaw.backbones.pretrained import Source, own_source

WEIGHTS = Path(__file__).parent / "weights" / "tiny.safetensors"  # half precision

# What the weights were trained on. Random crops in training show the objects larger, so without the
# central crop (72 -> 64 pixels) the test accuracy of the demo falls by 4 points.
INPUT = InputSpec(64, 72, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def block(channels: int, width: int, stride: int) -> BasicBlock:
    """Two 3x3 convolutions with a shortcut: (N, C, H, W) -> (N, width, H / stride, W / stride)."""
    shortcut = None
    if stride > 1:
        convolution = nn.Conv2d(channels, width, 1, stride, bias=False)
        shortcut = nn.Sequential(convolution, nn.BatchNorm2d(width))
    return BasicBlock(channels, width, stride, shortcut)


class TinyResNet(nn.Sequential):
    """(N, 3, H, W) -> (N, num_classes); the features before `fc` have 128 channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(OrderedDict(
            conv1=nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), bn1=nn.BatchNorm2d(16),
            relu=nn.ReLU(inplace=True),  # N C H/2 W/2
            layer1=block(16, 16, 1), layer2=block(16, 40, 2), layer3=block(40, 80, 2),
            layer4=block(80, 128, 2),  # N D H/16 W/16
            avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(128, num_classes),
        ))  # fmt: skip
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def tiny_backbone(
    weights: str | None = "DEFAULT", image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:  # fmt: skip
    """Builds `TinyResNet` as a backbone; the arguments are those of `torchvision_backbone`."""
    label = "DEFAULT, trained on drawn shapes only; for photos: backbone=resnet18"
    own = Source(label, "weights: MIT (thaw, generated pictures)", lambda: WEIGHTS)
    source, spec = own_source(weights, ["DEFAULT"]) or own, INPUT.at(image_size)
    return assemble("tiny", "tiny", lambda size: TinyResNet(1), spec, source, granularity)
