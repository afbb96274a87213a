"""Draws the systems that bench.py measured."""

from pathlib import Path
from statistics import fmean

from bench_page import NETWORKS, TABLES, Results, mean, rows_of, seconds_of
from bench_runs import TITLES
from job import BACKBONES
from matplotlib.figure import Figure
from matplotlib.patches import Patch

COLOURS = {"set-up": "0.75", "frozen": "tab:blue", "unfrozen": "tab:orange"}


def draw(results: Results, path: Path) -> None:
    """Seconds and accuracy of the systems of both tables, side by side, with the first network
    that was measured.
    """
    bars, backbone = {}, ""
    for backbone in BACKBONES:
        for table in TABLES:
            for name, runs in rows_of(results, backbone, table).items():
                tuned = ", tuned" if runs[0]["table"] == "tuned" else ""
                bars[TITLES[name] + tuned] = runs
        if bars:
            break
    if not bars:
        return
    figure = Figure(figsize=(10, 1.6 + 0.4 * len(bars)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for title, runs in sorted(bars.items(), key=lambda bar: mean(bar[1], "test")):
        begin = 0.0
        parts = {phase: seconds_of(runs, phase) for phase in ("frozen", "unfrozen")}
        # set-up: imports, weights, files; what is in neither phase
        parts = {"set-up": seconds_of(runs, "trained") - sum(parts.values()), **parts}
        for part, seconds in parts.items():
            left.barh(title, seconds, left=begin, color=COLOURS[part])
            begin += seconds
        tests = [100 * run["test"] for run in runs]
        right.plot(tests, [title] * len(tests), "o", color="0.6", markersize=4)
        right.plot([fmean(tests)], [title], "|", color="black", markersize=16)
    left.set_xlabel("seconds")
    handles = [Patch(color=colour, label=part) for part, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(COLOURS))
    right.set_xlabel("test accuracy, percent (line: mean of the seeds)")
    right.grid(axis="x", alpha=0.3)
    settings = results["settings"]
    figure.suptitle(
        f"Flowers102, {NETWORKS[backbone]}, {settings['frozen']} frozen + {settings['unfrozen']} "
        f"unfrozen epochs, {settings['threads']} threads"
    )
    figure.savefig(path, dpi=120)
