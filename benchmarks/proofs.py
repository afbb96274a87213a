"""What thaw promises and what others do, measured: the table "property x system".

    make proofs                                     the whole table; writes proofs.md and .json
    make proofs ARGS="--only ddp --system thaw"     a part, printed only

Nothing in the table is written by hand but why a property does not apply. Each system trains the
network of probe.py for 6 epochs of 6 steps on a CPU and unfreezes the body at epoch 2; the same
probe looks into every run, and the same function judges what it saw. thaw runs as `train.py`.
"""

import argparse
import itertools
import json
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from probe import DECAY, EPOCHS, LAYERS, STEPS, UNFREEZE
from systems import HERE, THAW_SCHEDULES, TITLES, FailedError, System, versions

LAST = EPOCHS - 1


@dataclass(frozen=True)
class Cell:
    """One measured result: yes, no, n/a or fails; and the fact behind it."""

    verdict: str
    fact: str = ""

    def __str__(self) -> str:
        return f"{self.verdict}: {self.fact}" if self.fact else self.verdict


def difference(one: dict[str, Any], two: dict[str, Any], names: list[str]) -> float:
    """Largest absolute difference of the named tensors."""
    return max((one[n].double() - two[n].double()).abs().max().item() for n in names)


def changed(one: dict[str, Any], two: dict[str, Any], prefix: str = "body.") -> list[str]:
    """Names of the tensors that are not the same to the bit."""
    return [n for n in one if n.startswith(prefix) and not torch.equal(one[n], two[n])]


def verdict(passed: bool, fact: str) -> Cell:
    """Yes or no, with the fact."""
    return Cell("yes" if passed else "no", fact)


def ranks_equal(system: System) -> Cell:
    """Two gloo processes: the largest difference of any weight, plain and with accumulation."""
    facts, passed = [], True
    for count in (1, 2):
        system.train(f"ddp{count}")
        first, second = (system.saw(f"ddp{count}", rank) for rank in (0, 1))
        ends = first["epochs"][LAST], second["epochs"][LAST]
        apart = difference(*ends, first["parameters"])
        moved = difference(first["start"], ends[0], first["parameters"])
        passed = passed and apart == 0 and moved > 0
        facts.append(f"{apart:.2g} ({count} batch{'es' if count > 1 else ''} a step)")
    return verdict(passed, "ranks differ by " + ", ".join(facts))


def resumed(system: System, run: str) -> Cell:
    """From the checkpoint of a whole epoch to the end, against the run that did not stop."""
    system.train("whole", run)
    whole, again = system.saw("whole"), system.saw(run)
    end = again["epochs"][LAST]
    apart = difference(whole["epochs"][LAST], end, whole["parameters"])
    tuned = [n for n in changed(again["start"], end) if n in again["parameters"]]
    total = sum(n.startswith("body.") for n in again["parameters"])
    fact = f"{len(tuned)} of {total} tensors of the body move; weights differ by {apart:.2g}"
    return verdict(bool(tuned) and apart <= 1e-6, fact)


def stands_still(system: System) -> Cell:
    """Frozen: weights and buffers to the bit, and the body's output as in eval mode."""
    system.train("whole")
    seen = system.saw("whole")
    moved = changed(seen["start"], seen["epochs"][UNFREEZE - 1])
    tensors = [n for n in seen["start"] if n.startswith("body.")]
    fact = f"{len(moved)} of {len(tensors)} tensors change; output {seen['gap']:.2g} off eval mode"
    return verdict(not moved and seen["gap"] == 0, fact)


def schedules_survive(system: System) -> Cell:
    """With each scheduler: the deepest layer's applied rate is positive once unfrozen, and falls.

    Falls, not only moves: BackboneFinetuning by itself raises the body's rate.
    """
    system.train(*THAW_SCHEDULES)
    bad = {}
    for name in THAW_SCHEDULES:
        try:
            rates = system.saw(name)["rates"]
        except FailedError as error:
            bad[name] = str(error).split(":")[0][:60]
            continue
        body = [rate[f"body.{LAYERS[-1]}"] for epoch, rate in rates if epoch >= UNFREEZE]
        steps = itertools.pairwise(body)
        if min(body[:STEPS]) <= 0:
            bad[name] = "rate 0"
        elif not any(after < 0.99 * before for before, after in steps):
            bad[name] = "rate does not follow"
    total = len(THAW_SCHEDULES)
    listed = "; ".join(f"{name} ({why})" for name, why in bad.items())
    return verdict(not bad, f"{total - len(bad)} of {total}" + (f", not {listed}" if bad else ""))


def rates_arrive(system: System) -> Cell:
    """Plain SGD, |dw| / |g| of each layer in the last step, as a share of the layer above."""
    system.train("layers")
    last = system.saw("layers")["rates"][-1][1]
    order = ["head", *(f"body.{name}" for name in reversed(LAYERS))]
    shares = [last[b] / last[a] if last[a] else 0.0 for a, b in itertools.pairwise(order)]
    fact = f"asked {DECAY} a layer, applied " + ", ".join(f"{share:.3f}" for share in shares)
    return verdict(all(abs(share - DECAY) < 0.01 for share in shares), fact)


def twins_trained(system: System, run: str) -> Cell:
    """Tensors of the body that start equal: all in the optimiser, all changed at the end."""
    system.train(run)
    seen = system.saw(run)
    start, end = seen["start"], seen["epochs"][LAST]
    body = [n for n in seen["parameters"] if n.startswith("body.")]
    twins = [n for n in body if any(n != m and torch.equal(start[n], start[m]) for m in body)]
    good = [n for n in twins if n in seen["tuned"] and not torch.equal(start[n], end[n])]
    return verdict(bool(twins) and good == twins, f"{len(good)} of {len(twins)} trained")


def resumed_inside(system: System) -> Cell:
    """From a checkpoint inside an epoch, with the loader that users have; to the bit or not."""
    if system.name == "thaw":
        system.train("whole", "stopped")
        folder = system.folder / "stopped"
        if not (folder / "checkpoints" / "last.ckpt").exists():
            raise FailedError("Ctrl-C left no checkpoint")
        system.train("continued")
        system.check("continued")
        whole, again = system.saw("whole"), system.saw("stopped")  # it goes on in its folder
        if again["rates"][0][0] != UNFREEZE:
            raise FailedError("it began again")
    else:
        system.train("ordinary", "inside")
        whole, again = system.saw("ordinary"), system.saw("inside")
    ends = whole["epochs"][LAST], again["epochs"][LAST]
    apart = difference(*ends, whole["parameters"])
    fact = f"weights differ by {apart:.2g}, {len(changed(*ends, ''))} of {len(ends[0])} tensors"
    return verdict(not changed(*ends, ""), fact)


def loads_safely(system: System) -> Cell:
    """Every checkpoint of a run with torch.load(weights_only=True)."""
    system.train("whole")
    system.saw("whole")
    files = sorted((system.folder / "whole" / "checkpoints").glob("*.ckpt"))
    for file in files:
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:  # what weights_only refuses
            return verdict(False, f"{file.name}: {str(error).splitlines()[0]}")
    return verdict(bool(files), f"{len(files)} of {len(files)}")


PROPERTIES: dict[str, Callable[[System], Cell]] = {
    "ddp ranks equal after the unfreeze": ranks_equal,
    "resume after the unfreeze trains on": partial(resumed, run="after"),
    "resume before the unfreeze": partial(resumed, run="before"),
    "frozen body stands still": stands_still,
    "schedulers survive the unfreeze": schedules_survive,
    "layer-wise rates reach the optimiser": rates_arrive,
    "equal tensors are both trained": partial(twins_trained, run="whole"),
    "equal tensors are both trained, layer by layer": partial(twins_trained, run="layers"),
    "resume in the middle of an epoch, to the bit": resumed_inside,
    "checkpoint loads with weights_only=True": loads_safely,
}


def measure(name: str, systems: list[System]) -> dict[str, Cell]:
    """One row."""
    row = {}
    for system in systems:
        if system.name == "timm" and name in list(PROPERTIES)[:5]:  # they need an unfreeze
            cell = Cell("n/a", "it freezes nothing, so nothing is unfrozen")
        else:
            try:
                cell = PROPERTIES[name](system)
            except FailedError as error:
                cell = Cell("fails", str(error))
        row[system.name] = cell
        print(f"{name} | {system.name} | {cell}", flush=True)
    return row


def markdown(table: dict[str, dict[str, Cell]], found: dict[str, str]) -> str:
    """Rows properties, columns systems."""
    names = list(next(iter(table.values())))
    heads = [f"{TITLES[name]} {found[name]}" for name in names]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(names) + 1) + "|"]
    for name, row in table.items():
        cells = (str(cell).replace("|", "/") for cell in row.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """Versions and processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((x.split(": ")[1] for x in lines if x.startswith("model name")), platform.machine())
    return f"torch {torch.__version__}, python {platform.python_version()}, {cpu}, gloo"


def main() -> None:
    """The table, printed; a whole and fresh one is written too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--only", default="", help="properties whose name contains this")
    parser.add_argument("--system", choices=TITLES, help="one column")
    parser.add_argument("--keep", type=Path, help="folder of runs; those in it stay as they are")
    given = parser.parse_args()
    order = [given.system] if given.system else [*(n for n in TITLES if n != "thaw"), "thaw"]
    found = versions(order)
    with tempfile.TemporaryDirectory() as temporary:
        systems = [System(name, (given.keep or Path(temporary)).resolve()) for name in order]
        table = {name: measure(name, systems) for name in PROPERTIES if given.only in name}
        seconds = round(sum(system.seconds for system in systems))
    if not table:
        parser.error(f"--only {given.only}: allowed is a part of {', '.join(PROPERTIES)}")
    table = {name: {s: row[s] for s in TITLES if s in row} for name, row in table.items()}
    print(f"\n{(text := markdown(table, found))}\n\n{seconds} s of trainings")
    if given.only or given.system or given.keep:  # old runs may be those of other versions
        return
    facts = {"command": f"python {' '.join(sys.argv)}", "machine": machine(), "seconds": seconds}
    facts["date"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    note = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    (HERE / "proofs.md").write_text(f"{text}\n\n{note}\n", encoding="utf-8")
    cells = {name: {s: asdict(cell) for s, cell in row.items()} for name, row in table.items()}
    record = json.dumps({**facts, "versions": found, "table": cells}, indent=2)
    (HERE / "proofs.json").write_text(record + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
