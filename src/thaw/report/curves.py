"""Loss, accuracy and rates by epoch as pictures, with the moments at which a run unfreezes."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

TITLES = {
    "loss": "loss", "acc": "accuracy", "acc_top5": "top-5 accuracy",
    "acc_macro": "mean class accuracy", "f1": "macro F1", "ece": "calibration error",
    "ece_uncalibrated": "calibration error before the temperature",
}  # fmt: skip
History = Sequence[Mapping[str, Any]]  # the rows of history.json: one for each epoch, from 1
PANEL = (5, 3.8)  # inches


def draw_curves(
    history: History, unfreeze_epochs: Sequence[int] = (), metrics: Sequence[str] = ("loss", "acc")
) -> Figure:
    """Draws a panel for each metric by epoch, and a dotted line after the last epoch of a phase."""
    figure = Figure(figsize=(PANEL[0] * len(metrics), PANEL[1]), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for split, style, colour in (("train", "o--", "tab:blue"), ("val", "o-", "tab:orange")):
            draw_mean(axes, [history], f"{split}/{metric}", style, colour, split)
        finish_panel(axes, TITLES[metric], unfreeze_epochs)
        if axes.lines:  # none where nothing is finite
            axes.legend()
    return figure


def draw_rates(history: History, unfreeze_epochs: Sequence[int] = ()) -> Figure:
    """Draws the rate of each layer group in the middle of each epoch: purple stem, orange head."""
    figure = Figure(figsize=PANEL, layout="constrained")
    axes = figure.subplots()
    groups = [name for name in history[-1]["rates"] if any(row["rates"][name] for row in history)]
    for place, group in enumerate(groups):
        rows = [{"epoch": row["epoch"], group: row["rates"][group] or nan} for row in history]
        colour = matplotlib.colormaps["plasma"](0.2 + 0.5 * place / max(1, len(groups) - 1))
        label = group if place in (0, len(groups) - 1) else f"_{group}"  # not in the legend
        draw_mean(axes, [rows], group, "o-", colour, label)
    axes.set_yscale("log")
    finish_panel(axes, "learning rate", unfreeze_epochs)
    axes.legend()
    return figure


def draw_mean(
    axes: Axes, histories: Sequence[History], name: str, style: str, colour: Any, label: str
) -> None:
    """Draws a metric: the mean over runs, in a band of one deviation; gaps where none is finite."""
    epochs = sorted({row["epoch"] for history in histories for row in history})
    by_epoch = [{row["epoch"]: row.get(name) for row in history} for history in histories]
    rows = [[values.get(epoch) for epoch in epochs] for values in by_epoch]
    table = np.ma.masked_invalid(np.array(rows, float))  # runs x epochs; None becomes nan
    if not table.count():
        return
    mean, std = table.mean(0), table.std(0, ddof=1)
    axes.plot(epochs, mean, style, color=colour, label=label, markersize=4)
    if std.count():
        axes.fill_between(epochs, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)


def finish_panel(axes: Axes, ylabel: str, unfreeze_epochs: Sequence[int]) -> None:
    """Names the axes, and draws a dotted line after each of `unfreeze_epochs`, from 1."""
    for number, epoch in enumerate(unfreeze_epochs):
        label = "unfreeze" if number == 0 else "_unfreeze"  # one entry in the legend
        axes.axvline(epoch + 0.5, color="0.4", linestyle=":", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
