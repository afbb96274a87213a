"""What thaw promises about speed and accuracy, and whether a run of bench.py kept it."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

LONG = 16  # epochs of the frozen phase in the promises
QUIET = 0.1  # share of the CPUs; a run during which others used more says nothing of seconds
Results = Mapping[str, Any]


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


def mean_of(runs: list[dict[str, Any]], key: str) -> float:
    """Of a number, over the seeds."""
    return fmean(run[key] for run in runs)


def seconds_of(runs: list[dict[str, Any]], part: str) -> float:
    """Median over the seeds that ran on a quiet machine, of all where none did; "trained" is the
    whole job, from the start of the process.
    """
    return median(run["seconds"][part] for run in quiet(runs) or runs)


def quiet(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those with nothing beside them."""
    return [run for run in runs if run["others"] <= QUIET]


def measured(results: Results) -> dict[str, list[dict[str, Any]]]:
    """The systems that ran, each with its runs."""
    return {name: runs for name, runs in results["systems"].items() if runs}


def whole(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Those of them that did not fail."""
    return {
        name: runs
        for name, runs in measured(results).items()
        if not any("error" in run for run in runs)
    }


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
    """The whole job and the accuracy."""
    runs = whole(results)
    peers = {name: r for name, r in runs.items() if name != "thaw"}
    if "thaw" not in runs or not peers:
        return []
    ours, total = mean_of(runs["thaw"], "test"), seconds_of(runs["thaw"], "trained")
    test = {name: mean_of(r, "test") for name, r in peers.items()}
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
        none, kept, floor, recipe = (median(rates[w]) for w in ("none", "ram", "resize", "recipe"))
        name = f"loading {size}, cache=ram to"
        how = f"{kept:.0f} / {none:.0f} images/s; torch's resize alone, in one " \
              f"thread: {floor:.0f}; data.augment_on=device, the host's part: " \
              f"{median(rates['device']):.0f}"  # fmt: skip
        targets.append(at_least(f"{name} decoding", kept / none, 4, how))
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


PARTS = {"systems": of_systems, "floors": of_floors, "loading": of_loading,
         "overhead": of_overhead, "startup": of_startup}  # fmt: skip


def judge(results: Results) -> list[Target]:
    """Of the parts that were measured."""
    return [target for part, rule in PARTS.items() if part in results for target in rule(results)]
