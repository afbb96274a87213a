"""Shows what bench.py measured: promises and whether they held, and tables."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from bench_runs import PEERS, TITLES
from job import BACKBONES

LONG = 16  # epochs of the frozen phase in the promises
QUIET = 0.1  # share of the CPUs; a run during which others used more says nothing of seconds
NETWORKS = {"lite0": "EfficientNet-Lite0", "mobilenet_v2": "MobileNetV2"}
TABLES = {
    "page": "Each as its own page has it (timm's names no rates: thaw's first ones)",
    "tuned": "The peers tuned with care",
}
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


def rows_of(results: Results, backbone: str, table: str) -> dict[str, Runs]:
    """The systems of a table with a network that ran and did not fail, each with its runs."""
    rows: dict[str, Runs] = {}
    for run in results.get("systems", []):
        if run["backbone"] == backbone and run["table"] in (table, "both"):
            rows.setdefault(run["system"], []).append(run)
    return {name: runs for name, runs in rows.items() if not any("error" in run for run in runs)}


def mean(runs: Runs, key: str) -> float:
    """Of test or val, 0-1, over the seeds."""
    return fmean(run[key] for run in runs)


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
    if runs := floors["lightning"]:
        theirs = seconds_of(runs, "frozen") * LONG / length
        how = f"{theirs:.0f} s / {cold:.1f} s; Lightning's: {length} epochs times {LONG}/{length}"
        name = f"{phase}, first time, against BackboneFinetuning"
        targets.append(at_least(name, theirs / cold, 10, how))
    return targets


def of_systems(results: Results) -> list[Target]:
    """The whole job and the accuracy, in each table and with each network."""
    targets = []
    for table, backbone in itertools.product(TABLES, BACKBONES):
        runs = rows_of(results, backbone, table)
        peers = {name: r for name, r in runs.items() if name in PEERS}
        if "thaw" not in runs or not peers:
            continue
        ours, total = mean(runs["thaw"], "test"), seconds_of(runs["thaw"], "trained")
        test = {name: mean(r, "test") for name, r in peers.items()}
        best = max(test, key=lambda name: test[name])
        reach = {name: seconds_of(r, "trained") for name, r in peers.items() if test[name] >= ours}
        fastest = min(reach, key=lambda name: reach[name]) if reach else best
        theirs = seconds_of(peers[fastest], "trained")
        note = "" if reach else "; none reaches our accuracy, so against the most accurate"
        where = f"{table}, {NETWORKS[backbone]}"
        targets += [
            at_most(f"{where}: whole job, to {fastest}", total / theirs, 0.5,
                    f"{total:.0f} s / {theirs:.0f} s, start to end of training{note}"),
            at_least(f"{where}: test accuracy, above {best}", ours - test[best], 0,
                     f"{ours:.4f} - {test[best]:.4f}, means of {len(runs['thaw'])} and "
                     f"{len(runs[best])} seed(s)", "points"),
        ]  # fmt: skip
    return targets


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


# --- page ---


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def row(name: str, runs: Runs, thaw: Runs) -> list[str]:
    """Cells of a system with a network; without `thaw` there is no ratio."""
    total = seconds_of(runs, "trained")
    rates = [f"{run['head_rate']:g}, {run['body_rate']:g}" for run in runs if "head_rate" in run]
    parts = ("frozen", "unfrozen", "trained", "startup")
    return [
        NETWORKS[runs[0]["backbone"]], TITLES[name], f"{mean(runs, 'test'):.3f}",
        ", ".join(f"{run['test']:.3f}" for run in runs), f"{mean(runs, 'val'):.3f}",
        *[f"{seconds_of(runs, part):.0f}" for part in parts],
        f"{total / seconds_of(thaw, 'trained'):.1f}" if thaw else "",
        "; ".join(sorted(set(rates))), f"{len(quiet(runs))} of {len(runs)}",
        ", ".join(sorted({run["date"][:10] for run in runs})),
    ]  # fmt: skip


def systems(results: Results, name: str) -> str:
    """A table of `TABLES`, and what failed in it."""
    head = ["network", "", "test", "seeds", "val", "s frozen", "s unfrozen", "s in all",
            "s to first step", "to thaw", "rates", "quiet", "measured"]  # fmt: skip
    rows = []
    for backbone in BACKBONES:
        there = rows_of(results, backbone, name)
        for each in sorted(there, key=lambda each: -mean(there[each], "test")):
            rows.append(row(each, there[each], there.get("thaw", [])))
    failed = [
        f"{TITLES[run['system']]} with {NETWORKS[run['backbone']]}, seed {run['seed']}, failed: "
        f"{run['error']}"
        for run in results["systems"]
        if "error" in run and run["table"] in (name, "both")
    ]
    return "\n\n".join([f"## {TABLES[name]}", table(head, rows), *failed])


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
    "Tuned: rates of head and body by validation accuracy with seed 0 (tune.py, tuned.json), label "
    "smoothing, a cosine, the body's BatchNorm in eval mode. thaw stands in both tables with its "
    "defaults, 32 photos a step; the others take 64. Seconds of the phases count the validation "
    "after each epoch, as every one of these tools does it; the first step lies in the "
    "frozen phase, after the pass that caches features where there is one. Seconds in all "
    "go from the start of the process to the end of training, "
    "the test is apart; `to thaw` divides them by thaw's. thaw tests its best epoch, the others "
    f"their last. Seconds are medians of the quiet runs: others used at most {QUIET:.0%} of the "
    "CPUs; of all runs where none was quiet. Rows of different days are of machines that differ by "
    "half in speed, so their seconds are not to be compared."
)


def page(results: Results, targets: Sequence[Target]) -> str:
    """All tables and the environment."""
    facts = [
        f"- {key}: {'; '.join(value) if isinstance(value, list) else value}"
        for key, value in results["environment"].items()
    ]
    parts = [f"# {results['title']}", "\n".join(facts)]
    if "systems" in results:
        parts += [systems(results, name) for name in TABLES] + [SYSTEMS_NOTE]
    if "floors" in results:
        parts += [floors(results), "Medians; thaw's phases count their validations too."]
    if targets:
        rows = [[t.name, f"{t.value:.3g}", t.limit, "yes" if t.met else "NO", t.how]
                for t in targets]  # fmt: skip
        parts.append(table(["", "value", "target", "met", "how"], rows))
    return "\n\n".join(parts) + "\n"
