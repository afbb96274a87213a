"""The comparison as one HTML page that opens from disk: tables, curves, bars, pictures inline."""

from collections.abc import Sequence
from math import isfinite, nan
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.report.curves import History, finish_panel
from thaw.report.page import drawn, fill_template
from thaw.tools.compare_groups import Comparison, Group
from thaw.tools.compare_tables import best_line, spread_cell, table_rows
from thaw.training.measures import MODES, TITLES

MOST = 10  # groups in a picture: the best by validation, one of matplotlib's ten colours each
MARKS = "osD^v"
FROZEN, UNFROZEN = "#9ecae1", "#08519c"  # light and dark of one blue: also apart in grey
TEMPLATE = Path(__file__).with_name("compare.html")


def html_page(comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """The page: for each set of photos a table, curves and bars; notes on how to read them."""
    return fill_template(
        TEMPLATE, comparisons=comparisons, notes=notes, table_rows=table_rows, best_line=best_line,
        curves=draw_curves_together, bars=draw_bars, drawn=drawn,
    )  # fmt: skip


def draw_curves_together(comparison: Comparison) -> Figure | None:
    """Draws the validation loss and metric of all groups: means, bands of one std, unfreezes."""
    groups = _with_history(comparison)
    if not groups:
        return None
    figure = Figure(figsize=(10, 4.2 + 0.1 * len(groups)), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2)
    starts = {epoch for group in groups for run in group.runs for epoch in run.unfreeze_epochs}
    metrics = ("loss", "acc" if comparison.metric == "loss" else comparison.metric)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, group in enumerate(groups):
            histories = [run.history for run in group.runs]
            look = f"{MARKS[place % 5]}-", f"C{place}", fill(group.name, 55)
            draw_mean(axes, histories, f"val/{metric}", *look)
        finish_panel(axes, f"validation {TITLES[metric]}", sorted(starts))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def draw_mean(
    axes: Axes, histories: Sequence[History], name: str, style: str, colour: str, label: str
) -> None:
    """Draws the mean of one logged metric, and a band of one standard deviation around it.

    Nothing is drawn where no run has the metric. The band covers epochs that several runs have.
    """
    values = values_by_epoch(histories, name)
    if not any(values.values()):
        return
    means = [fmean(each) if each else nan for each in values.values()]  # nan leaves a gap
    axes.plot(list(values), means, style, color=colour, label=label, markersize=4)
    band = {epoch: (fmean(each), stdev(each)) for epoch, each in values.items() if len(each) > 1}
    if band:
        low = [mean - std for mean, std in band.values()]
        high = [mean + std for mean, std in band.values()]
        axes.fill_between(list(band), low, high, color=colour, alpha=0.2, linewidth=0)


def values_by_epoch(histories: Sequence[History], name: str) -> dict[int, list[float]]:
    """Collects one metric: epoch -> its values in all runs, without those that are not finite."""
    values: dict[int, list[float]] = {}
    for row in (row for history in histories for row in history):
        each = values.setdefault(row["epoch"], [])
        if row.get(name) is not None and isfinite(row[name]):
            each.append(row[name])
    return dict(sorted(values.items()))


def draw_bars(comparison: Comparison) -> Figure | None:
    """Draws the best validation value of the frozen and of the unfrozen epochs of each group."""
    metric, groups = comparison.metric, _with_history(comparison)
    values = [[best_values(group, metric, frozen=frozen) for frozen in (True, False)]
              for group in groups]  # fmt: skip
    if not any(all(each) for each in values):
        return None
    figure = Figure(figsize=(9, 1.3 + 0.75 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for part, (label, colour) in enumerate((("frozen", FROZEN), ("unfrozen", UNFROZEN))):
        for place, each in enumerate(values):
            if not each[part]:
                continue
            y = place + (0.38 * part - 0.19 if all(each) else 0)
            axes.barh(y, fmean(each[part]), 0.36, color=colour, label=label)
            axes.plot(each[part], [y] * len(each[part]), "o", color="white",
                      markeredgecolor="black", markeredgewidth=0.7, markersize=3.5)  # fmt: skip
            axes.annotate(spread_cell(each[part], ".3f"), (max(each[part]), y), (6, 0),
                          textcoords="offset points", va="center", fontsize=9)  # fmt: skip
            label = f"_{label}"  # one entry each in the legend
    axes.set_yticks(range(len(groups)), [fill(group.name, 36) for group in groups], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.14)  # bars begin at zero
    axes.set_xlabel(f"validation {TITLES[metric]}, best epoch of each; dots: runs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def best_values(group: Group, metric: str, *, frozen: bool) -> list[float]:
    """The best validation value in the frozen, or else in the unfrozen epochs of each run."""
    pick = max if MODES[metric] == "max" else min
    best = []
    for run in group.runs:
        by_epoch = values_by_epoch([run.epochs(frozen=frozen)], f"val/{metric}")
        values = [value for epoch in by_epoch.values() for value in epoch]
        best += [pick(values)] if values else []
    return best


def _with_history(comparison: Comparison) -> list[Group]:
    return [group for group in comparison.groups if any(run.history for run in group.runs)][:MOST]
