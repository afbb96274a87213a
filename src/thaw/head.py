"""Heads: the part of the model that turns the features (N, D) into class scores (N, K)."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from thaw.errors import ConfigError

Init = Literal["zeros", "normal", "kaiming_uniform"]
Norm = Literal["batch", "layer", "none"]


def linear(
    in_features: int, num_classes: int, *, dropout: float = 0.0, init: Init = "zeros"
) -> nn.Module:
    """Builds a head that is one linear layer.

    Args:
        in_features: D, the number of features. thaw passes it.
        num_classes: K, the number of classes. thaw passes it.
        dropout: Probability, 0-1, of dropping each feature during training.
        init: How the weights start. "zeros": every class is equally likely at first, and no
            random number enters the result (BiT, arXiv:1912.11370, section 3.3). "normal":
            standard deviation 0.01, as in many ImageNet recipes. "kaiming_uniform": the default of
            `nn.Linear`, for the biases as well; with the others the biases start at 0.

    Raises:
        ConfigError: The dropout is out of range, or the init is unknown.
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
    """Builds a head of hidden layers (linear, norm, ReLU, dropout) and a last linear layer.

    Args:
        in_features: D, the number of features. thaw passes it.
        num_classes: K, the number of classes. thaw passes it.
        hidden: Width of each hidden layer, in features.
        dropout: Probability, 0-1, of dropping each feature after every hidden layer.
        norm: The norm after each hidden linear layer: "batch", "layer" or "none".
        init: How the weights of the last layer start, see `linear`. The hidden layers start
            Kaiming-normal for ReLU (arXiv:1502.01852).

    Raises:
        ConfigError: There is no hidden width or one below 1, the dropout is out of range, or the
            norm or init is unknown.
    """
    _check_dropout(dropout)
    if isinstance(hidden, int) or not hidden or any(width < 1 for width in hidden):
        shown = hidden if isinstance(hidden, int) else list(hidden)
        raise ConfigError(
            f"head.hidden={shown}: allowed is a list of one positive width or more, like [512]; "
            "for a head without hidden layers use head=linear"
        )
    norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    if norm not in (*norms, "none"):
        raise ConfigError(f"head.norm={norm}: allowed are batch, layer, none")
    layers: list[nn.Module] = []
    width = in_features
    for next_width in hidden:
        layer = nn.Linear(width, next_width, bias=norm == "none")
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        layers.append(layer)
        if norm != "none":
            layers.append(norms[norm](next_width))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = next_width
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
