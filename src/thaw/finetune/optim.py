"""The optimiser's parameter groups, and the rate that a run chooses by itself."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from thaw.backbones.backbone import Backbone
from thaw.classifier import Classifier

MANY = 1000  # photos from which on the rate is the highest
HIGHEST, LOWEST = 1e-3, 1e-4
SMALL = 1_000_000  # parameters of a body that has little to lose


def parameter_groups(
    model: Classifier, phases: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Gives optimiser groups that hold every parameter of the model once, frozen or not.

    Layer groups that have the same rate in every phase share an optimiser group, since fused ones
    are fast with few of them. Vectors (norms and biases) have groups of their own without weight
    decay (arXiv:1812.01187, section 3.1). `phases` has the rates of each phase by layer group.
    """
    alike: dict[tuple[float | None, ...], dict[str, list[Any]]] = defaultdict(dict)
    for group, named in model.group_parameters():
        rates = tuple(phase.get(group.name) for phase in phases)
        alike[rates][group.name] = [parameter for _, parameter in named]
    result: list[dict[str, Any]] = []
    for members in alike.values():
        names, tensors = list(members), list(chain(*members.values()))
        name = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
        shared = {"layer_groups": names, "lr": 1.0}
        if matrices := [tensor for tensor in tensors if tensor.ndim > 1]:
            result.append({"params": matrices, "name": name, **shared})
        if vectors := [tensor for tensor in tensors if tensor.ndim <= 1]:
            extra = {"name": f"{name}/vectors", "weight_decay": 0.0}
            result.append({"params": vectors, **shared, **extra})
    return result


def unfrozen_lr(backbone: Backbone, photos: int) -> tuple[float, str]:
    """Gives the head's rate after the unfreeze for `lr: auto`, for Adam, and the reason in words.

    Convolutional bodies: 1e-3 from 1,000 training photos on; below, by the square of their number,
    at least 1e-4: with few photos a high rate loses more of what the weights know than it learns
    (measured, benchmarks/LOG.md). Without normalisation layers, a tenth (measured on SqueezeNet;
    as torchvision does). With less than a million parameters, 1e-3 (the demo). Bodies of linear
    layers, such as transformers, were not measured: 1e-4, about what MAE fine-tunes ViT-B with
    (5e-4 x batch / 256, arXiv:2111.06377 and its FINETUNE.md) at the batches usual here.
    """
    if not backbone.is_convolutional:
        return LOWEST, "for linear layers"
    kinds = {kind.__name__ for layer in backbone.body.modules() for kind in type(layer).__mro__}
    normalises = any("Norm" in kind for kind in kinds)
    if normalises and sum(parameter.numel() for parameter in backbone.body.parameters()) < SMALL:
        return HIGHEST, "for a small network"
    rate = max(LOWEST, HIGHEST * min(1.0, (photos / MANY) ** 2))
    why = f"for {photos:,} photos"
    return (rate, why) if normalises else (rate / 10, f"{why}, no norm")
