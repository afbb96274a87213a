"""The catalogue as a picture: what accuracy costs in parameters and in compute."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from thaw.backbones.catalogue import Entry
from thaw.errors import ConfigError

GAP = 11  # points between two names, so that they can be read


def draw(entries: Sequence[Entry]) -> Figure:
    """Accuracy against parameters and against compute; the names of those that nothing beats.

    Raises:
        ConfigError: no entry has an accuracy.
    """
    known = [entry for entry in entries if entry.accuracy is not None]
    if not known:
        raise ConfigError(
            "--plot: none of these weights has a published accuracy to draw; torchvision's have "
            "one, timm's do not"
        )
    figure = Figure(figsize=(13, 6.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _scatter(left, known, lambda entry: entry.parameters / 1e6)
    _scatter(right, known, lambda entry: entry.gflops)
    left.set(xlabel="parameters, millions", ylabel="ImageNet-1k top-1 accuracy, %")
    right.set(xlabel="GFLOPs for one picture (a multiply-add is one)")
    right.legend(loc="lower right")  # where neither has points
    return figure


def best(entries: Sequence[Entry], cost: Callable[[Entry], float]) -> list[Entry]:
    """Those than which no other is as cheap and more accurate, cheapest first."""
    found: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: (cost(entry), -(entry.accuracy or 0))):
        if not found or (entry.accuracy or 0) > (found[-1].accuracy or 0):
            found.append(entry)
    return found


def _scatter(axes: Axes, entries: Sequence[Entry], cost: Callable[[Entry], float]) -> None:
    front = best(entries, cost)
    rest = [entry for entry in entries if entry not in front]
    axes.set_xscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.scatter(
        [cost(entry) for entry in rest], [entry.accuracy or 0 for entry in rest],
        s=18, color="0.6", label="weights",
    )  # fmt: skip
    axes.plot(
        [cost(entry) for entry in front], [entry.accuracy or 0 for entry in front], "o-",
        color="tab:blue", markersize=5, linewidth=1, label="none is cheaper and more accurate",
    )  # fmt: skip
    axes.margins(y=0.05)
    low, high = min(map(cost, entries)), max(map(cost, entries))
    axes.set_xlim(left=low / max(2.0, (high / low) ** 0.25))  # room for names
    _write_names(axes, front, cost)


def _write_names(axes: Axes, front: Sequence[Entry], cost: Callable[[Entry], float]) -> None:
    """Left of and above their points, where the picture is empty; where two would meet, one."""
    figure = axes.get_figure()
    assert figure is not None
    points_a_percent = 72 * 5.2 / (axes.get_ylim()[1] - axes.get_ylim()[0])  # 5.2 inches high
    written: float | None = None
    for entry in reversed(front):
        height = (entry.accuracy or 0) * points_a_percent
        if written is None or written - height >= GAP:
            axes.annotate(
                entry.name, (cost(entry), entry.accuracy or 0), xytext=(-5, 3),
                textcoords="offset points", ha="right", fontsize=8,
            )  # fmt: skip
            written = height
