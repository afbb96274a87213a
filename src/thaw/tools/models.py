"""`thaw models`: a table of the backbones there are, from torchvision's and timm's own records."""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torchvision.models
from torch import nn

from thaw.backbones import timm_backbone, tracing
from thaw.backbones.own_backbones import cnn_backbone, tiny_backbone
from thaw.backbones.rebuild import BUILDERS
from thaw.errors import ConfigError, near
from thaw.text_table import text_table

TIMM = "timm/"  # names of timm's models start with this
ORDERS = {
    "name": lambda row: (row.name, row.weights),
    "accuracy": lambda row: (-(row.accuracy or 0), row.parameters, row.name),
    "size": lambda row: (row.parameters, row.name, row.weights),
    "compute": lambda row: (row.gflops or math.inf, row.parameters, row.name),
}
HEADER = ("backbone", "weights", "top-1 %", "parameters, M", "GFLOPs", "input px", "licence")
NOTES = (
    "Top-1: ImageNet-1k, as published with the weights. Parameters: with the last layer. GFLOPs: "
    "one image of the input size; a multiply-add is one. Empty: not in the library's records.",
    "* is backbone.weights=DEFAULT. Licence: what the publisher of the weights declares. "
    "ImageNet's photos are for non-commercial research only; whether that binds weights trained on "
    "them is disputed.",
)


@dataclass(frozen=True)
class Row:
    """One set of weights of one backbone.

    Attributes:
        name: As in backbone=<name>.
        weights: As in backbone.weights=<weights>; timm has the tag of the weights in the name.
        is_default: Whether backbone.weights=DEFAULT means these.
        parameters: Of the model, with the last layer that the weights came with.
        gflops: 1e9 multiply-adds for one image; None if the library does not publish it.
        accuracy: Published ImageNet-1k top-1 in percent, or None.
        size: Side of the input in pixels.
        licence: As the publisher declares it.
    """

    name: str
    weights: str
    is_default: bool
    parameters: int
    gflops: float | None
    accuracy: float | None
    size: int
    licence: str


def main(words: Sequence[str]) -> int:
    """Runs `thaw models` with the words that follow it on the command line."""
    parser = argparse.ArgumentParser("thaw models", description=__doc__)
    _add_arguments(parser)
    _run(parser.parse_args(words))
    return 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `thaw models`."""
    parser.add_argument(
        "pattern", nargs="*",
        help="a part of a name (resnet) or a pattern ('resnet*'); 'timm/convnext*' lists timm's",
    )  # fmt: skip
    parser.add_argument(
        "--sort", choices=tuple(ORDERS), default="name", help="by name, or the best, smallest or "
        "fastest first",
    )  # fmt: skip


def _run(given: argparse.Namespace) -> None:
    """Prints the table.

    Raises:
        ConfigError: A pattern matches no backbone, or timm is needed and not installed.
    """
    rows = sorted(find(given.pattern), key=ORDERS[given.sort])
    print(text_table([HEADER, *map(_cells, rows)], right=range(2, 6)), "", *NOTES, sep="\n")


def find(patterns: Sequence[str] = ()) -> list[Row]:
    """Returns the rows whose name matches one of the patterns; without patterns all but timm's.

    Raises:
        ConfigError: A pattern matches no backbone, or timm is needed and not installed.
    """
    own = [name for name in BUILDERS if name not in ("torchvision", "timm")]
    own += torchvision.models.list_models(module=torchvision.models)
    names: set[str] = set() if patterns else set(own)
    for pattern in patterns:
        known = own
        if pattern.startswith(TIMM):
            timm = timm_backbone.import_timm()
            known = [TIMM + name for name in timm.list_models(pretrained=True)]
        is_glob = any(letter in pattern for letter in "*?[")
        matching = {
            name for name in known
            if (fnmatchcase(name, pattern) if is_glob else pattern in name)
        }  # fmt: skip
        if not matching:
            raise ConfigError(
                f"{pattern}: no backbone has this in its name{near(pattern, known)}. "
                "`thaw models` without a name lists them; 'timm/*resnet*' finds timm's"
            )
        names |= matching
    return [row for name in names for row in _rows(name)]


def _rows(name: str) -> Iterator[Row]:
    if name in ("tiny", "cnn"):
        with tracing.without_values():
            backbone = (tiny_backbone if name == "tiny" else cnn_backbone)(weights=None)
        size, parameters = backbone.input_spec.size, _count(backbone.body)
        weights, licence = ("DEFAULT", "MIT") if name == "tiny" else ("", "")
        yield Row(name, weights, True, parameters, None, None, size, licence)
    elif name.startswith(TIMM):
        record = timm_backbone.pretrained_cfg(name.removeprefix(TIMM))
        size = timm_backbone.input_spec(record).size
        with tracing.without_values():  # timm's records do not have the number of parameters
            model = timm_backbone.create(name.removeprefix(TIMM), record, size)
        parameters = _count(model)
        licence = timm_backbone.declared_licence(record)
        yield Row(name, "DEFAULT", True, parameters, None, None, size, licence)
    else:
        enum = torchvision.models.get_model_weights(name)
        for entry in enum:
            accuracy = entry.meta["_metrics"]["ImageNet-1K"]["acc@1"]
            yield Row(
                name, entry.name, entry is enum["DEFAULT"], entry.meta["num_params"],
                entry.meta["_ops"], None if math.isnan(accuracy) else accuracy,
                entry.transforms().crop_size[0], entry.meta.get("license") or "none declared",
            )  # fmt: skip


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _cells(row: Row) -> list[str]:
    star = " *" if row.is_default and row.weights not in ("DEFAULT", "") else ""
    return [
        row.name,
        row.weights + star,
        "" if row.accuracy is None else f"{row.accuracy:.2f}",
        f"{row.parameters / 1e6:.2f}",
        "" if row.gflops is None else f"{row.gflops:.3f}",
        str(row.size),
        row.licence,
    ]
