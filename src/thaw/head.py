"""Heads: what turns the features (N, D) into class scores (N, K). Another is in mlp_head.py."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Init = Literal["zeros", "normal", "kaiming_uniform"]


def linear(
    in_features: int, num_classes: int, *, dropout: float = 0.0, init: Init = "zeros"
) -> nn.Module:
    """Builds a head that is one linear layer, of D `in_features` and K `num_classes`.

    `dropout` is the probability, 0-1, of dropping each feature in training. `init`: "zeros", so
    that all classes are equally likely (BiT, arXiv:1912.11370, section 3.3), "normal" with
    deviation 0.01, or "kaiming_uniform", the default of `nn.Linear`.
    """
    layer = last_layer(in_features, num_classes, init)
    return nn.Sequential(nn.Dropout(dropout), layer) if dropout else layer


def norm_linear(
    in_features: int, num_classes: int, *, dropout: float = 0.0, init: Init = "zeros"
) -> nn.Module:
    """Builds a head that scales the features by `PowerNorm`, in front of a `linear` one."""
    return nn.Sequential(PowerNorm(), linear(in_features, num_classes, dropout=dropout, init=init))


class PowerNorm(nn.Module):
    """Features (N, D) -> their roots, with signs, each photo's scaled to the length 30.

    So a few large features do not rule (Perronnin et al. 2010, "Improving the Fisher Kernel for
    Large-Scale Image Classification"), and one rate of the head fits all backbones: without this
    the length is 9 with `tiny`, 30 with EfficientNet-Lite0 and 530 with SqueezeNet.
    """

    def forward(self, features: Tensor) -> Tensor:
        # sqrt(x + 0.01) where x >= 0, mirrored about (0, 0.1): the slope is 5 at most, not endless
        roots = 0.1 + features.sign() * ((features.abs() + 0.01).sqrt() - 0.1)
        return 30 * functional.normalize(roots, dim=1)


def last_layer(in_features: int, num_classes: int, init: Init) -> nn.Linear:
    """Builds the layer that gives the class scores, see `linear`."""
    layer = nn.Linear(in_features, num_classes)
    if init == "zeros":
        nn.init.zeros_(layer.weight)
    elif init == "normal":
        nn.init.normal_(layer.weight, std=0.01)
    if init != "kaiming_uniform":  # nn.Linear's own
        nn.init.zeros_(layer.bias)
    return layer
