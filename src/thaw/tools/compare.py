"""Compare runs: `thaw compare FOLDER...`.

    thaw compare logs/train/multiruns/2026-01-31_12-00-00
    thaw compare logs/train/runs/* --metric acc_macro --page compare.html

Runs that differ in the seed or fold alone are a group: mean, difference to the best one, cost.
"""

import csv
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from thaw.errors import ConfigError
from thaw.text_table import text_table
from thaw.tools.compare_groups import Comparison, group_runs
from thaw.tools.compare_runs import Run, find_runs, last_of_each, read_run
from thaw.training.measures import MODES

Rows = list[list[str]]  # the first one is the header

ORDER = (
    "The runs of a group differ in the seed or fold alone. Groups are ordered by the validation "
    "photos; choosing by test values would make them too good."
)
ALONE = "A group of one run says nothing about the spread over seeds: run -m ... seed=0,1,2."
INTERVALS = (
    "± is the standard deviation over the runs. [ ] is the 95 % confidence interval of the mean "
    "difference to the best group between runs of equal seed and fold (Student's t); * marks "
    "intervals without zero. It speaks of other seeds, not of other photos. One of twenty is wrong "
    "by chance, and the best of many groups looks better than it is."
)
FOLDS = "Folds share training photos, so their intervals are widened (Nadeau and Bengio, 2003)."
CACHED = "Runs share cached features: the first run that needs them takes longer."


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Reads the runs, prints the comparison and writes the files that were asked for."""
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="runs, sweeps, or folders above them")
    add("--metric", choices=MODES, help="default: the one that chose checkpoints")
    add("--markdown", action="store_true", help="print Markdown")
    add("--csv", type=Path, metavar="FILE", help="write one row for each run")
    add("--page", type=Path, metavar="FILE", help="write one HTML page with curves and bars")
    given = parser.parse_args(words)
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
        write_csv(given.csv, comparisons)
    if given.page:
        from thaw.tools.compare_page import html_page  # which imports torch

        given.page.write_text(html_page(comparisons, notes), encoding="utf-8")


def choose_metric(runs: Sequence[Run], asked: str | None) -> str:
    """The metric's name without the split; a ConfigError where no run has it."""
    name = asked or Counter(run.monitor.partition("/")[2] for run in runs).most_common(1)[0][0]
    measured = {each for run in runs for each in run.scores}
    known = [each for each in MODES if {f"val/{each}", f"test/{each}"} & measured]
    if name not in known:
        raise ConfigError(f"--metric {name}: no run has it; allowed here: {', '.join(known)}")
    return name


def table_rows(comparison: Comparison) -> Rows:
    """Scores of each group with the paired difference to the best one, and the cost of a run."""
    best, metrics = comparison.best if len(comparison.groups) > 1 else None, comparison.metrics
    against = [f"{name} - best [95 %]" for name in metrics] if best else []
    rows = [["group", "runs", *metrics, *against, "seconds", "images/s", "parameters trained"]]
    for group in comparison.groups:
        cells = [spread_cell(list(group.values(name).values())) for name in metrics]
        if best:
            cells += ["" if group is best else difference_cell(group.minus(best, name))
                      for name in metrics]  # fmt: skip
        seconds = [run.seconds for run in group.runs]
        speed = sum(run.images for run in group.runs) / (sum(seconds) or 1)
        cost = [spread_cell(seconds, ".1f"), f"{speed:,.0f}", f"{group.runs[0].trained:,}"]
        rows.append([group.name, str(len(group.runs)), *cells, *cost])
    return rows


def spread_cell(values: Sequence[float], form: str = ".4f") -> str:
    """For example "0.8640 ± 0.0012"; without ± where there is one value."""
    if not values:
        return "none"
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")


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


def notes_of(comparisons: Sequence[Comparison]) -> list[str]:
    """What must be known to read the table, and what could lead to wrong conclusions."""
    groups = [group for each in comparisons for group in each.groups]
    runs = [run for group in groups for run in group.runs]
    notes = [
        (True, ORDER),
        (any(len(group.runs) < 2 for group in groups), ALONE),
        (any(len(group.runs) > 1 for group in groups), INTERVALS),
        (len({run.unit.fold for run in runs}) > 1, FOLDS),
        (any(run.settings.get("finetune.cache_features") for run in runs), CACHED),
    ]
    told = [text for applies, text in notes if applies]
    for name in dict.fromkeys(name for each in comparisons for name in each.metrics):
        lost = [str(run.folder) for run in runs if not isfinite(run.scores.get(name, 0))]
        if lost:
            told.append(f"{name} is not finite, so it is in no mean: {', '.join(lost)}.")
    return told


def as_markdown(rows: Rows) -> str:
    """A table whose columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:]))


def write_csv(file: Path, comparisons: Sequence[Comparison]) -> None:
    """One row for each run, with every metric and every setting."""
    rows: list[dict[str, Any]] = []
    for group in (group for each in comparisons for group in each.groups):
        for run in group.runs:
            first = {"folder": run.folder, "group": group.name, **run.unit._asdict(),
                     "train_seconds": run.seconds, "images": run.images}  # fmt: skip
            facts = {name: v for name, v in run.results.items() if not isinstance(v, list | dict)}
            rows.append({**first, **facts, **run.settings})
    with file.open("w", encoding="utf-8", newline="") as opened:
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(opened, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
