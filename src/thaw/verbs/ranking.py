"""Backbones in order of their probe: the table and the picture of `thaw rank`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from thaw.scores import FOLDS, Probe, difference
from thaw.verbs.subject import table_of

NOISE = 2  # standard errors of a difference that could be chance


@dataclass(frozen=True)
class Scored:
    """A backbone and what was measured of it.

    Attributes:
        name, weights: as chosen.
        size: of the input, pixels.
        parameters: of the body.
        width: D.
        probe, probe_error: accuracy 0-1 of the cross-validated linear probe, its standard error.
        knn, neighbours: accuracy 0-1 of the nearest neighbours, and their number.
        logme: see `scores.logme`.
        forward, training: images a second, see `speed.Speed`.
    """

    name: str
    weights: str
    size: int
    parameters: int
    width: int
    probe: float
    probe_error: float
    knn: float
    neighbours: int
    logme: float
    forward: float
    training: float


def report(found: Sequence[tuple[Scored, Probe]], failed: Mapping[str, str]) -> str:
    """The ranked table, how to read it, and why others are not in it.

    Args:
        found: best probe first; all of them of the same photos.
        failed: name -> reason.
    """
    head = ["backbone", "pixels", "parameters", "D", "probe", "behind", "kNN", "LogME",
            "images/s", "training"]  # fmt: skip
    rows = [head]
    best = found[0][1]
    for place, (scored, probed) in enumerate(found):
        gap, error = difference(best.right, probed.right)
        sure = gap > NOISE * error
        behind = "" if place == 0 else f"{100 * gap:.1f}{'' if sure else ' ~'}"
        rows.append([
            f"{place + 1}. {scored.name}", str(scored.size), f"{scored.parameters / 1e6:.1f} M",
            str(scored.width), f"{100 * scored.probe:.1f} +-{100 * scored.probe_error:.1f}",
            behind, f"{100 * scored.knn:.1f}", f"{scored.logme:.3f}", f"{scored.forward:.0f}",
            f"{scored.training:.0f}",
        ])  # fmt: skip
    lines = [
        table_of(rows),
        "",
        f"Ranked by probe: percent right of a linear classifier, {FOLDS}-fold cross-validated on "
        f"{len(best.right):,} photos, with its standard",
        "error; no test photo is among them. behind: points behind the first on the same photos; "
        f"~ less than {NOISE} standard",
        "errors, so it may be chance. kNN: percent right by nearest neighbours. images/s: of a "
        "forward pass; training:",
        "of a training step with everything unfrozen; both without decoding.",
    ]
    lines += [f"left out: {name}: {reason}" for name, reason in failed.items()]
    return "\n".join(lines)


def draw(ranked: Sequence[Scored]) -> Figure:
    """Accuracy of the probe against seconds per 1,000 images, of inference and of training."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    titles = ("forward pass", "training step, everything unfrozen")
    for axes, title, field in zip(both, titles, ("forward", "training"), strict=True):
        seconds = [1000 / getattr(scored, field) for scored in ranked]
        accuracies = [scored.probe for scored in ranked]
        errors = [scored.probe_error for scored in ranked]
        areas = [20 + 6 * scored.parameters / 1e6 for scored in ranked]
        front = _front(list(zip(seconds, accuracies, strict=True)))
        axes.plot(*zip(*front, strict=True), color="0.75", linewidth=1, zorder=1,
                  drawstyle="steps-post")  # fmt: skip
        axes.errorbar(seconds, accuracies, errors, fmt="none", ecolor="0.6", capsize=2, zorder=2)
        axes.scatter(seconds, accuracies, areas, alpha=0.8, zorder=3)
        axes.set_xscale("log")
        axes.set_xlim(min(seconds) / 1.6, max(seconds) * 2.2)  # room for names
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(alpha=0.3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("seconds per 1,000 images")
    both[0].set_ylabel("accuracy of the probe")
    figure.suptitle("Area: parameters. Line: nothing is both faster and better.", fontsize=10)
    figure.draw_without_rendering()  # places are known from here on
    for axes, field in zip(both, ("forward", "training"), strict=True):
        points = [(1000 / getattr(scored, field), scored.probe) for scored in ranked]
        _label(axes, points, [scored.name for scored in ranked])
    return figure


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no faster one is better than."""
    front: list[tuple[float, float]] = []
    for seconds, accuracy in sorted(points):
        if not front or accuracy > front[-1][1]:
            front.append((seconds, accuracy))
    return front


def _label(axes: Axes, points: list[tuple[float, float]], names: list[str]) -> None:
    """Names beside their points, each where it covers nothing that is there already."""
    taken: list[Bbox] = []
    for x, y in axes.transData.transform(points):  # pixels
        taken.append(Bbox([[x - 5, y - 5], [x + 5, y + 5]]))
    for point, name in zip(points, names, strict=True):
        text = axes.annotate(name, point, (0, 0), textcoords="offset points", fontsize=8)
        text.set_in_layout(False)  # the layout stands
        for side, up in product((1, -1), (5, -12, 15, -22, 25, -32)):
            text.set_horizontalalignment("left" if side > 0 else "right")
            text.set_position((7 * side, up))
            box = text.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(text.get_window_extent())
