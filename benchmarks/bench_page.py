"""Shows what bench.py measured: promises and whether they held, tables, a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench_runs import PEERS, TITLES
from matplotlib.figure import Figure

LONG = 16  # epochs of the frozen phase in the promises
QUIET = 0.1  # share of the CPUs; a run during which others used more says nothing of seconds
COLOURS = {"set-up": "0.75", "frozen": "tab:blue", "unfrozen": "tab:orange"}
Results = Mapping[str, Any]
Runs = list[dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """One promise.

    limit:  in words, as printed
    how:    what was divided by what
    """

    name: str
    value: float
    limit: str
    met: bool
    how: str


def at_most(name: str, value: float, limit: float, how: str, unit: str = "x") -> Target:
    """A promise with an upper limit."""
    return Target(name, value, f"<= {limit:g} {unit}", value <= limit, how)


def at_least(name: str, value: float, limit: float, how: str, unit: str = "x") -> Target:
    """A promise with a lower limit."""
    return Target(name, value, f">= {limit:g} {unit}", value >= limit, how)


def quiet(runs: Runs) -> Runs:
    """Those with nothing beside them."""
    return [run for run in runs if run["others"] <= QUIET]


def seconds_of(runs: Runs, part: str) -> float:
    """Median over the seeds that ran on a quiet machine, of all where none did; "trained" is the
    whole job, from the start of the process.
    """
    return median(run["seconds"][part] for run in quiet(runs) or runs)


def whole(results: Results) -> dict[str, Runs]:
    """The systems that ran and did not fail, each with its runs."""
    return {
        name: runs
        for name, runs in results["systems"].items()
        if runs and not any("error" in run for run in runs)
    }


# --- promises ---


def of_floors(results: Results) -> list[Target]:
    """The frozen phase and the unfrozen epoch."""
    floors, length = results["floors"], results["settings"]["frozen"]
    cold, warm = median(floors["cold"]), median(floors["warm"])
    forward = median(floors["forward"])
    epoch, bare = median(floors["unfrozen_epoch"]), median(floors["bare_epoch"])
    phase = f"frozen phase, {LONG} epochs"
    targets = [
        at_most(f"{phase}, first time, to one forward pass", cold / forward, 1.3,
                f"{cold:.1f} s / {forward:.1f} s over train + val photos"),
        at_most(f"{phase}, features cached", warm, 3, "with its validations", "s"),
        at_most("unfrozen epoch, to the bare loop", epoch / bare, 1.05,
                f"{epoch:.1f} s / {bare:.1f} s, training and validation"),
    ]  # fmt: skip
    runs = floors["lightning"] or results.get("systems", {}).get("lightning", [])
    if runs := [run for run in runs if "error" not in run]:
        theirs = seconds_of(runs, "frozen") * LONG / length
        how = f"{theirs:.0f} s / {cold:.1f} s; Lightning's: {length} epochs times {LONG}/{length}"
        name = f"{phase}, first time, against BackboneFinetuning"
        targets.append(at_least(name, theirs / cold, 10, how))
    return targets


def of_systems(results: Results) -> list[Target]:
    """The whole job and the accuracy, with the weights that all systems have."""
    runs = whole(results)
    peers = {name: r for name, r in runs.items() if name in PEERS}
    if "thaw" not in runs or not peers:
        return []
    ours, total = mean_test(runs["thaw"]), seconds_of(runs["thaw"], "trained")
    test = {name: mean_test(r) for name, r in peers.items()}
    best = max(test, key=lambda name: test[name])
    reach = {name: seconds_of(r, "trained") for name, r in peers.items() if test[name] >= ours}
    fastest = min(reach, key=lambda name: reach[name]) if reach else best
    theirs = seconds_of(peers[fastest], "trained")
    note = "" if reach else "; none reaches our accuracy, so against the most accurate"
    return [
        at_most(f"whole job, to {fastest}", total / theirs, 0.5,
                f"{total:.0f} s / {theirs:.0f} s, start to end of training{note}"),
        at_least(f"test accuracy, above {best}", ours - test[best], 0,
                 f"{ours:.4f} - {test[best]:.4f}, means of {len(runs['thaw'])} and "
                 f"{len(runs[best])} seed(s)", "points"),
    ]  # fmt: skip


def of_loading(results: Results) -> list[Target]:
    """Photos a second."""
    targets = []
    for size, rates in results["loading"].items():
        none, kept, recipe = (median(rates[way]) for way in ("none", "ram", "recipe"))
        name = f"loading {size}, cache=ram to"
        how = f"{kept:.0f} / {none:.0f} images/s"
        targets.append(at_least(f"{name} decoding", kept / none, 1, how))
        how = f"{kept:.0f} / {recipe:.0f} images/s"
        targets.append(at_least(f"{name} PIL and torchvision", kept / recipe, 4, how))
    return targets


def of_overhead(results: Results) -> list[Target]:
    """Microseconds a step."""
    ours, bare = (min(results["overhead"][name]) for name in ("thaw", "bare"))
    how = f"{ours:.0f} / {bare:.0f} us a step, fastest ten steps"
    return [at_most("own cost a step, to a bare Lightning loop", ours / bare, 1.1, how)]


def of_startup(results: Results) -> list[Target]:
    """--help."""
    seconds = median(results["startup"]["help"])
    return [at_most("python train.py --help", seconds, 2.5, "median", "s")]


RULES = {"systems": of_systems, "floors": of_floors, "loading": of_loading,
         "overhead": of_overhead, "startup": of_startup}  # fmt: skip


def judge(results: Results) -> list[Target]:
    """Of the parts that were measured."""
    return [target for part, rule in RULES.items() if part in results for target in rule(results)]


def mean_test(runs: Runs) -> float:
    """Test accuracy, 0-1, over the seeds."""
    return fmean(run["test"] for run in runs)


# --- page ---


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def readme_rows(results: Results) -> list[list[str]]:
    """A row a system: mean test accuracy, that of each seed, seconds frozen, unfrozen, in all."""
    return [
        [
            TITLES[name],
            f"{mean_test(runs):.3f}",
            ", ".join(f"{run['test']:.3f}" for run in runs),
            *[f"{seconds_of(runs, part):.0f}" for part in ("frozen", "unfrozen", "trained")],
        ]
        for name, runs in sorted(whole(results).items(), key=lambda pair: -mean_test(pair[1]))
    ]


def systems(results: Results) -> str:
    """The README's rows with more cells, and what failed."""
    head = ["", "test accuracy", "seeds", "s frozen", "s unfrozen", "s in all", "s to first step",
            "quiet"]  # fmt: skip
    runs_of = {TITLES[name]: runs for name, runs in results["systems"].items() if runs}
    rows = []
    for row in readme_rows(results):
        runs = runs_of.pop(row[0])
        first = f"{seconds_of(runs, 'startup'):.1f}"
        rows.append([*row, first, f"{len(quiet(runs))} of {len(runs)}"])
    for title, runs in runs_of.items():
        error = next(run["error"] for run in runs if "error" in run)
        rows.append([title, f"failed: {error}", *[""] * (len(head) - 2)])
    return table(head, rows)


def floors(results: Results) -> str:
    """Floors, and thaw's figures that are held against them."""
    measured, photos = results["floors"], results["settings"]["photos"]
    names = {
        "forward": ("one forward pass over train + val photos", photos),
        "bare_epoch": ("bare loop, one unfrozen epoch with validation", photos),
        "unfrozen_epoch": ("thaw, the same", photos),
        "cold": (f"thaw, frozen phase of {LONG} epochs, nothing cached", LONG * photos),
        "warm": ("thaw, the same, features cached", LONG * photos),
    }
    rows = []
    for key, (name, images) in names.items():
        seconds = median(measured[key])
        every = ", ".join(f"{value:.1f}" for value in measured[key])
        rows.append([name, f"{seconds:.1f}", f"{images / seconds:.0f}", every])
    return table(["", "s", "images/s", "each"], rows)


SYSTEMS_NOTE = (
    "Seconds of the phases count the validation after each epoch, as every one of these tools does "
    "it; the first step lies in the frozen phase, after the pass that caches features where there "
    "is one. Seconds in all go from the start of the process to the end of training, the test is "
    "apart. thaw tests its best epoch, the others their last. Seconds are medians of the quiet "
    f"runs: others used at most {QUIET:.0%} of the CPUs."
)


def page(results: Results, targets: Sequence[Target]) -> str:
    """All tables and the environment."""
    facts = [
        f"- {key}: {'; '.join(value) if isinstance(value, list) else value}"
        for key, value in results["environment"].items()
    ]
    parts = [f"# {results['title']}", "\n".join(facts)]
    if "systems" in results:
        parts += [systems(results), SYSTEMS_NOTE]
    if "floors" in results:
        parts += [floors(results), "Medians; thaw's phases count their validations too."]
    if targets:
        rows = [[t.name, f"{t.value:.3g}", t.limit, "yes" if t.met else "NO", t.how]
                for t in targets]  # fmt: skip
        parts.append(table(["", "value", "target", "met", "how"], rows))
    return "\n\n".join(parts) + "\n"


def draw(results: Results, path: Path) -> None:
    """Seconds and accuracy of the systems, side by side."""
    runs = whole(results)
    names = [name for name in ("thaw_lite0", "thaw", *PEERS) if name in runs]
    if not names:
        return
    figure = Figure(figsize=(10, 1.6 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name in names:
        begin = 0.0
        parts = {phase: seconds_of(runs[name], phase) for phase in ("frozen", "unfrozen")}
        # set-up: imports, weights, files; what is in neither phase
        parts = {"set-up": seconds_of(runs[name], "trained") - sum(parts.values()), **parts}
        for part, seconds in parts.items():
            label = part if name == names[0] else None
            left.barh(TITLES[name], seconds, left=begin, color=COLOURS[part], label=label)
            begin += seconds
        tests = [100 * run["test"] for run in runs[name]]
        right.plot(tests, [TITLES[name]] * len(tests), "o", color="0.6", markersize=4)
        right.plot([fmean(tests)], [TITLES[name]], "|", color="black", markersize=16)
    left.set_xlabel("seconds")
    figure.legend(loc="outside lower center", ncols=len(COLOURS))
    right.set_xlabel("test accuracy, percent (line: mean of the seeds)")
    right.grid(axis="x", alpha=0.3)
    settings = results["settings"]
    figure.suptitle(
        f"Flowers102, MobileNetV2, {settings['frozen']} frozen + {settings['unfrozen']} unfrozen "
        f"epochs, {settings['threads']} threads"
    )
    figure.savefig(path, dpi=120)
