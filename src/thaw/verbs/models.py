"""`thaw models`: the backbones there are, as a table and as a picture."""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from thaw.backbones import catalogue, licences
from thaw.backbones.catalogue import Entry
from thaw.errors import ConfigError

COLUMNS = (
    "backbone", "weights", "top-1 %", "parameters, M", "GFLOPs", "input px", "licence of weights",
    "last layer",
)  # fmt: skip
NUMBERS = slice(2, 6)  # columns that are written to the right
NOTES = (
    "* is backbone.weights=DEFAULT. Top-1: ImageNet-1k, as published with the weights. GFLOPs: one "
    "picture of the input size, a multiply-add is one. Parameters: with the last layer.",
    f"ImageNet: {licences.CAUTION}.",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `thaw models` takes."""
    parser.add_argument(
        "name", nargs="*",
        help="a part of a name (resnet) or a pattern ('resnet*'); 'timm/convnext*' lists timm's",
    )  # fmt: skip
    parser.add_argument("--max-params", type=float, metavar="M", help="millions of parameters")
    parser.add_argument("--max-gflops", type=float, metavar="G", help="1e9 multiply-adds a picture")
    parser.add_argument(
        "--sort", choices=get_args(catalogue.Order), default="name",
        help="best, smallest or fastest first, or by name",
    )  # fmt: skip
    parser.add_argument("--format", choices=("text", "markdown", "csv"), default="text")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png",
        help="draw accuracy against parameters and against compute",
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Prints the table; draws the picture where one is asked for.

    Raises:
        ConfigError: a name that fits nothing, limits that leave nothing, a picture that cannot be.
    """
    found = catalogue.find(given.name)
    entries = catalogue.arrange(found, given.sort, given.max_params, given.max_gflops)
    print(table(entries, given.format))
    if given.plot is not None:
        from thaw.backbones.catalogue_plot import draw  # matplotlib takes a second

        figure = draw(entries)
        formats = figure.canvas.get_supported_filetypes()
        if given.plot.suffix.lstrip(".").lower() not in formats:
            raise ConfigError(
                f"--plot {given.plot}: allowed are names that end in .png, .svg, .pdf"
            )
        given.plot.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(given.plot, dpi=120)


def table(entries: Sequence[Entry], style: str) -> str:
    """The entries as text, Markdown or CSV, with a line of column names."""
    rows = [_cells(entry) for entry in entries]
    if style == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        return text.getvalue().rstrip("\n")
    if style == "markdown":
        kinds = ["---"] * len(COLUMNS)
        kinds[NUMBERS] = ["---:"] * len(kinds[NUMBERS])
        lines = [f"| {' | '.join(row)} |" for row in (COLUMNS, kinds, *rows)]
        return "\n".join([*lines, "", *NOTES])
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [_aligned(row, widths) for row in (COLUMNS, ["-" * wide for wide in widths], *rows)]
    return "\n".join([*lines, "", *NOTES])


def _cells(entry: Entry) -> list[str]:
    star = " *" if entry.is_default and entry.weights != "DEFAULT" else ""
    return [
        entry.name,
        entry.weights + star,
        "" if entry.accuracy is None else f"{entry.accuracy:.2f}",
        f"{entry.parameters / 1e6:.2f}",
        f"{entry.gflops:.3f}",
        str(entry.size),
        entry.licence,
        entry.last_layer,
    ]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)]
    right = zip(row[NUMBERS], widths[NUMBERS], strict=True)
    cells[NUMBERS] = [cell.rjust(wide) for cell, wide in right]
    return "  ".join(cells).rstrip()
