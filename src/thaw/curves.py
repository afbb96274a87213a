"""Loss and accuracy of a run by epoch as a picture, with the moments at which it unfreezes."""

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thaw.training.measures import TITLES

History = Sequence[Mapping[str, Any]]  # the rows of history.json: one for each epoch, from 1


def draw_curves(history: History, unfreeze_epochs: Sequence[int] = ()) -> Figure:
    """Draws loss and accuracy by epoch, and a dotted line after the last epoch of each phase."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "acc"), strict=True):
        for split, style, colour in (("train", "o--", "tab:blue"), ("val", "o-", "tab:orange")):
            values = [row.get(f"{split}/{metric}", nan) for row in history]  # nan leaves a gap
            if any(f"{split}/{metric}" in row for row in history):
                axes.plot(epochs, values, style, color=colour, label=split, markersize=4)
        finish_panel(axes, TITLES[metric], unfreeze_epochs)
        axes.legend()
    return figure


def finish_panel(axes: Axes, ylabel: str, unfreeze_epochs: Sequence[int]) -> None:
    """Names the axes, and draws a dotted line after each of `unfreeze_epochs`, from 1."""
    for number, epoch in enumerate(unfreeze_epochs):
        label = "unfreeze" if number == 0 else "_unfreeze"  # one entry in the legend
        axes.axvline(epoch + 0.5, color="0.4", linestyle=":", label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
