"""Layer groups -> their rates, and the optimiser's parameter groups."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from thaw.classifier import Classifier
from thaw.errors import ConfigError, near
from thaw.groups import LayerGroup


def layer_rates(
    groups: Sequence[LayerGroup],
    lr: float,
    *,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    named: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Layer-wise rates by name of the group.

    Args:
        groups: stem first, head last.
        lr: of the head.
        lr_decay: each group towards the stem has this share of the rate above it, 0-1
            (ULMFiT, arXiv:1801.06146, section 3.2; BEiT, arXiv:2106.08254).
        min_lr_ratio: instead, rates fall linearly from `lr` at the deepest group that sees an
            image (and at all behind it) to this share of it at the stem.
        named: rates that replace these, by the name of a group or of a module that holds some.

    Raises:
        ConfigError: a name that is no group's.
    """
    last = len(groups) - 1
    rates: dict[str, float] = {}
    for place, group in enumerate(groups):
        share = (lr_decay or 1.0) ** (last - place)
        if min_lr_ratio is not None:
            share = min_lr_ratio + (1 - min_lr_ratio) * group.depth
        rates[group.name] = lr * share
    for name, rate in (named or {}).items():
        rates.update(dict.fromkeys(find(groups, name, "finetune.rates"), rate))
    return rates


def find(groups: Sequence[LayerGroup], name: str, key: str) -> list[str]:
    """Names of the groups that `name` means: itself, or all in the module of that name.

    Raises:
        ConfigError: none; with the nearest names, and `key` in front.
    """
    names = [group.name for group in groups]
    found = [known for known in names if known == name or known.startswith(f"{name}.")]
    if not found:
        raise ConfigError(
            f"{key}={name}: no such layer group{near(str(name), names)}. Allowed: "
            f"{', '.join(names)}"
        )
    return found


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
