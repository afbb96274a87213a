"""The backbones there are, and what is known of each set of weights before it is fetched."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, get_args

import torch
import torchvision.models
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from thaw.backbones import licences, timm_backbone, tracing
from thaw.backbones.backbone import torchvision_model
from thaw.backbones.own_backbones import tiny_backbone
from thaw.errors import ConfigError, near, shown

Order = Literal["name", "accuracy", "size", "compute"]

LAYERS = (nn.Linear, nn.Conv2d)
TIMM = "timm/"  # names that begin so are timm's


@dataclass(frozen=True)
class Entry:
    """One set of weights of one backbone.

    Attributes:
        name: as in backbone=<name>.
        weights: as in backbone.weights=<name>; timm has the tag of its weights in the model's name.
        is_default: whether backbone.weights=DEFAULT means these.
        parameters: of the model, with the last layer that the weights came with.
        gflops: 1e9 operations for one picture of `size`; a multiply-add is one, as torchvision
            counts.
        accuracy: top-1 on ImageNet-1k's validation photos in percent, as published with the
            weights; None: not published with them.
        size: side of the input in pixels.
        licence: of the weights, in a few words.
        last_layer: where the head is, as "fc (Linear)".
    """

    name: str
    weights: str
    is_default: bool
    parameters: int
    gflops: float
    accuracy: float | None
    size: int
    licence: str
    last_layer: str


def find(patterns: Sequence[str] = ()) -> list[Entry]:
    """The entries whose name fits one of the patterns, by name; without patterns all but timm's.

    Args:
        patterns: a part of a name ("resnet"), or a glob ("resnet*"); "timm/..." finds timm's.

    Raises:
        ConfigError: a pattern that fits nothing; timm is asked for and not installed.
    """
    ours = ["tiny", *torchvision.models.list_models(module=torchvision.models)]
    names: set[str] = set() if patterns else set(ours)
    for pattern in patterns:
        known = timm_names() if pattern.startswith(TIMM) else ours
        found = {name for name in known if _fits(name, pattern)}
        if not found:
            raise ConfigError(
                f"{pattern}: no backbone has this in its name{near(pattern, known)}. "
                "thaw models without a name lists them; 'timm/*resnet*' finds timm's"
            )
        names |= found
    entries = [entry for name in sorted(names) for entry in _entries(name)]
    return arrange(entries, "name")


def arrange(
    entries: Iterable[Entry],
    order: Order,
    max_parameters: float | None = None,
    max_gflops: float | None = None,
) -> list[Entry]:
    """The entries within the limits, in order: best, smallest or fastest first, or by name.

    Args:
        entries: in any order.
        order: "accuracy" has those without one last.
        max_parameters: in millions.
        max_gflops: in 1e9 multiply-adds.

    Raises:
        ConfigError: an unknown order, a limit that is not positive, nothing within the limits.
    """
    if order not in get_args(Order):
        raise ConfigError(f"--sort {order}: allowed are {', '.join(get_args(Order))}")
    for option, limit in (("--max-params", max_parameters), ("--max-gflops", max_gflops)):
        if limit is not None and not limit > 0:
            raise ConfigError(f"{option} {limit}: allowed is above 0")
    every = list(entries)
    kept = [
        entry
        for entry in every
        if (max_parameters is None or entry.parameters <= 1e6 * max_parameters)
        and (max_gflops is None or entry.gflops <= max_gflops)
    ]
    if every and not kept:
        smallest = min(every, key=lambda entry: entry.parameters)
        fastest = min(every, key=lambda entry: entry.gflops)
        raise ConfigError(
            f"--max-params {shown(max_parameters)} --max-gflops {shown(max_gflops)}: nothing is so "
            f"small; {smallest.name} has {smallest.parameters / 1e6:.1f} million parameters, "
            f"{fastest.name} takes {fastest.gflops:.2g} GFLOPs"
        )
    by = {
        "name": lambda entry: (entry.name.startswith(TIMM), entry.name, entry.weights),
        "accuracy": lambda entry: (-(entry.accuracy or 0), entry.parameters, entry.name),
        "size": lambda entry: (entry.parameters, entry.name, entry.weights),
        "compute": lambda entry: (entry.gflops, entry.name, entry.weights),
    }
    return sorted(kept, key=by[order])


def timm_names() -> list[str]:
    """timm/<name> of every set of weights that timm has.

    Raises:
        ConfigError: it is not installed.
    """
    return [TIMM + name for name in timm_backbone.import_timm().list_models(pretrained=True)]


def count_gflops(model: nn.Module, size: int) -> float:
    """1e9 multiply-adds of one picture of `size` pixels through a model on the meta device."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.zeros(1, 3, size, size, device="meta"))  # (1, 3, H, W)
    return counter.get_total_flops() / 2e9  # it counts a multiply-add as two


def last_of(model: nn.Module) -> str:
    """The last layer by its place in the module tree, as "fc (Linear)".

    A backbone is made with the last that runs; for a table of all, running all would take too long.
    """
    named = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
    return tracing.described(model, named[-1])


def _fits(name: str, pattern: str) -> bool:
    is_glob = any(letter in pattern for letter in "*?[")
    return fnmatchcase(name, pattern) if is_glob else pattern in name


def _entries(name: str) -> list[Entry]:
    if name.startswith(TIMM):
        return [_of_timm(name.removeprefix(TIMM))]
    return [_of_tiny()] if name == "tiny" else _of_torchvision(name)


def _of_torchvision(name: str) -> list[Entry]:
    enum = torchvision.models.get_model_weights(name)
    with tracing.without_values():
        last_layer = last_of(
            torchvision_model(name, size=enum["DEFAULT"].transforms().crop_size[0])
        )
    return [
        Entry(
            name,
            entry.name,
            is_default=entry is enum["DEFAULT"],
            parameters=entry.meta["num_params"],
            gflops=entry.meta["_ops"],
            accuracy=_known(entry.meta["_metrics"]["ImageNet-1K"]["acc@1"]),
            size=entry.transforms().crop_size[0],
            licence=licences.of_torchvision(entry).short,
            last_layer=last_layer,
        )
        for entry in enum
    ]


def _known(accuracy: float) -> float | None:
    return None if math.isnan(accuracy) else accuracy  # VGG16 without its classifier


def _of_tiny() -> Entry:
    with tracing.without_values():
        backbone = tiny_backbone(weights=None)
    return Entry(
        "tiny",
        "DEFAULT",
        is_default=True,
        parameters=sum(weight.numel() for weight in backbone.body.parameters()),
        gflops=count_gflops(backbone.body, backbone.input_spec.size),
        accuracy=None,
        size=backbone.input_spec.size,
        licence="MIT",
        last_layer=backbone.last_layer,
    )


def _of_timm(name: str) -> Entry:
    cfg = timm_backbone.pretrained_cfg(name)
    size = timm_backbone.input_spec(cfg).size
    with tracing.without_values():
        model = timm_backbone.create(name, cfg, size)
    return Entry(
        TIMM + name,
        "DEFAULT",
        is_default=True,
        parameters=sum(weight.numel() for weight in model.parameters()),
        gflops=count_gflops(model, size),
        accuracy=None,
        size=size,
        licence=licences.of_timm(cfg).short,
        last_layer=timm_backbone.last_layer(model, cfg) or "none",
    )
