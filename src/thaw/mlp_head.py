"""A head of several layers, head=mlp."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from thaw.head import Init, last_layer


def mlp(
    in_features: int, num_classes: int, *, hidden: Sequence[int] = (512,), dropout: float = 0.0,
    norm: Literal["batch", "layer", "none"] = "batch", init: Init = "normal",
) -> nn.Module:  # fmt: skip
    """Builds a head of hidden layers (linear, norm, ReLU, dropout) and a last linear layer.

    The hidden layers, of `hidden` features, start Kaiming-normal for ReLU (arXiv:1502.01852), the
    last as in `linear`.
    """
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
    return nn.Sequential(*layers, last_layer(in_features, num_classes, init))
