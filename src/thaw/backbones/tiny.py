"""A residual network of 0.4 million parameters for images of 64 pixels; it runs anywhere, offline.

Its weights were trained on generated shapes and textures by benchmarks/tiny_weights/make.py.
"""

from pathlib import Path

from torch import Tensor, nn

from thaw.backbones.backbone import Backbone, InputSpec, assemble
from thaw.backbones.groups import Granularity
from thaw.backbones.pretrained import Source, own_source

WEIGHTS = Path(__file__).parent / "weights" / "tiny.safetensors"  # half precision

# What the weights were trained on. Random crops in training show the objects larger, so without the
# central crop (72 -> 64 pixels) the test accuracy of the demo falls by 4 points.
INPUT = InputSpec(64, 72, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut: (N, C, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Identity()
        if stride > 1:
            shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class TinyResNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); the features before `fc` have 128 channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = Residual(16, 16, 1)
        self.layer2 = Residual(16, 40, 2)
        self.layer3 = Residual(40, 80, 2)
        self.layer4 = Residual(80, 128, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # N C H/2 W/2
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # N D H/16 W/16
        return self.fc(self.avgpool(x).flatten(1))  # N K


def tiny_backbone(
    weights: str | None = "DEFAULT", image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:  # fmt: skip
    """Builds `TinyResNet` as a backbone; the arguments are those of `torchvision_backbone`."""
    own = Source("DEFAULT", "weights: MIT (thaw, generated pictures)", lambda: WEIGHTS)
    source, spec = own_source(weights, ["DEFAULT"]) or own, INPUT.at(image_size)
    return assemble("tiny", "tiny", lambda size: TinyResNet(1), spec, source, granularity)
