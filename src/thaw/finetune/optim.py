"""Layer groups -> the optimiser's parameter groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from thaw.classifier import Classifier


def parameter_groups(
    model: Classifier, phases: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Optimiser groups: every parameter of the model in exactly one, frozen or not.

    Layer groups with the same rate in every phase share theirs, and each gives at most two: its
    matrices and kernels, and its vectors (norms and biases), which take no weight decay
    (arXiv:1812.01187, section 3.1). So there are few, and the foreach and fused optimisers can
    batch. `lr` is 1: the plan's rates are absolute.

    Args:
        model: for its layer groups.
        phases: rates of the groups that train, for each phase.
    """
    alike: dict[tuple[float | None, ...], list[str]] = {}
    tensors: dict[tuple[float | None, ...], tuple[list[nn.Parameter], list[nn.Parameter]]] = {}
    for group, named in model.group_parameters():
        rates = tuple(phase.get(group.name) for phase in phases)
        alike.setdefault(rates, []).append(group.name)
        matrices, vectors = tensors.setdefault(rates, ([], []))
        for _, parameter in named:
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
    result: list[dict[str, Any]] = []
    for rates, names in alike.items():
        matrices, vectors = tensors[rates]
        name = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
        shared = {"layer_groups": names, "lr": 1.0}
        if matrices:
            result.append({"params": matrices, "name": name, **shared})
        if vectors:
            vector_group = {"params": vectors, "name": f"{name}/vectors", **shared}
            result.append({**vector_group, "weight_decay": 0.0})
    return result
