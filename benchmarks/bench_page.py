"""Shows what bench.py measured: Markdown tables and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench_runs import TITLES
from bench_targets import QUIET, Target, measured, quiet, seconds_of, whole
from matplotlib.figure import Figure

COLOURS = {"set-up": "0.75", "frozen": "tab:blue", "unfrozen": "tab:orange"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, columns aligned so that it reads well in a terminal too."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), line(["-" * w for w in widths]), *map(line, rows)])


def systems(results: Mapping[str, Any]) -> str:
    """One row a system: medians of seconds, means of accuracies over the seeds."""
    head = ["", "test accuracy", "seeds", "s frozen", "s unfrozen", "s in all", "s to first step",
            "s of test", "peak MB", "images/s frozen", "images/s unfrozen", "quiet"]  # fmt: skip
    rows = []
    for name, runs in measured(results).items():
        failed = next((run["error"] for run in runs if "error" in run), None)
        if failed:
            rows.append([TITLES[name], f"failed: {failed}", *[""] * (len(head) - 2)])
        else:
            rows.append(row(results["settings"], name, runs))
    return table(head, rows)


def row(settings: Mapping[str, Any], name: str, runs: list[dict[str, Any]]) -> list[str]:
    """Of the systems' table; the README has the first six cells."""
    images = {p: settings["photos"] * settings[p] for p in ("frozen", "unfrozen")}
    return [
        TITLES[name], f"{fmean(run['test'] for run in runs):.3f}",
        ", ".join(f"{run['test']:.3f}" for run in runs),
        *[f"{seconds_of(runs, part):.0f}" for part in ("frozen", "unfrozen", "trained")],
        *[f"{seconds_of(runs, part):.1f}" for part in ("startup", "test")],
        f"{max(run['memory'] for run in runs):.0f}",
        *[f"{count / seconds_of(runs, phase):.0f}" for phase, count in images.items()],
        f"{len(quiet(runs))} of {len(runs)}",
    ]  # fmt: skip


def floors(results: Mapping[str, Any]) -> str:
    """Floors, and thaw's figures that are held against them."""
    found, photos = results["floors"], results["settings"]["photos"]
    names = {
        "decode": ("decode and cut views only, train + val photos", photos),
        "forward": ("one forward pass over train + val photos", photos),
        "memory": ("forward and backward on tensors in memory", found["memory_images"]),
        "bare_epoch": ("bare loop, one unfrozen epoch with validation", photos),
        "unfrozen_epoch": ("thaw, the same", photos),
        "cold": ("thaw, frozen phase of 16 epochs, nothing cached", 16 * photos),
        "warm": ("thaw, the same, features cached", 16 * photos),
    }
    rows = []
    for key, (name, images) in names.items():
        seconds = median(found[key])
        every = ", ".join(f"{value:.1f}" for value in found[key])
        rows.append([name, f"{seconds:.1f}", f"{images / seconds:.0f}", every])
    return table(["", "s", "images/s", "each"], rows)


def ratios(targets: Sequence[Target]) -> str:
    """One row a promise."""
    rows = [[t.name, f"{t.value:.3g}", t.limit, "yes" if t.met else "NO", t.how] for t in targets]
    return table(["", "value", "target", "met", "how"], rows)


def page(results: Mapping[str, Any], targets: Sequence[Target]) -> str:
    """All tables and the environment."""
    parts = [f"# {results['title']}", environment(results)]
    if "systems" in results:
        parts += [systems(results), SYSTEMS_NOTE]
    if "floors" in results:
        parts += [floors(results), "Medians; thaw's phases count their validations too."]
    if targets:
        parts.append(ratios(targets))
    return "\n\n".join(parts) + "\n"


SYSTEMS_NOTE = (
    "Seconds of the phases count the validation after each epoch, as every one of these tools does "
    "it; the first step lies in the frozen phase, after the pass that caches features where there "
    "is one. Seconds in all go from the start of the process to the end of training, the test is "
    "apart. Images are those of training and validation. thaw tests its best epoch, the others "
    "their last. Memory: the most that a process and its workers held, looked at each five seconds."
    f" Seconds are medians of the quiet runs: others used at most {QUIET:.0%} of the CPUs."
)


def environment(results: Mapping[str, Any]) -> str:
    """Where and when."""
    return "\n".join(f"- {key}: {value}" for key, value in results["environment"].items())


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Seconds and accuracy of the systems, side by side."""
    runs = whole(results)
    if not runs:
        return
    names = list(reversed(runs))
    figure = Figure(figsize=(10, 1.6 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    begin = dict.fromkeys(names, 0.0)
    for part, colour in COLOURS.items():
        for name in names:
            if part == "set-up":  # imports, weights, files: what is in neither phase
                phases = sum(seconds_of(runs[name], phase) for phase in ("frozen", "unfrozen"))
                seconds = seconds_of(runs[name], "trained") - phases
            else:
                seconds = seconds_of(runs[name], part)
            label = part if name == names[0] else None
            left.barh(TITLES[name], seconds, left=begin[name], color=colour, label=label)
            begin[name] += seconds
    left.set_xlabel("seconds")
    figure.legend(loc="outside lower center", ncols=len(COLOURS))
    for name in names:
        tests = [100 * run["test"] for run in runs[name]]
        right.plot(tests, [TITLES[name]] * len(tests), "o", color="0.6", markersize=4)
        right.plot([fmean(tests)], [TITLES[name]], "|", color="black", markersize=16)
    right.set_xlabel("test accuracy, percent (line: mean of the seeds)")
    right.grid(axis="x", alpha=0.3)
    settings = results["settings"]
    figure.suptitle(
        f"Flowers102, MobileNetV2, {settings['frozen']} frozen + {settings['unfrozen']} unfrozen "
        f"epochs, {settings['threads']} threads"
    )
    figure.savefig(path, dpi=120)
