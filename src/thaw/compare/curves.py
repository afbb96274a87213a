"""Curves by epoch, of one run or of several that differ in the seed, with the unfreeze marked."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thaw.training.measures import TITLES

History = Sequence[Mapping[str, Any]]  # the rows of history.json, one an epoch


def draw_curves(history: History, unfreeze_epochs: Sequence[int] = ()) -> Figure:
    """Loss and accuracy of training and validation by epoch, a line where a phase begins."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "acc"), strict=True):
        draw_panel(axes, [history], metric, unfreeze_epochs)
        axes.legend()
    return figure


def draw_panel(
    axes: Axes, histories: Sequence[History], metric: str, unfreeze_epochs: Sequence[int]
) -> None:
    """One metric of both splits: means over the runs, a band of one standard deviation around."""
    for split, style, colour in (("train", "o--", "tab:blue"), ("val", "o-", "tab:orange")):
        draw_mean(axes, histories, f"{split}/{metric}", style, colour, split)
    mark_unfreeze(axes, unfreeze_epochs)
    axes.set_xlabel("epoch")
    axes.set_ylabel(TITLES[metric])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def draw_mean(
    axes: Axes, histories: Sequence[History], name: str, style: str, colour: str, label: str
) -> None:
    """The line of one metric, with its band; nothing where no run has it."""
    rows = by_epoch(histories, name)
    if not any(values for values in rows.values()):
        return
    epochs = [epoch + 1 for epoch in rows]
    means = [fmean(values) if values else None for values in rows.values()]
    axes.plot(epochs, means, style, color=colour, label=label, markersize=4)  # pyright: ignore[reportArgumentType]  None is a gap
    spread = {
        epoch + 1: (fmean(values), stdev(values))
        for epoch, values in rows.items()
        if len(values) > 1
    }
    if spread:
        low = [mean - wide for mean, wide in spread.values()]
        high = [mean + wide for mean, wide in spread.values()]
        axes.fill_between(list(spread), low, high, color=colour, alpha=0.2, linewidth=0)


def mark_unfreeze(axes: Axes, unfreeze_epochs: Sequence[int]) -> None:
    """A vertical line between the last epoch of a phase and the first of the next."""
    for number, epoch in enumerate(unfreeze_epochs):
        label = "unfreeze" if number == 0 else "_unfreeze"  # one entry in the legend
        axes.axvline(epoch + 0.5, color="0.4", linestyle=":", label=label)


def by_epoch(histories: Sequence[History], name: str) -> dict[int, list[float]]:
    """Epoch, from 0 -> the values of all runs that have one there; not those that diverged, of
    which there is no mean."""
    values: dict[int, list[float]] = {}
    for row in (row for history in histories for row in history):
        found = values.setdefault(row["epoch"], [])
        if row.get(name) is not None and isfinite(row[name]):
            found.append(row[name])
    return dict(sorted(values.items()))


def phase_starts(history: History) -> tuple[int, ...]:
    """Epochs, from 0, at which a later phase began."""
    return tuple(
        row["epoch"] for before, row in pairwise(history) if row["phase"] != before["phase"]
    )
