"""The comparison as one HTML page that opens from disk: tables, curves, bars, pictures inline."""

from collections.abc import Sequence
from math import isfinite, nan
from pathlib import Path
from statistics import fmean
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.report.curves import draw_mean, finish_panel
from thaw.report.page import drawn, fill_template
from thaw.tools.compare import best_line, spread_cell, table_rows
from thaw.tools.compare_groups import Comparison, Group
from thaw.training.measures import MODES, TITLES

MOST = 10  # groups in a picture: the best by validation, one of matplotlib's ten colours each
MARKS = "osD^v"
TEMPLATE = Path(__file__).with_name("compare.html")


def html_page(comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """The page: for each set of photos a table, curves and bars; notes on how to read them."""
    return fill_template(
        TEMPLATE, comparisons=comparisons, notes=notes, table_rows=table_rows, best_line=best_line,
        curves=draw_curves_together, bars=bars, drawn=drawn,
        titles=TITLES,
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


def bars(comparison: Comparison) -> list[tuple[str, str, float, str]]:
    """Name of a group, "frozen" or "unfrozen", the mean of the best epochs, and what to write.

    Empty where no group has epochs of both kinds.
    """
    found, both = [], False
    for group in _with_history(comparison):
        values = {kind: best_values(group, comparison.metric, frozen=kind == "frozen")
                  for kind in ("frozen", "unfrozen")}  # fmt: skip
        found += [(group.name, kind, fmean(each), spread_cell(each, ".3f"))
                  for kind, each in values.items() if each]  # fmt: skip
        both = both or all(values.values())
    return found if both else []


def best_values(group: Group, metric: str, *, frozen: bool) -> list[float]:
    """The best validation value in the frozen, or else in the unfrozen epochs of each run."""
    pick, name, best = max if MODES[metric] == "max" else min, f"val/{metric}", []
    for run in group.runs:
        values = [row.get(name, nan) for row in run.history if row["frozen"] == frozen]
        finite = [value for value in values if isfinite(value)]
        best += [pick(finite)] if finite else []
    return best


def _with_history(comparison: Comparison) -> list[Group]:
    return [group for group in comparison.groups if any(run.history for run in group.runs)][:MOST]
