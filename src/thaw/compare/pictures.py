"""Groups of runs as pictures: curves, accuracy before and after the unfreeze and by seconds."""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thaw.compare.curves import draw_mean, draw_panel, mark_unfreeze
from thaw.compare.paired import spread
from thaw.compare.run_groups import Group, Section
from thaw.training.measures import MODES, TITLES

MOST = 12  # groups that a picture can hold; the best by validation are shown
# matplotlib's ten, and two more that stay apart from them
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink",
           "tab:gray", "tab:olive", "tab:cyan", "black", "gold")  # fmt: skip
MARKS = "osD^vP"
FROZEN, UNFROZEN = "#9ecae1", "#08519c"  # light and dark of one blue: also apart in grey
# Phases of one-phase modes in which the body stands still (finetune.py names them).
FROZEN_PHASES = ("frozen", "classifier")


def curves(section: Section) -> Figure | None:
    """Loss and metric of training and validation, one row a group, a line at each unfreeze."""
    groups = [group for group in section.groups if _histories(group)][:MOST]
    if not groups:
        return None
    metrics = ("loss", "acc" if section.metric == "loss" else section.metric)
    figure = Figure(figsize=(10, 0.9 + 2.5 * len(groups)), layout="constrained")
    places = figure.subplots(len(groups), 2, squeeze=False, sharex=True, sharey="col")
    looks = {}
    for row, group in zip(places, groups, strict=True):
        for axes, metric in zip(row, metrics, strict=True):
            draw_panel(axes, _histories(group), metric, group.unfreeze_epochs)
            if group is not groups[-1]:
                axes.set_xlabel("")
            looks |= {line.get_label(): line for line in axes.get_legend_handles_labels()[0]}
        row[0].set_title(_wrapped(group.name, 56), loc="left", fontsize=10, fontweight="bold")
        row[1].set_title(_seeds(group), loc="right", fontsize=9, color="0.35")
    figure.legend(handles=list(looks.values()), loc="outside upper right", ncols=3, frameon=False)
    return figure


def together(section: Section) -> Figure | None:
    """Validation loss and metric of all groups, a colour each."""
    groups = [group for group in section.groups if _histories(group)][:MOST]
    if len(groups) < 2:
        return None
    metrics = ("loss", "acc" if section.metric == "loss" else section.metric)
    figure = Figure(figsize=(10, 4.2 + 0.2 * _lines(groups)), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, group in enumerate(groups):
            draw_mean(axes, _histories(group), f"val/{metric}", f"{MARKS[place % 6]}-",
                      COLOURS[place], _wrapped(group.name, 50))  # fmt: skip
        mark_unfreeze(axes, sorted({epoch for group in groups for epoch in group.unfreeze_epochs}))
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation {TITLES[metric]}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def unfreeze_bars(section: Section) -> Figure | None:
    """Best validation value of the frozen epochs beside the best of the unfrozen ones.

    The best of each, so that neither has the advantage of a choice. None where no run has both.
    """
    groups = [group for group in section.groups if any(phase_values(group, section.metric))][:MOST]
    both = [group for group in groups if all(phase_values(group, section.metric))]
    if not both:
        return None
    figure = Figure(figsize=(9, 1.3 + 0.75 * len(groups)), layout="constrained")
    axes = figure.subplots()
    parts = [("frozen", FROZEN, -0.19), ("unfrozen", UNFROZEN, 0.19)]
    for part, (label, colour, aside) in enumerate(parts):
        for place, group in enumerate(groups):
            values = phase_values(group, section.metric)[part]
            if not values:
                continue
            shift = aside if group in both else 0
            found = spread(values)
            assert found.mean is not None
            axes.barh(place + shift, found.mean, 0.36, color=colour, label=label)
            axes.plot(values, [place + shift] * len(values), "o", color="white",
                      markeredgecolor="black", markeredgewidth=0.7, markersize=3.5)  # fmt: skip
            text = f"{found.mean:.3f}" + (f" ± {found.std:.3f}" if found.std is not None else "")
            axes.annotate(text, (max(values), place + shift), (6, 0), textcoords="offset points",
                          va="center", fontsize=9)  # fmt: skip
            label = f"_{label}"  # one entry each in the legend
    axes.set_yticks(range(len(groups)), [_wrapped(group.name, 34) for group in groups], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.14)
    axes.set_xlabel(f"validation {TITLES[section.metric]}, best epoch of each; dots: runs")
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def cost(section: Section) -> Figure | None:
    """The metric against seconds of training; on test photos where every group has them."""
    split = "test" if section.measured_by_all("test") else "val"
    metric = f"{split}/{section.metric}"
    groups = [group for group in section.groups if group.values(metric)][:MOST]
    if not groups:
        return None
    figure = Figure(figsize=(9, 4.2 + 0.2 * _lines(groups)), layout="constrained")
    axes = figure.subplots()
    every = []
    for place, group in enumerate(groups):
        found = group.values(metric)
        runs = [run for run in group.runs if run.unit in found]
        seconds = [run.train_seconds for run in runs]
        values = list(found.values())
        every += seconds
        look: dict[str, Any] = {
            "color": COLOURS[place],
            "marker": MARKS[place % 6],
            "edgecolor": "black",
        }
        if len(runs) > 1:
            axes.scatter(seconds, values, s=18, alpha=0.6, linewidths=0.3, **look)
        axes.scatter(fmean(seconds), fmean(values), s=90, linewidths=0.8,
                     label=_wrapped(group.name, 50), **look)  # fmt: skip
    if min(every) > 0 and max(every) > 10 * min(every):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    elif min(every) > 0:
        axes.set_xlim(left=0)
    axes.set_xlabel("seconds of training, validation included")
    axes.set_ylabel({"val": "validation", "test": "test"}[split] + f" {TITLES[section.metric]}")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def phase_values(group: Group, metric: str) -> tuple[list[float], list[float]]:
    """Best validation values within the frozen and within the unfrozen epochs, one for each run.

    The first phase of several is the frozen one; of one-phase modes the name says it.
    """
    frozen, unfrozen = [], []
    for run in group.runs:
        first = run.history[0]["phase"] if run.history else ""
        alone = all(row["phase"] == first for row in run.history)
        stands = not alone or first in FROZEN_PHASES
        for values, inside in ((frozen, True), (unfrozen, False)):
            rows = [row for row in run.history if (row["phase"] == first and stands) == inside]
            values += _best(rows, f"val/{metric}", MODES[metric])
    return frozen, unfrozen


def _best(rows: Sequence[Mapping[str, Any]], name: str, mode: str) -> list[float]:
    values = [row[name] for row in rows if row.get(name) is not None and isfinite(row[name])]
    return [max(values) if mode == "max" else min(values)] if values else []


def _histories(group: Group) -> list[Sequence[Mapping[str, Any]]]:
    return [run.history for run in group.runs if run.history]


def _seeds(group: Group) -> str:
    """What the line and the band are of."""
    number = len(_histories(group))
    return "1 run" if number == 1 else f"{number} runs: mean, band of one standard deviation"


def _wrapped(name: str, width: int) -> str:
    """A long name in lines, broken between settings."""
    lines = [""]
    for word in name.split(", "):
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += f", {word}" if lines[-1] else word
    return ",\n".join(lines)


def _lines(groups: Sequence[Group]) -> int:
    """Lines of a legend of two columns."""
    return sum(_wrapped(group.name, 50).count("\n") + 1 for group in groups) // 2
