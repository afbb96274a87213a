"""Compare runs: `thaw compare FOLDER...`.

    thaw compare logs/train/multiruns/2026-01-31_12-00-00
    thaw compare logs/train/runs/* --metric acc_macro --page compare.html

Runs that differ in the seed or fold alone are a group: mean, difference to the best one, cost.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from thaw.errors import ConfigError
from thaw.text_table import text_table
from thaw.tools.compare_groups import group_runs
from thaw.tools.compare_runs import Run, find_runs, last_of_each, read_run
from thaw.tools.compare_tables import as_csv, as_markdown, best_line, notes_of, table_rows
from thaw.training.measures import MODES


def main(arguments: list[str]) -> int:
    """Reads the runs, prints the comparison and writes the files that were asked for."""
    parser = argparse.ArgumentParser(
        "thaw compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER",
                        help="runs, sweeps, or folders above them")  # fmt: skip
    parser.add_argument("--metric", choices=MODES, help="default: the one that chose checkpoints")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row for each run")
    parser.add_argument("--page", type=Path, metavar="FILE",
                        help="write one HTML page with curves and bars")  # fmt: skip
    given = parser.parse_args(arguments)
    read = {folder: read_run(folder) for folder in find_runs(given.folders)}
    passed_over = [f"Passed over: {folder}: {why}" for folder, why in read.items()
                   if isinstance(why, str)]  # fmt: skip
    runs = [run for run in read.values() if isinstance(run, Run)]
    if not runs:
        raise ConfigError("none of these runs can be compared:\n  " + "\n  ".join(passed_over))
    runs, repeated = last_of_each(runs)
    comparisons = group_runs(runs, choose_metric(runs, given.metric))
    notes = [*notes_of(comparisons), *repeated, *passed_over]
    for each in comparisons:
        rows = table_rows(each)
        right = range(1, len(rows[0]))
        table = as_markdown(rows) if given.markdown else text_table(rows, right=right)
        print(f"{each.photos}\n\n{table}\n\n{best_line(each)}\n")
    print("\n".join(f"- {note}" for note in notes))
    if given.csv:
        given.csv.write_text(as_csv(comparisons), encoding="utf-8")
    if given.page:
        from thaw.tools.compare_page import html_page  # which imports torch

        given.page.write_text(html_page(comparisons, notes), encoding="utf-8")
    return 0


def choose_metric(runs: Sequence[Run], asked: str | None) -> str:
    """The metric's name without the split; a ConfigError where no run has it."""
    name = asked or Counter(run.monitor.partition("/")[2] for run in runs).most_common(1)[0][0]
    measured = {each for run in runs for each in run.results}
    known = [each for each in MODES if {f"val/{each}", f"test/{each}"} & measured]
    if name not in known:
        raise ConfigError(f"--metric {name}: no run has it; allowed here: {', '.join(known)}")
    return name
