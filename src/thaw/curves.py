"""Loss and accuracy by epoch as a picture, with the moments marked at which the body unfreezes.

One run is drawn by itself; several runs that differ only in the seed are drawn as their mean with a
band around it.
"""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thaw.training.measures import TITLES

History = Sequence[Mapping[str, Any]]  # the rows of history.json: one for each epoch, from 1


def draw_curves(history: History, unfreeze_epochs: Sequence[int] = ()) -> Figure:
    """Draws the loss and the accuracy of one run for training and validation.

    Args:
        history: The rows of history.json.
        unfreeze_epochs: How many epochs are done when a later phase begins, as in
            `finetune.unfreeze_epoch=5`; a dotted line is drawn after each of these epochs.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "acc"), strict=True):
        draw_panel(axes, [history], metric, unfreeze_epochs)
        axes.legend()
    return figure


def draw_panel(
    axes: Axes, histories: Sequence[History], metric: str, unfreeze_epochs: Sequence[int]
) -> None:
    """Draws one metric for training and validation, as the mean over the runs."""
    draw_mean(axes, histories, f"train/{metric}", "o--", "tab:blue", "train")
    draw_mean(axes, histories, f"val/{metric}", "o-", "tab:orange", "val")
    finish_panel(axes, TITLES[metric], unfreeze_epochs)


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


def finish_panel(axes: Axes, ylabel: str, unfreeze_epochs: Sequence[int]) -> None:
    """Names the axes and draws a line between the last epoch of a phase and the next phase."""
    for number, epoch in enumerate(unfreeze_epochs):
        label = "unfreeze" if number == 0 else "_unfreeze"  # one entry in the legend
        axes.axvline(epoch + 0.5, color="0.4", linestyle=":", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def values_by_epoch(histories: Sequence[History], name: str) -> dict[int, list[float]]:
    """Collects one metric: epoch -> its values in all runs, without those that are not finite."""
    values: dict[int, list[float]] = {}
    for row in (row for history in histories for row in history):
        each = values.setdefault(row["epoch"], [])
        if row.get(name) is not None and isfinite(row[name]):
            each.append(row[name])
    return dict(sorted(values.items()))
