"""Splits any body into ordered, named layer groups, by its module tree and a trace of it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from torch import nn

from thaw.backbones.tracing import Trace

Granularity = Literal["stage", "module", "block", "layer"]

HEAD = "head"  # the name of every model's last group
MIN_UNITS = 5  # a body is opened, the largest unit first, until it has so many (ResNet has 6)
MIN_STAGES = 3  # with fewer resolutions than this (ViT has one) every unit is a group of its own


@dataclass(frozen=True)
class LayerGroup:
    """A part of the model that is frozen, unfrozen and given a learning rate as one.

    `is_classifier`: hidden layers of a pretrained classifier, whose outputs are (N, D) (VGG).
    `depth` is relative, among the groups with image outputs: 0 first, 1 last and after those.
    """

    name: str  # as printed, logged and used in the configuration
    parameters: tuple[str, ...] = ()  # their names
    modules: tuple[str, ...] = ()  # their names; everything below them belongs to the group
    depth: float = 1.0  # 0-1
    is_classifier: bool = False


def split(
    body: nn.Module, seen: Trace, granularity: Granularity = "stage"
) -> tuple[LayerGroup, ...]:
    """Splits a body, traced with its last layer, into layer groups, stem first.

    "stage": parts whose outputs have the same resolution, or blocks if there are fewer than three,
    as in transformers (BEiT, arXiv:2106.08254, section 3). "module": the model's own children.
    "block": residual, dense or transformer blocks. "layer": single layers; an attention, or a block
    with parameters of its own, counts as one. With "stage" and "block", norms that stand alone join
    the part before them. Loose parameters (class token) join the stem.
    """
    units = children(body, "")
    least = 0 if granularity == "module" else MIN_UNITS
    while len(units) < least and (divisible := [n for n in units if children(body, n)]):
        largest = max(divisible, key=lambda name: _size(body.get_submodule(name)))
        place = units.index(largest)
        units[place : place + 1] = children(body, largest)
    if granularity in ("block", "layer"):
        units = _open(body, seen, units, into_blocks=granularity == "layer")
    units.sort(key=seen.first_run)
    parts = [[name] for name in units]
    if granularity in ("stage", "block"):
        parts = _join(body, seen, units, stages=granularity == "stage")
        if len(parts) < MIN_STAGES:
            parts = _join(body, seen, units, stages=False)
    owned = [[f"{name}.{key}" for name in part
              for key, _ in body.get_submodule(name).named_parameters()]
             for part in parts]  # fmt: skip
    in_a_part = set(chain.from_iterable(owned))
    owned[0] = [key for key, _ in body.named_parameters() if key not in in_a_part] + owned[0]
    return gather(body, seen, parts, owned, every_layer=granularity == "layer")


def gather(
    body: nn.Module, seen: Trace, parts: Sequence[Sequence[str]], owned: Sequence[Sequence[str]],
    *, every_layer: bool = False,
) -> tuple[LayerGroup, ...]:  # fmt: skip
    """Makes layer groups of the modules `parts` and the parameters `owned` of each, stem first.

    With `every_layer`, depths count all layers that see an image: VGG16's 44, with activations and
    pooling, as in `np.linspace(low, high, len(model.features))`.
    """
    starts = [seen.first_run(part[0]) for part in parts]
    flat = [all(map(seen.is_flat, part)) for part in parts]
    leaves = [(place, name) for place, name in enumerate(seen.order)
              if not list(body.get_submodule(name).children())]  # fmt: skip
    places = [start for start, is_flat in zip(starts, flat, strict=True) if not is_flat]
    if every_layer:
        tops = children(body, "")  # not the pooling before a classifier
        places = [place for place, name in leaves
                  if name.partition(".")[0] in tops and not seen.is_flat(name)]  # fmt: skip
    # Layers outside all parts (pooling, dropout) belong to the group that runs before them.
    modules = [list(part) for part in parts]
    inside = tuple(f"{name}." for name in chain.from_iterable(parts))
    for place, layer in leaves:
        if not f"{layer}.".startswith(inside):
            modules[max(0, sum(start <= place for start in starts) - 1)].append(layer)
    groups = []
    for part, start, is_flat, own, runs in zip(parts, starts, flat, owned, modules, strict=True):
        before = sum(place < start for place in places)
        depth = 1.0 if is_flat else min(1.0, before / max(1, len(places) - 1))
        groups.append(LayerGroup(_name(body, part), tuple(own), tuple(runs), depth, is_flat))
    check_cover(groups, [name for name, _ in body.named_parameters()])
    return tuple(groups)


def check_cover(groups: Sequence[LayerGroup], parameters: Iterable[str]) -> None:
    """Raises ValueError unless every parameter is in exactly one group and all names differ."""
    count = Counter(chain.from_iterable(group.parameters for group in groups))
    names = Counter(group.name for group in groups)
    missing = [name for name in parameters if not count[name]]
    twice = [name for each in (count, names) for name, times in each.items() if times > 1]
    if missing or twice:
        raise ValueError(f"layer groups must have each name once: {missing=}, {twice=}")


def children(body: nn.Module, name: str) -> list[str]:
    """Returns the names of a module's children that have parameters."""
    prefix = f"{name}." if name else ""
    module = body.get_submodule(name)
    return [prefix + child for child, part in module.named_children() if _size(part)]


def only_vectors(weights: Iterable[nn.Parameter]) -> bool:
    """Returns whether these are scales and shifts, as norms have them: no matrix and no kernel."""
    return all(weight.ndim <= 1 or weight.numel() == max(weight.shape) for weight in weights)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _open(body: nn.Module, seen: Trace, units: list[str], *, into_blocks: bool) -> list[str]:
    """Opens the units into blocks, or also the blocks into single layers.

    Modules stay whole that have parameters of their own, which would be in no part, or that read a
    child's parameters without calling it, which the trace cannot place.
    """
    parts: list[str] = []
    for name in units:
        module, inside = body.get_submodule(name), children(body, name)
        is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        holds_blocks = is_container and any(list(child.children()) for child in module.children())
        own = list(module.parameters(recurse=False))
        all_run = all(seen.first_run(child) < len(seen.order) for child in inside)
        opens = inside and not own and all_run and (into_blocks or holds_blocks)
        parts += _open(body, seen, inside, into_blocks=into_blocks) if opens else [name]
    return parts


def _join(body: nn.Module, seen: Trace, units: list[str], *, stages: bool) -> list[list[str]]:
    """Joins norms to the part before them, and with `stages` what has the same resolution."""
    parts: list[list[str]] = []
    for unit in units:
        resolution = seen.resolution(unit) if stages else None
        same = parts and resolution and resolution == seen.resolution(parts[-1][0])
        if parts and (same or only_vectors(body.get_submodule(unit).parameters())):
            parts[-1].append(unit)
        else:
            parts.append([unit])
    return parts


def _name(body: nn.Module, modules: Sequence[str]) -> str:
    """Returns the module's own name, or first-last. Norms that joined are not named.

    What a model itself calls "head" (its last norm, in timm) becomes "body.head".
    """
    weights = {name: body.get_submodule(name).parameters() for name in modules}
    matrices = [name for name, own in weights.items() if any(each.ndim > 1 for each in own)]
    first, last = (matrices or modules)[0], (matrices or modules)[-1]
    name = first if first == last else f"{first}-{last.rpartition('.')[2]}"
    return f"body.{name}" if f"{name}.".startswith(f"{HEAD}.") else name
