"""What `thaw compare` tells: tables of scores, cost and runs, and notes on how to read them."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from statistics import fmean, stdev
from typing import Any

from thaw.errors import shown
from thaw.tools.compare_groups import Comparison, Difference, Group
from thaw.tools.compare_runs import Run

Rows = list[list[str]]  # the first one is the header

ORDER = (
    "The runs of a group differ in the seed or fold alone. Groups are ordered by the validation "
    "photos; test values are for reporting, and choosing by them would make them too good."
)
ALONE = (
    "A group of one run says nothing about the spread over seeds; run each setting with several: "
    "python train.py -m ... seed=0,1,2"
)
INTERVALS = (
    "± is the standard deviation over the runs. [ ] is the 95 % confidence interval of the mean "
    "difference between runs of equal seed and fold (Student's t); * marks intervals without zero. "
    "It speaks of other seeds on these photos, not of other photos. One of twenty such intervals "
    "is wrong by chance, and the best of many groups looks better than it is."
)
FOLDS = "Folds share training photos, so their intervals are widened (Nadeau and Bengio, 2003)."
CACHED = (
    "Runs share cached features: the first run that needs them computes them, and its seconds are "
    "higher for it. To compare seconds, give each run its own paths.cache_dir."
)


def score_rows(comparison: Comparison) -> Rows:
    """Mean and standard deviation of each group, and the paired difference to the baseline."""
    baseline = comparison.baseline
    against = [f"{name} - baseline [95 %]" for name in comparison.metrics] if baseline else []
    rows = [["group", "runs", *comparison.metrics, *against]]
    for group in comparison.groups:
        cells = [spread_cell(list(group.values(name).values())) for name in comparison.metrics]
        if baseline:
            cells += [_against(group, baseline, name) for name in comparison.metrics]
        rows.append([group.name, str(len(group.runs)), *cells])
    return rows


def _against(group: Group, baseline: Group, metric: str) -> str:
    if group is baseline:
        return "baseline"
    both = group.values(metric) and baseline.values(metric)
    return difference_cell(group.minus(baseline, metric)) if both else "none"


def cost_rows(comparison: Comparison) -> Rows:
    """Seconds, images and trained parameters of each group, as means over its runs."""
    rows = [["group", "seconds of training", "images seen", "images/s", "parameters trained"]]
    for group in comparison.groups:
        seconds = [run.seconds for run in group.runs]
        images = fmean(run.images for run in group.runs)
        speed = f"{images / fmean(seconds):,.0f}" if any(seconds) else ""
        trained = group.runs[0].results.get("trainable_parameters")
        rows.append(
            [group.name, spread_cell(seconds, ".1f"), f"{images:,.0f}", speed,
             "" if trained is None else f"{trained:,}"]
        )  # fmt: skip
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
    group, key = comparison.groups[0], f"val/{comparison.metric}"
    values = group.values(key)
    if not values:
        return "There are no validation photos, so there is no best run."
    pick = min if comparison.metric in ("loss", "ece") else max
    best = pick(values, key=values.__getitem__)
    folder = next(run.folder for run in group.runs if run.unit == best)
    return f"Best run of the best group: {key} {values[best]:.4f}, {best}, {folder}"


def notes_of(comparisons: Sequence[Comparison]) -> list[str]:
    """What must be known to read the tables, and what could lead to wrong conclusions."""
    groups = [group for each in comparisons for group in each.groups]
    runs = [run for group in groups for run in group.runs]
    pairs = [pair.pairs for each in comparisons for pair in _differences(each) if pair.pairs > 1]
    notes = [
        (True, ORDER),
        (any(len(group.runs) < 2 for group in groups), ALONE),
        (any(len(group.runs) > 1 for group in groups), INTERVALS),
        (bool(pairs) and len({run.unit.fold for run in runs}) > 1, FOLDS),
        (any(run.settings.get("finetune.cache_features") for run in runs), CACHED),
    ]
    told = [text for applies, text in notes if applies]
    for name in dict.fromkeys(name for each in comparisons for name in each.metrics):
        lost = [str(run.folder) for run in runs if not isfinite(run.results.get(name) or 0)]
        if lost:
            told.append(f"{name} is not finite, so it is in no mean: {', '.join(lost)}.")
    for name, values in _origins(runs).items():
        if len(values) > 1:
            each = ", ".join(f"{value} ({count})" for value, count in values.items())
            told.append(f"The runs differ in {name}, by which figures may differ too: {each}.")
    return told


def _differences(comparison: Comparison) -> list[Difference]:
    baseline = comparison.baseline
    return [] if baseline is None else [
        group.minus(baseline, name)
        for group in comparison.groups if group is not baseline for name in comparison.metrics
    ]  # fmt: skip


def _origins(runs: Sequence[Run]) -> dict[str, Counter[str]]:
    """What made the runs: name -> value -> how many runs."""
    origins: dict[str, Counter[str]] = {}
    for run in runs:
        versions = run.results.get("versions", {})
        origin = {
            "the metric that chose the checkpoint": run.monitor,
            "the commit of thaw": run.results.get("git"),
            "the device": run.results.get("device"),
            **{f"the version of {name}": version for name, version in versions.items()},
        }
        for name, value in origin.items():
            origins.setdefault(name, Counter())[shown(value)] += 1
    return origins


def as_markdown(rows: Rows) -> str:
    """A table whose columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:]))


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One row for each run, with every metric and every setting."""
    rows = [_csv_row(group, run) for each in comparisons for group in each.groups
            for run in group.runs]  # fmt: skip
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(group: Group, run: Run) -> dict[str, Any]:
    facts = {name: v for name, v in run.results.items() if not isinstance(v, list | dict)}
    settings = {name: value for name, value in run.settings.items() if value is not None}
    first = {"folder": run.folder, "group": group.name, "seed": run.unit.seed,
             "fold": run.unit.fold, "train_seconds": run.seconds, "images": run.images}  # fmt: skip
    return {**first, **facts, **settings}
