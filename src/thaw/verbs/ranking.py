"""Backbones in order of their probe: the table and the picture of `thaw rank`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from thaw.features.scores import FOLDS, Probe, difference
from thaw.verbs.subject import table_of

MARKERS = "os^vDPX"  # a further one for every ten backbones
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
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    titles = ("forward pass", "training step, everything unfrozen")
    for axes, title, field in zip(both, titles, ("forward", "training"), strict=True):
        points = [(1000 / getattr(scored, field), scored.probe) for scored in ranked]
        axes.plot(*zip(*front(points), strict=True), color="0.75", linewidth=1, zorder=1,
                  drawstyle="steps-post")  # fmt: skip
        for place, (scored, (seconds, accuracy)) in enumerate(zip(ranked, points, strict=True)):
            color, marker = f"C{place % 10}", MARKERS[place // 10 % len(MARKERS)]
            area = 20 + 4 * scored.parameters / 1e6
            error = scored.probe_error
            axes.errorbar(seconds, accuracy, yerr=error, ecolor=color, capsize=2, zorder=2)
            axes.scatter(seconds, accuracy, s=area, color=color, marker=marker, alpha=0.8, zorder=3)
        axes.set_xscale("log")
        slow, fast = max(points)[0], min(points)[0]
        subs = (1, 2, 5) if slow > 8 * fast else (1, 1.5, 2, 3, 4, 5, 7)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.margins(x=0.1)
        axes.grid(alpha=0.3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("seconds per 1,000 images")
    both[0].set_ylabel("accuracy of the probe")
    figure.suptitle("Area: parameters. Line: nothing is both faster and better.", fontsize=10)
    handles = [
        Line2D([], [], color=f"C{place % 10}", marker=MARKERS[place // 10 % len(MARKERS)],
               linestyle="", label=f"{place + 1}. {scored.name}")
        for place, scored in enumerate(ranked)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside right upper", fontsize=9)
    return figure


def front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no faster one is better than."""
    found: list[tuple[float, float]] = []
    for seconds, accuracy in sorted(points):
        if not found or accuracy > found[-1][1]:
            found.append((seconds, accuracy))
    return found
