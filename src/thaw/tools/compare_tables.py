"""What `thaw compare` tells: one table, one row for each group, and notes on how to read it."""

import csv
import io
from collections.abc import Sequence
from math import isfinite
from statistics import fmean, stdev
from typing import Any

from thaw.tools.compare_groups import Comparison, Difference
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
        trained = group.runs[0].results["trainable_parameters"]
        cost = [spread_cell(seconds, ".1f"), f"{speed:,.0f}", f"{trained:,}"]
        rows.append([group.name, str(len(group.runs)), *cells, *cost])
    return rows


def spread_cell(values: Sequence[float], form: str = ".4f") -> str:
    """For example "0.8640 ± 0.0012"; without ± where there is one value."""
    if not values:
        return "none"
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):{form}}" if len(values) > 1 else "")


def difference_cell(difference: Difference) -> str:
    """For example "+0.0120 [+0.0010, +0.0230] *"; the star says that zero is outside."""
    if difference.mean is None:
        return "no common seed"
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.4f}, 1 pair: no interval"
    star = " *" if difference.low > 0 or difference.high < 0 else ""
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]{star}"


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
        lost = [str(run.folder) for run in runs if not isfinite(run.results.get(name) or 0)]
        if lost:
            told.append(f"{name} is not finite, so it is in no mean: {', '.join(lost)}.")
    return told


def as_markdown(rows: Rows) -> str:
    """A table whose columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:]))


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One row for each run, with every metric and every setting."""
    rows: list[dict[str, Any]] = []
    for group in (group for each in comparisons for group in each.groups):
        for run in group.runs:
            first = {"folder": run.folder, "group": group.name, **run.unit._asdict(),
                     "train_seconds": run.seconds, "images": run.images}  # fmt: skip
            facts = {name: v for name, v in run.results.items() if not isinstance(v, list | dict)}
            rows.append({**first, **facts, **run.settings})
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
