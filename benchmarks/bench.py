"""thaw beside what people use, in one run on one machine: seconds, accuracy, memory, and floors.

    make bench                                 all of it, an hour; into logs/bench/
    make bench QUICK=1                         64 photos, 1 + 1 epochs: does all work?
    make bench ARGS="--seeds 0,1,2 --update"   the tables over three seeds; into benchmarks/
    make bench ARGS="--part floors"            a part: startup, overhead, loading, floors, systems
    python benchmarks/bench.py --part systems --only timm,thaw --backbone lite0 --seeds 0 --update

The job: Flowers102's official split, 128 pixels, 5 epochs with a frozen body and 5 with everything,
batch 64 (thaw: 32, its default), on the CPU, EfficientNet-Lite0 with its own weights, or
MobileNetV2 with those of <data>/weights/mobilenet_v2.pth. Two tables: each peer as its own page has
it, and tuned with care, with the rates that tune.py found for it by validation (tuned.json). thaw
stands in both with its defaults. --update replaces what it measures (of the systems: seed by seed)
in bench.json here and keeps the rest. The floors are MobileNetV2's.
"""

import argparse
import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import bench_page
import bench_picture
from bench_runs import (
    CACHED,
    HERE,
    PEERS,
    Bench,
    FailedError,
    environment,
    lacking_files,
    lacking_rates,
    own_cpus,
)  # fmt: skip
from job import BACKBONES, QUICK_PHOTOS, Job, fewer_photos

FLOORS = "mobilenet_v2"  # the network of floors.py
BLOCK = 10  # steps; TensorBoard is written to once in as many
PARTIAL = HERE.parent / "logs" / "bench"  # what does not go into the repository
Results = dict[str, Any]


def systems(bench: Bench, given: argparse.Namespace, results: Results) -> None:
    """Lets each system do the job with each network, setting and seed."""
    facts, runs = environment(bench), results.setdefault("systems", [])
    jobs = [(name, table) for name in given.only
            for table in (["both"] if name == "thaw" else given.tables)]  # fmt: skip
    for seed, backbone, (name, table) in itertools.product(given.seeds, given.backbones, jobs):
        key = {"system": name, "table": table, "backbone": backbone, "seed": seed}
        try:
            if name == "thaw":
                run = bench.thaw(backbone, f"seed={seed}")
            else:
                run = bench.peer(name, backbone, seed, tuned=table == "tuned")
            said = f"{run['seconds']['trained']:.1f} s, val {run['val']:.4f}, "
            said += f"test {run['test']:.4f}, others used {run['others']:.0%} of the CPUs"
        except FailedError as error:  # the others' figures are still worth having
            said = str(error)
            run = {"error": said}
        say(f"{', '.join(map(str, key.values()))}: {said}")
        runs[:] = [old for old in runs if any(old[word] != key[word] for word in key)]
        runs.append({**key, **run, "date": facts["date"], "thaw": facts["thaw"]})
        bench.forget()
        save(results, PARTIAL)


def floors(bench: Bench, given: argparse.Namespace) -> Results:
    """What nothing can beat, and thaw's phases, in turn so that a slow minute hits all of them."""
    names = ("forward", "cold", "warm", "bare_epoch", "unfrozen_epoch")
    measured: Results = {name: [] for name in names}
    long_phase = [f"trainer.max_epochs={bench_page.LONG}", "test=false", *CACHED]
    epochs = 1 if given.quick else 2
    for _ in range(given.repeats):
        passes, _ended = bench.script("floors.py", "--epochs", str(epochs))
        cache = bench.folder("cache")
        passes["cold"] = [bench.thaw(FLOORS, *long_phase, cache=cache)["seconds"]["frozen"]]
        passes["warm"] = [bench.thaw(FLOORS, *long_phase, cache=cache)["seconds"]["frozen"]]
        full = ["finetune=full", f"trainer.max_epochs={epochs}", "test=false"]
        full += ["finetune.unfrozen.warmup_epochs=0", "finetune.depthwise=train"]  # as floors.py
        passes["unfrozen_epoch"] = bench.thaw(FLOORS, *full)["epochs"]
        for name, seconds in passes.items():
            measured[name] += seconds
        say(", ".join(f"{name} {fmt(seconds)} s" for name, seconds in passes.items()))
        bench.forget()
    return {**measured, "lightning": [bench.peer("lightning", FLOORS, 0, head_only=True)]}


def loading(bench: Bench, given: argparse.Namespace) -> Results:
    """Photos a second of thaw's loader."""
    number = ["--number", str(QUICK_PHOTOS)] if given.quick else []
    rates, _ = bench.script("loading.py", "--repeats", str(given.repeats), *number)
    say(json.dumps(rates))
    return rates


def overhead(bench: Bench, given: argparse.Namespace) -> Results:
    """Microseconds of a step, of each block of ten steps in the second epoch."""
    steps = 30 if given.quick else 300
    tiny = [
        "~data", "+data._target_=overhead.TensorData", f"+data.steps={steps}", "backbone=tiny",
        "backbone.weights=null", "finetune=full", "trainer.max_epochs=2", "test=false",
    ]  # fmt: skip
    measured: Results = {"thaw": [], "bare": []}
    for _ in range(given.repeats):
        seen, _ended, _out = bench.train(*tiny)
        measured["thaw"] += blocks(seen["steps"])
        out = bench.folder("bare")
        script = [str(HERE / "overhead.py"), "--folder", str(out), "--steps", str(steps)]
        bench.run("overhead", *script)
        measured["bare"] += blocks(json.loads((out / "watch.json").read_text())["steps"])
    say(", ".join(f"{name} {min(each):.0f} us a step" for name, each in measured.items()))
    return measured


def blocks(began: list[float]) -> list[float]:
    """Times at which steps began -> microseconds a step, of each block of ten."""
    return [
        1e6 * (began[k + BLOCK] - began[k]) / BLOCK for k in range(0, len(began) - BLOCK, BLOCK)
    ]


def startup(bench: Bench, given: argparse.Namespace) -> Results:
    """Seconds of --help; those to the first step stand in the systems' table."""
    command = str(HERE.parent / "train.py"), "--help"
    seconds = [bench.run("help", *command).seconds for _ in range(2 if given.quick else 5)]
    say(f"--help: {fmt(seconds)} s")
    return {"help": seconds}


SHORT: dict[str, Callable[[Bench, argparse.Namespace], Results]] = {
    "startup": startup, "overhead": overhead, "loading": loading, "floors": floors,
}  # fmt: skip
PARTS = [*SHORT, "systems"]
TABLES = list(bench_page.TABLES)


def measure(bench: Bench, given: argparse.Namespace, results: Results) -> list[str]:
    """Puts the parts into `results`, saved as it goes; returns what failed."""
    failed: list[str] = []
    for name in given.parts:
        say(f"--- {name}")
        try:
            if name == "systems":
                systems(bench, given, results)
            else:
                results[name] = SHORT[name](bench, given)
                save(results, PARTIAL)
        except FailedError as error:  # the other parts are still worth having
            failed.append(f"{name}: {error}")
            say(failed[-1])
    return failed


def say(text: str) -> None:
    """With the time, to see where a long run stands."""
    print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


def fmt(seconds: list[float]) -> str:
    """1.2, 1.3"""
    return ", ".join(f"{value:.1f}" for value in seconds)


def save(results: Results, folder: Path) -> None:
    """bench.json, bench.md and bench.png, as far as it was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = bench_page.judge(results)
    record = {**results, "targets": [dataclasses.asdict(target) for target in targets]}
    if "systems" in results:
        bench_picture.draw(results, folder / "bench.png")
    (folder / "bench.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "bench.md").write_text(bench_page.page(results, targets), encoding="utf-8")


def options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    cpus = len(own_cpus())
    data = os.environ.get("THAW_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=data, help="holds flowers-102/ and weights/")
    parser.add_argument("--seeds", default="0", help="apart by commas")
    parser.add_argument("--part", default=",".join(PARTS), help="apart by commas; default: all")
    parser.add_argument("--only", default=",".join([*PEERS, "thaw"]), help="systems")
    parser.add_argument("--tables", default=",".join(TABLES), help="of the systems' settings")
    parser.add_argument("--backbone", default="lite0", help="of the systems, apart by commas")
    parser.add_argument("--repeats", type=int, default=3, help="of what is short")
    parser.add_argument("--threads", type=int, default=cpus, help="of tensor operations")
    parser.add_argument("--workers", type=int, default=max(1, cpus // 2), help="decoding processes")
    parser.add_argument("--quick", action="store_true", help="64 photos, 1 + 1 epochs")
    parser.add_argument("--update", action="store_true", help="replace these parts in bench.json")
    parser.add_argument("--thaw", default="", help="further settings of thaw, apart by spaces")
    given = parser.parse_args()
    given.seeds = [int(seed) for seed in given.seeds.split(",")]
    given.parts, given.only = given.part.split(","), given.only.split(",")
    given.tables, given.backbones = given.tables.split(","), given.backbone.split(",")
    for named, allowed in ((given.parts, PARTS), (given.only, [*PEERS, "thaw"]),
                           (given.tables, TABLES), (given.backbones, BACKBONES)):  # fmt: skip
        if wrong := set(named) - set(allowed):
            parser.error(f"{', '.join(wrong)}: allowed are {', '.join(allowed)}")
    if given.quick and given.update:
        parser.error("--quick: its figures mean nothing; leave --update out")
    given.data = given.data.resolve()
    trained = given.backbones if "systems" in given.parts else []
    tuned = set(given.only) - {"thaw"} if "tuned" in given.tables and not given.quick else set()
    networks = [*trained, FLOORS] if "floors" in given.parts else trained
    if said := lacking_files(given.data, networks) or lacking_rates(trained, tuned):
        parser.error(said)  # before hours of measuring
    return given


def begin(results: Results, bench: Bench, given: argparse.Namespace) -> None:
    """Fills in how and on what it is measured."""
    facts = environment(bench)
    if results:
        when = [facts[key] for key in ("thaw", "machine", "date")]
        line = ", ".join([given.part, *given.only, *given.backbones, *when])
        results["environment"].setdefault("updated", []).append(line)
        return
    photos = sum(len(Job(bench.data).photos(split)[0]) for split in ("train", "val"))
    results["title"] = "QUICK: figures without meaning" if given.quick else "thaw and its peers"
    results["environment"] = facts
    results["settings"] = {"frozen": bench.frozen, "unfrozen": bench.unfrozen,
                           "photos": photos, "threads": bench.threads}  # fmt: skip


def main() -> None:
    """Measures, prints and writes."""
    given = options()
    with tempfile.TemporaryDirectory() as temporary:
        folder, more = Path(temporary), given.thaw.split()
        data = fewer_photos(given.data, folder / "data") if given.quick else given.data
        bench = Bench(data, folder / "runs", given.threads, given.workers, more=more)
        if given.quick:
            bench.frozen = bench.unfrozen = given.repeats = 1
        results = json.loads((HERE / "bench.json").read_text()) if given.update else {}
        begin(results, bench, given)
        failed = measure(bench, given, results)
    save(results, folder := HERE if given.update else PARTIAL)
    print(f"\n{(folder / 'bench.md').read_text(encoding='utf-8')}\nwritten to {folder}")
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


if __name__ == "__main__":
    main()
