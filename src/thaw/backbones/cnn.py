"""The small convolutional network that tutorials on cats and dogs train from scratch.

Three convolutions and a hidden layer, without norms. It is the baseline that shows what transfer
learning is worth. There are no weights for it.
"""

from torch import Tensor, nn
from torch.nn.functional import relu

WIDTHS = (32, 64, 128)  # channels of the three convolutions
HIDDEN = 128  # features before the last layer


class SmallCnn(nn.Module):
    """(N, 3, size, size) -> (N, num_classes): three times 3x3 convolution, ReLU, 2x2 max-pooling.

    Args:
        num_classes: Outputs of the last layer.
        size: Side of the images in pixels. The hidden layer has weights for each place that the
            convolutions leave.
    """

    def __init__(self, num_classes: int, size: int) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.conv1 = nn.Conv2d(3, first, 3)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 3)
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(second, third, 3)
        self.pool3 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(third * side_left(size) ** 2, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(relu(self.conv1(x)))  # N C H W
        x = self.pool2(relu(self.conv2(x)))
        x = self.pool3(relu(self.conv3(x)))
        return self.fc2(relu(self.fc1(x.flatten(1))))  # N K


def side_left(size: int) -> int:
    """Returns the side, in places, that the convolutions leave of an image; below 1: too small."""
    for _ in WIDTHS:
        size = (size - 2) // 2  # a 3x3 convolution without padding takes 2, pooling half
    return size
