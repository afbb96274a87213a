"""`thaw models`: a table of the backbones there are, from torchvision's and timm's own records."""

import math
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torchvision.models

from thaw.backbones import timm_backbone
from thaw.backbones.rebuild import without_values
from thaw.errors import ConfigError, near
from thaw.text_table import text_table

TIMM = "timm/"  # names of timm's models start with this
HEADER = ["backbone", "weights", "top-1 %", "parameters, M", "GFLOPs", "input px", "licence"]
NOTES = (
    "Top-1: ImageNet-1k, as published with the weights. Parameters: with the last layer. GFLOPs: "
    "one image of the input size; a multiply-add is one. Empty: not in the library's records.",
    "* is backbone.weights=DEFAULT. Licence: as the publisher of the weights declares. ImageNet's "
    "photos are for non-commercial research; whether that binds such weights is disputed.",
)


class Row(NamedTuple):
    """One set of weights of one backbone."""

    name: str  # as in backbone=NAME
    weights: str  # as in backbone.weights=WEIGHTS, with a star for DEFAULT; timm: in the name
    parameters: int  # with the last layer that the weights came with
    size: int  # side of the input, in pixels
    licence: str  # as the publisher declares it
    gflops: float = math.nan  # 1e9 multiply-adds for one image; nan: it is not published
    accuracy: float = math.nan  # published ImageNet-1k top-1, percent; nan: it is not published


OWN = {  # thaw's own, without the last layer
    "tiny": Row("tiny", "DEFAULT", 366_880, 64, "MIT"),
    "cnn": Row("cnn", "", 3_304_640, 128, ""),
}
ORDERS = {  # what is not published comes last
    "name": lambda row: (row.name, row.weights),
    "accuracy": lambda row: (math.isnan(row.accuracy), -row.accuracy, row.parameters, row.name),
    "size": lambda row: (row.parameters, row.name, row.weights),
    "compute": lambda row: (math.isnan(row.gflops), row.gflops, row.parameters, row.name),
}


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    note = "a part of a name (resnet) or a pattern ('resnet*'); 'timm/convnext*' lists timm's"
    parser.add_argument("pattern", nargs="*", help=note)
    parser.add_argument("--sort", choices=tuple(ORDERS), default="name", help="the best first")
    given = parser.parse_args(words)
    rows = [HEADER]
    for row in sorted(find(given.pattern), key=ORDERS[given.sort]):
        numbers = f"{row.accuracy:.2f}", f"{row.parameters / 1e6:.2f}", f"{row.gflops:.3f}"
        shown = ["" if number == "nan" else number for number in numbers]
        rows.append([row.name, row.weights, *shown, str(row.size), row.licence])
    print(text_table(rows, right=range(2, 6)), "", *NOTES, sep="\n")


def find(patterns: Sequence[str] = ()) -> list[Row]:
    """Returns the rows whose name matches one of the patterns; without patterns all but timm's."""
    own = [*OWN, *torchvision.models.list_models(module=torchvision.models)]
    names = set() if patterns else {*own}
    for pattern in patterns:
        timm = pattern.startswith(TIMM) and timm_backbone.import_timm()
        known = [TIMM + name for name in timm.list_models(pretrained=True)] if timm else own
        glob = pattern if "*" in pattern else f"*{pattern}*"
        matching = {name for name in known if fnmatchcase(name, glob)}
        if not matching:
            hint = f"{near(pattern, known)}. `thaw models` lists them, 'timm/*resnet*' timm's"
            raise ConfigError(f"{pattern}: no backbone has this in its name{hint}")
        names |= matching
    return [row for name in names for row in _rows(name)]


def _rows(name: str) -> Iterator[Row]:
    if name in OWN:
        yield OWN[name]
    elif name.startswith(TIMM):
        plain_name = name.removeprefix(TIMM)
        record = timm_backbone.pretrained_cfg(plain_name)
        try:
            size = timm_backbone.input_spec(record).size
        except ConfigError:  # images that are not square or of other channels: no run takes it
            return
        with without_values():  # timm's records do not have the number of parameters
            model = timm_backbone.create(plain_name, record, size)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield Row(name, "DEFAULT", parameters, size, timm_backbone.declared_licence(record))
    else:
        enum: Any = torchvision.models.get_model_weights(name)
        for entry in enum:  # "not a number" is the accuracy of weights without a classifier
            yield Row(
                name, entry.name + " *" * (entry is enum["DEFAULT"]), entry.meta["num_params"],
                entry.transforms().crop_size[0], entry.meta.get("license") or "none declared",
                entry.meta["_ops"], entry.meta["_metrics"]["ImageNet-1K"]["acc@1"],
            )  # fmt: skip
