"""Compare runs: `thaw compare FOLDER...`.

    thaw compare logs/train/multiruns/2026-01-31_12-00-00
    thaw compare logs/train/runs/* --metric acc_macro --page compare.html

Runs that differ in the seed or fold alone are a group: mean, difference to the best one, cost.
"""

import csv
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.errors import ConfigError, check
from thaw.report.curves import TITLES, draw_mean, finish_panel
from thaw.text_table import text_table
from thaw.tools.compare_runs import Comparison, Run, find_runs, group_runs, read_run
from thaw.training.measures import MODES

NOTES = (
    "The runs of a group differ in the seed or fold alone. Groups are ordered by the validation "
    "photos; choosing by test values would make them too good.",
    "A group of one run says nothing about the spread over seeds: run -m ... seed=0,1,2.",
    "± is the standard deviation over the runs. [ ] is the 95 % confidence interval of the mean "
    "difference to the best group between runs of equal seed and fold (Student's t); * marks "
    "intervals without zero. It speaks of other seeds, not of other photos. One of twenty is wrong "
    "by chance, and the best of many groups looks better than it is. Folds share training photos, "
    "so their intervals are widened (Nadeau and Bengio, 2003).",
    "What is no finite number is in no mean, which is then of fewer runs: 'of 2'.",
    "Where runs share cached features, the first run that needs them takes longer.",
)
MOST = 10  # groups in a picture: the best by validation, one of matplotlib's ten colours each


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Reads the runs, prints the comparison and writes the files that were asked for."""
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="runs, sweeps, or folders above them")
    add("--metric", choices=MODES, help="default: the one that chose checkpoints")
    add("--markdown", action="store_true", help="print Markdown")
    add("--csv", type=Path, metavar="FILE", help="write one row for each run")
    add("--page", type=Path, metavar="FILE", help="write one HTML page with curves")
    given = parser.parse_args(words)
    read = {folder: read_run(folder) for folder in find_runs(given.folders)}
    unread = [f"Passed over: {run}: {why}" for run, why in read.items() if isinstance(why, str)]
    runs = [run for run in read.values() if isinstance(run, Run)]
    if not runs:
        raise ConfigError("none of these runs can be compared:\n  " + "\n  ".join(unread))
    # Twice the same run is no further sample.
    by_time = sorted(runs, key=lambda run: (run.folder / "results.json").stat().st_mtime)
    last = {(run.identity, run.unit): run for run in by_time}
    repeated = [f"Left out: {run.folder}; {by.folder} has the same settings and {by.unit}"
                for run in runs if (by := last[run.identity, run.unit]) is not run]  # fmt: skip
    odd = [f"Compared all the same: {run.folder} {run.facts.get('ended')}" for run in last.values()
           if run.facts.get("status") == "diverged"]  # fmt: skip
    comparisons = group_runs([*last.values()], choose_metric(runs, given.metric))
    notes = [*NOTES, *repeated, *odd, *unread]
    for each in comparisons:
        rows = table_rows(each)
        rule = ["---", *["---:"] * (len(rows[0]) - 1)]  # all columns but the first to the right
        lines = [f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:])]
        table = text_table(rows, right=range(1, len(rows[0])))
        shown = "\n".join(lines) if given.markdown else table
        print(f"{each.photos}\n\n{shown}\n\n{best_line(each)}\n")
    print("\n".join(f"- {note}" for note in notes))
    if given.csv:
        write_csv(given.csv, comparisons)
    if given.page:
        from thaw.report.page import drawn, write_template  # which imports torch

        write_template(
            Path(__file__).with_name("compare.html"), given.page, comparisons=comparisons,
            notes=notes, table_rows=table_rows, best_line=best_line, curves=draw_curves_together,
            drawn=drawn,
        )  # fmt: skip


def choose_metric(runs: Sequence[Run], asked: str | None) -> str:
    """The metric's name without the split; a ConfigError where no run has it."""
    monitors = Counter(str(run.settings.get("monitor")).partition("/")[2] for run in runs)
    name = asked or monitors.most_common(1)[0][0]
    measured = {each.partition("/")[2] for run in runs for each in run.scores}
    known = [each for each in MODES if each in measured]
    check(name in known, "--metric", name, f"what the runs have: {', '.join(known)}")
    return name


def table_rows(comparison: Comparison) -> list[list[str]]:
    """Scores of each group with the paired difference to the best one, and the cost of a run."""
    best, metrics = comparison.best if len(comparison.groups) > 1 else None, comparison.metrics
    against = [f"{name} - best [95 %]" for name in metrics] if best else []
    rows = [["group", "runs", *metrics, *against, "seconds", "parameters trained"]]
    for group in comparison.groups:
        number = len(group.runs)
        cells = [spread_cell([*group.values(name).values()], number) for name in metrics]
        if best:
            cells += ["" if group is best else difference_cell(group.minus(best, name))
                      for name in metrics]  # fmt: skip
        seconds = spread_cell([run.seconds for run in group.runs], number, ".1f")
        rows.append([group.name, str(number), *cells, seconds, f"{group.runs[0].trained:,}"])
    return rows


def spread_cell(values: Sequence[float], number: int, form: str = ".4f") -> str:
    """For example "0.8640 ± 0.0012, of 2", where 2 of a `number` of runs have a finite value."""
    if not values:
        return "none"
    spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    some = f", of {len(values)}" if len(values) < number else ""
    return f"{fmean(values):{form}}{spread}{some}"


def difference_cell(found: Sequence[float]) -> str:
    """For example "+0.0120 [+0.0010, +0.0230] *"; the star says that zero is outside."""
    if len(found) < 3:
        return f"{found[0]:+.4f}, 1 pair: no interval" if found else "no common seed"
    mean, low, high = found
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]{' *' if low > 0 or high < 0 else ''}"


def best_line(comparison: Comparison) -> str:
    """The best run of the best group; the best value of all would tell which fold is easy."""
    group, key = comparison.best, f"val/{comparison.metric}"
    if group is None:
        return "There are no validation photos, so there is no best run."
    values = group.values(key)
    best = (min if MODES[comparison.metric] == "min" else max)(values, key=values.__getitem__)
    folder = next(run.folder for run in group.runs if run.unit == best)
    return f"Best run of the best group: {key} {values[best]:.4f}, {best}, {folder}"


def write_csv(file: Path, comparisons: Sequence[Comparison]) -> None:
    """One row for each run, with every metric and every setting."""
    rows: list[dict[str, Any]] = [
        {"folder": run.folder, "group": group.name, **run.unit._asdict(),
         "train_seconds": run.seconds, **run.facts, **run.settings}
        for each in comparisons for group in each.groups for run in group.runs
    ]  # fmt: skip
    with file.open("w", encoding="utf-8", newline="") as opened:
        names = [*dict.fromkeys(name for row in rows for name in row)]
        writer = csv.DictWriter(opened, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw_curves_together(comparison: Comparison) -> Figure | None:
    """Draws the validation loss and metric of all groups: means, bands of one std, unfreezes."""
    groups = [each for each in comparison.groups if any(run.history for run in each.runs)][:MOST]
    if not groups:
        return None
    figure = Figure(figsize=(10, 4.2 + 0.1 * len(groups)), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2)
    starts = {epoch for group in groups for run in group.runs for epoch in run.unfreeze_epochs}
    metrics = ("loss", "acc" if comparison.metric == "loss" else comparison.metric)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, group in enumerate(groups):
            look = f"{'osD^v'[place % 5]}-", f"C{place}", fill(group.name, 55)
            draw_mean(axes, [run.history for run in group.runs], f"val/{metric}", *look)
        finish_panel(axes, f"validation {TITLES[metric]}", sorted(starts))
    shown = panels[0].get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=2, fontsize=9)
    return figure
