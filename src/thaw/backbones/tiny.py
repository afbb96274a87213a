"""A residual net of 0.4 million parameters for pictures of 64 pixels: runs anywhere, offline.

Its weights, in `WEIGHTS`, were trained by `python train.py experiment=demo_pretrain` on drawn
shapes and textures. Stages carry the names of torchvision's resnets.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights" / "tiny.safetensors"  # half precision


@dataclass(frozen=True)
class TinyInput:
    """What the weights were trained on."""

    size: int = 64  # pixels, height and width
    resize: int = 72  # pixels of the short side before the central crop: random crops in training
    # show flowers larger, and without this the test accuracy of the demo falls by 4 points
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)


INPUT = TinyInput()


class Residual(nn.Module):
    """Two 3x3 convolutions with a bypass: (N, C, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Identity()
            if stride == 1 and channels == width
            else nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class TinyResNet(nn.Module):
    """(N, 3, H, W) -> (N, num_classes); the features before `fc` have widths[-1] channels.

    num_classes:  outputs of the last layer
    widths:       channels of the four stages; each stage after the first halves H and W
    """

    def __init__(
        self, num_classes: int, widths: tuple[int, int, int, int] = (16, 40, 80, 128)
    ) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.conv1 = nn.Conv2d(3, first, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = Residual(first, first, 1)
        self.layer2 = Residual(first, second, 2)
        self.layer3 = Residual(second, third, 2)
        self.layer4 = Residual(third, fourth, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(fourth, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # N C H/2 W/2
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # N D H/16 W/16
        return self.fc(self.avgpool(x).flatten(1))  # N K
