"""Compare runs: `thaw compare FOLDER...`.

    thaw compare logs/train/multiruns/2026-01-31_12-00-00
    thaw compare logs/train/runs/* --metric acc_macro --baseline finetune=full --page compare.html

Runs that differ in the seed or fold alone are a group. The groups are shown with mean and standard
deviation, their paired differences to a baseline, and their cost.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from thaw.errors import ConfigError
from thaw.text_table import text_table
from thaw.tools.compare_groups import Comparison, group_runs
from thaw.tools.compare_page import html_page
from thaw.tools.compare_runs import Run, find_runs, last_of_each, read_run
from thaw.tools.compare_tables import (
    Rows,
    as_csv,
    as_markdown,
    best_line,
    cost_rows,
    notes_of,
    score_rows,
)
from thaw.training.measures import MODES


def main(arguments: list[str]) -> int:
    """Reads the runs, prints the comparison and writes the files that were asked for.

    Raises:
        ConfigError: There is no finished run, an option fits none, or a file cannot be written.
    """
    parser = argparse.ArgumentParser(
        "thaw compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    given = parser.parse_args(arguments)
    read = {folder: read_run(folder) for folder in find_runs(given.folders)}
    passed_over = [f"{folder}: {run}" for folder, run in read.items() if isinstance(run, str)]
    runs = [run for run in read.values() if isinstance(run, Run)]
    if not runs:
        raise ConfigError("none of these runs can be compared:\n  " + "\n  ".join(passed_over))
    runs, repeated = last_of_each(runs)
    comparisons = group_runs(runs, choose_metric(runs, given.metric), given.baseline)
    notes = [*notes_of(comparisons), *repeated, *(f"Passed over: {text}" for text in passed_over)]
    print(in_words(comparisons, notes, markdown=given.markdown))
    if given.csv:
        _write(given.csv, as_csv(comparisons))
    if given.page:
        _write(given.page, html_page(comparisons, notes))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("folders", nargs="+", metavar="FOLDER",
                        help="runs, sweeps, or folders above them")  # fmt: skip
    parser.add_argument("--metric", choices=MODES, help="default: the one that chose checkpoints")
    parser.add_argument("--baseline", metavar="SETTINGS",
                        help="the group to compare the others with, by settings in its name, such "
                        "as finetune=full; default: the best on the validation photos")  # fmt: skip
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row for each run")
    parser.add_argument("--page", type=Path, metavar="FILE",
                        help="write one HTML page with curves and bars")  # fmt: skip


def choose_metric(runs: Sequence[Run], asked: str | None) -> str:
    """The metric's name without the split.

    Raises:
        ConfigError: No run has the metric.
    """
    name = asked or Counter(run.monitor.partition("/")[2] for run in runs).most_common(1)[0][0]
    measured = {each for run in runs for each in run.results}
    known = [each for each in MODES if {f"val/{each}", f"test/{each}"} & measured]
    if name not in known:
        raise ConfigError(
            f"--metric {name}: no run has it; allowed here: {', '.join(known) or 'none'}"
        )
    return name


def in_words(comparisons: Sequence[Comparison], notes: Sequence[str], *, markdown: bool) -> str:
    """The tables and notes, for the terminal or as Markdown."""

    def table(rows: Rows) -> str:
        return as_markdown(rows) if markdown else text_table(rows, right=range(1, len(rows[0])))

    lines = []
    for each in comparisons:
        lines += [f"{'## ' if markdown else ''}{each.photos}", ""] if each.photos else []
        lines += [table(score_rows(each)), "", table(cost_rows(each)), "", best_line(each), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes)])


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error}); give another file") from error
    print(f"written: {file}")
