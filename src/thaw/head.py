"""Heads: the part of the model that turns the features (N, D) into class scores (N, K)."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from thaw.errors import check

Init = Literal["zeros", "normal", "kaiming_uniform"]


def linear(
    in_features: int, num_classes: int, *, dropout: float = 0.0, init: Init = "zeros"
) -> nn.Module:
    """Builds a head that is one linear layer.

    Args:
        in_features, num_classes: D and K. thaw passes them.
        dropout: Probability, 0-1, of dropping each feature during training.
        init: How the weights start. "zeros": all classes equally likely (BiT, arXiv:1912.11370,
            section 3.3). "normal": deviation 0.01. "kaiming_uniform": the default of `nn.Linear`.
    """
    layer = _last_layer(in_features, num_classes, init)
    return nn.Sequential(nn.Dropout(dropout), layer) if dropout else layer


def mlp(
    in_features: int, num_classes: int, *, hidden: Sequence[int] = (512,), dropout: float = 0.0,
    norm: Literal["batch", "layer", "none"] = "batch", init: Init = "normal",
) -> nn.Module:  # fmt: skip
    """Builds a head of hidden layers (linear, norm, ReLU, dropout) and a last linear layer.

    The hidden layers, of `hidden` features, start Kaiming-normal for ReLU (arXiv:1502.01852), the
    last as in `linear`.
    """
    fits = bool(hidden) and min(hidden) > 0
    check(fits, "head.hidden", hidden, "a list of positive widths, like [512]")
    make_norm = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": None}[norm]
    layers: list[nn.Module] = []
    for width in hidden:
        layer = nn.Linear(in_features, width, bias=make_norm is None)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        layers += [layer, make_norm(width)] if make_norm else [layer]
        layers.append(nn.ReLU(inplace=True))
        layers += [nn.Dropout(dropout)] if dropout else []
        in_features = width
    return nn.Sequential(*layers, _last_layer(in_features, num_classes, init))


def _last_layer(in_features: int, num_classes: int, init: Init) -> nn.Linear:
    layer = nn.Linear(in_features, num_classes)
    if init == "zeros":
        nn.init.zeros_(layer.weight)
    elif init == "normal":
        nn.init.normal_(layer.weight, std=0.01)
    if init != "kaiming_uniform":  # nn.Linear's own
        nn.init.zeros_(layer.bias)
    return layer
