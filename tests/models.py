"""A small network with everything that can go wrong when frozen: BatchNorm, dropout, twins."""

import torch
from torch import nn
from torch.nn import functional

from thaw.backbones import groups, tracing
from thaw.backbones.backbone import Backbone, InputSpec
from thaw.classifier import Classifier
from thaw.head import linear

SPEC = InputSpec(16, 18, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Net(nn.Module):
    """(N, 3, 16, 16) -> (N, 4): stages with norms, dropout inside one and before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, 2, 1)
        self.norm = nn.BatchNorm2d(6)
        self.low = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.middle = nn.Sequential(
            nn.Conv2d(6, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)
        )
        self.deep = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        x = self.deep(self.middle(self.low(x)))
        return self.fc(self.dropout(self.pool(x).flatten(1)))


def small_backbone(seed: int = 0) -> Backbone:
    """`Net` without its last layer; biases and norms of equal values on purpose."""
    torch.manual_seed(seed)
    body = Net()
    seen = tracing.trace(body, 16)
    body.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return Backbone("small", body, 8, SPEC, groups.split(body, seen, "stage"), "none", "random")


def small_classifier(seed: int = 0, classes: int = 4) -> Classifier:
    """Groups conv, low, middle, deep, head."""
    backbone = small_backbone(seed)
    return Classifier(backbone, linear(8, classes, init="normal"))
