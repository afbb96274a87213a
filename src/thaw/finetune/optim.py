"""Layer groups -> the optimiser's parameter groups."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from thaw.classifier import Classifier


def parameter_groups(
    model: Classifier, phases: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Gives optimiser groups that hold every parameter of the model once, frozen or not.

    Layer groups that have the same rate in every phase share an optimiser group: fused optimisers
    are fast with few of them. Vectors (norms and biases) have groups of their own without weight
    decay (arXiv:1812.01187, section 3.1). `phases` has the rates of each phase by layer group;
    `ApplyPlan` writes them into the optimiser.
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
