"""Heads: what turns the body's features (N, D) into class scores (N, K)."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from thaw.errors import ConfigError

Init = Literal["zeros", "normal", "kaiming_uniform"]
Norm = Literal["batch", "layer", "none"]


def linear(
    in_features: int, num_classes: int, *, dropout: float = 0.0, init: Init = "zeros"
) -> nn.Module:
    """One linear layer.

    Args:
        in_features, num_classes: D and K; thaw passes both.
        dropout: probability 0-1 on the features.
        init: of the weights. "zeros": every class equally likely at first, and no random draw in
            the result (BiT, arXiv:1912.11370, section 3.3); "normal": std 0.01 (ImageNet recipes);
            "kaiming_uniform": torch's own for nn.Linear. Biases start at 0 but for the last.

    Raises:
        ConfigError: dropout out of range, or an unknown init.
    """
    _check_dropout(dropout)
    layer = nn.Linear(in_features, num_classes)
    _initialise(layer, init)
    return nn.Sequential(nn.Dropout(dropout), layer) if dropout else layer


def mlp(
    in_features: int,
    num_classes: int,
    *,
    hidden: Sequence[int] = (512,),
    dropout: float = 0.0,
    norm: Norm = "batch",
    init: Init = "normal",
) -> nn.Module:
    """Hidden layers of linear - norm - ReLU - dropout, then a linear layer.

    Args:
        in_features, num_classes: D and K; thaw passes both.
        hidden: width of each hidden layer, in features.
        dropout: probability 0-1 after each hidden layer.
        norm: after each hidden linear layer: "batch", "layer" or "none".
        init: of the last layer, see `linear`. Hidden layers are Kaiming-normal for ReLU
            (arXiv:1502.01852).

    Raises:
        ConfigError: no or non-positive hidden sizes, dropout out of range, unknown norm or init.
    """
    _check_dropout(dropout)
    if not hidden or any(width < 1 for width in hidden):
        raise ConfigError(
            f"head.hidden={list(hidden)}: give one positive width or more, or use head=linear"
        )
    norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    if norm not in (*norms, "none"):
        raise ConfigError(f"head.norm={norm}: allowed are batch, layer, none")
    layers: list[nn.Module] = []
    width = in_features
    for following in hidden:
        layer = nn.Linear(width, following, bias=norm == "none")
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        layers.append(layer)
        if norm != "none":
            layers.append(norms[norm](following))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = following
    last = nn.Linear(width, num_classes)
    _initialise(last, init)
    return nn.Sequential(*layers, last)


def _initialise(layer: nn.Linear, init: Init) -> None:
    if init == "zeros":
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    elif init == "normal":
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    elif init == "kaiming_uniform":
        layer.reset_parameters()
    else:
        raise ConfigError(f"head.init={init}: allowed are zeros, normal, kaiming_uniform")


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ConfigError(f"head.dropout={dropout}: allowed is 0 to below 1")
