"""thaw beside what people use, in one run on one machine: seconds, accuracy, memory, and floors.

    make bench                                 all of it; writes bench.json, bench.md and bench.png
    make bench QUICK=1                         64 photos, 1 + 1 epochs, 3 minutes: does all work?
    make bench ARGS="--seeds 0,1,2"            the table's accuracies over three seeds
    make bench ARGS="--part floors"            a part: systems, floors, loading, overhead, startup
    make bench ARGS="--part systems --only thaw,timm"
    make bench ARGS="--seeds 0,1,2 --resume"   go on after a stop; what is done is kept

The job: MobileNetV2 with the weights of <data>/weights/mobilenet_v2.pth, Flowers102's official
split, 128 pixels, 5 epochs with a frozen body and 5 with everything, batch 64, on the CPU. Parts of
it, and --quick, leave their files in logs/bench/, not here.
"""

import argparse
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import bench_page
from bench_runs import CACHED, HERE, TITLES, Bench, FailedError
from bench_setup import QUICK_PHOTOS, environment, fewer_photos, options
from bench_targets import LONG, judge, whole
from job import MEMORY_IMAGES, Job

BLOCK = 10  # steps; TensorBoard is written to once in as many


def systems(bench: Bench, given: argparse.Namespace, found: dict[str, Any]) -> Iterator[None]:
    """The job, done by each system with each seed, but for what `found` has; yields after each."""
    for name in given.only:
        found.setdefault(name, [])
    for seed, name in itertools.product(given.seeds, given.only):
        if any(run["seed"] == seed and "error" not in run for run in found[name]):
            continue
        try:
            if name == "thaw":
                run = bench.thaw(f"seed={seed}")
            else:
                run = bench.peer(name, seed, bench.frozen, bench.unfrozen)
            say(f"{name}, seed {seed}: {run['seconds']['trained']:.1f} s, test {run['test']:.4f}, "
                f"others used {run['others']:.0%} of the CPUs")  # fmt: skip
        except FailedError as error:  # the others' figures are still worth having
            run = {"error": str(error)}
            say(run["error"])
        found[name] = [other for other in found[name] if other["seed"] != seed]
        found[name].append({"seed": seed, **run})
        bench.forget()
        yield


def floors(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """What nothing can beat, and thaw's phases, in turn so that a slow minute hits all of them."""
    names = ("decode", "forward", "memory", "cold", "warm", "bare_epoch", "unfrozen_epoch")
    found: dict[str, Any] = {name: [] for name in names}
    length = [f"trainer.max_epochs={LONG}", "test=false", *CACHED]
    epochs = 1 if given.quick else 2
    for _ in range(given.repeats):
        passes, _ended = bench.script("floors.py", "passes", "--repeats", "1")
        cache = bench.folder("cache")
        passes["cold"] = [bench.thaw(*length, cache=cache)["seconds"]["frozen"]]
        passes["warm"] = [bench.thaw(*length, cache=cache)["seconds"]["frozen"]]
        bare, _ended = bench.script("floors.py", "bare", "--epochs", str(epochs))
        passes["bare_epoch"] = bare["epochs"]
        full = ["finetune=full", f"trainer.max_epochs={epochs}", "test=false"]
        full += ["finetune.unfrozen.warmup_epochs=0"]
        passes["unfrozen_epoch"] = bench.thaw(*full)["epochs"]
        for name, seconds in passes.items():
            found[name] += seconds
        say(", ".join(f"{name} {fmt(seconds)} s" for name, seconds in passes.items()))
        bench.forget()
    lightning = []
    if "systems" not in given.parts or "lightning" not in given.only:  # else it is known from there
        lightning.append(bench.peer("lightning", 0, bench.frozen, 0))
    return {**found, "memory_images": MEMORY_IMAGES, "lightning": lightning}


def loading(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """Photos a second of thaw's loader."""
    number = ["--number", str(QUICK_PHOTOS)] if given.quick else []
    found, _ = bench.script("loading.py", "--repeats", str(given.repeats), *number)
    say(json.dumps(found))
    return found


def overhead(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of a step, of each block of ten steps in the second epoch."""
    steps = 30 if given.quick else 300
    tiny = [
        "~data", "+data._target_=overhead.TensorData", f"+data.steps={steps}", "backbone=tiny",
        "backbone.weights=null", "finetune=full", "trainer.max_epochs=2", "test=false",
    ]  # fmt: skip
    found: dict[str, Any] = {"thaw": [], "bare": []}
    for _ in range(given.repeats):
        seen, _ended, _out = bench.train(*tiny)
        found["thaw"] += blocks(seen["steps"])
        out = bench.folder("bare")
        script = [str(HERE / "overhead.py"), "--folder", str(out), "--steps", str(steps)]
        bench.run("overhead", *script)
        found["bare"] += blocks(json.loads((out / "watch.json").read_text())["steps"])
    say(", ".join(f"{name} {min(each):.0f} us a step" for name, each in found.items()))
    return found


def blocks(began: list[float]) -> list[float]:
    """Times at which steps began -> microseconds a step, of each block of ten."""
    return [
        1e6 * (began[k + BLOCK] - began[k]) / BLOCK for k in range(0, len(began) - BLOCK, BLOCK)
    ]


def startup(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of --help; those to the first step stand in the systems' table."""
    command = str(HERE.parent / "train.py"), "--help"
    seconds = [bench.run("help", *command).seconds for _ in range(2 if given.quick else 5)]
    say(f"--help: {fmt(seconds)} s")
    return {"help": seconds}


SHORT: dict[str, Callable[[Bench, argparse.Namespace], dict[str, Any]]] = {
    "startup": startup, "overhead": overhead, "loading": loading, "floors": floors,
}  # fmt: skip
PARTS = [*SHORT, "systems"]


def measure(bench: Bench, given: argparse.Namespace, results: dict[str, Any]) -> Iterator[None]:
    """Adds to `results` the parts that it lacks; yields whenever there is something to save.

    Raises:
        SystemExit: at the end, where a part failed.
    """
    failed: list[str] = []
    for name in given.parts:
        say(f"--- {name}")
        try:
            if name == "systems":
                yield from systems(bench, given, results.setdefault(name, {}))
            elif name not in results:
                results[name] = SHORT[name](bench, given)
                yield
        except FailedError as error:  # the other parts are still worth having
            failed.append(f"{name}: {error}")
            say(failed[-1])
    if failed:
        raise SystemExit("failed: " + "; ".join(failed))


def resumed(folder: Path, new: dict[str, Any]) -> dict[str, Any]:
    """What an earlier call left in `folder`, if it is of the same machine, packages and job.

    thaw itself may have changed; the commits of both calls are named then.

    Raises:
        SystemExit: there is none, or it is not.
    """
    path = folder / "bench.json"
    if not path.exists():
        raise SystemExit(f"--resume: there is no {path} of an earlier call; leave --resume out")
    old = json.loads(path.read_text())
    was = {**old["environment"], **old["settings"]}
    now = {**new["environment"], **new["settings"]}
    for key in ("versions", "machine", "threads", "frozen", "unfrozen", "photos"):
        if was[key] != now[key]:
            raise SystemExit(f"--resume: {path} has {key} = {was[key]}, this call {now[key]}; "
                             "leave --resume out to begin anew")  # fmt: skip
    before, after = old["environment"]["thaw"].split(", then "), new["environment"]["thaw"]
    commits = dict.fromkeys([*before, after])
    environment = {**old["environment"], "thaw": ", then ".join(commits)}
    return {**old, "settings": new["settings"], "environment": environment}


def say(text: str) -> None:
    """With the time, to see where a long run stands."""
    print(f"{datetime.now():%H:%M:%S}  {text}", flush=True)


def fmt(seconds: list[float]) -> str:
    """1.2, 1.3"""
    return ", ".join(f"{value:.1f}" for value in seconds)


def save(results: dict[str, Any], folder: Path) -> None:
    """bench.json, bench.md and bench.png, as far as it was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "bench.json"
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")  # before any judging
    targets = judge(results)
    text = bench_page.page(results, targets)
    record = {**results, "targets": [dataclasses.asdict(target) for target in targets]}
    (folder / "bench.md").write_text(text, encoding="utf-8")
    if "systems" in results:  # rows for the README, whose test reads them here
        record["table"] = [
            bench_page.row(results["settings"], name, runs)[:6]
            for name, runs in whole(results).items()
        ]
        bench_page.draw(results, folder / "bench.png")
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measures, prints and writes."""
    given = options(str(__doc__).splitlines()[0], PARTS)
    title = "QUICK: figures without meaning" if given.quick else "thaw beside what people use"
    began = time.time()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        data = fewer_photos(given.data, scratch / "data") if given.quick else given.data
        bench = Bench(data, scratch / "runs", given.threads, given.workers, more=given.thaw.split())
        if given.quick:
            bench.frozen = bench.unfrozen = given.repeats = 1
        job = Job(data, bench.frozen, bench.unfrozen, seed=0, workers=bench.workers)
        photos = sum(len(job.photos(split)[0]) for split in ("train", "val"))
        results: dict[str, Any] = {"title": title, "environment": environment(bench)}
        results["settings"] = {"frozen": bench.frozen, "unfrozen": bench.unfrozen, "photos": photos,
                               "threads": bench.threads, "seeds": given.seeds}  # fmt: skip
        partial = HERE.parent / "logs" / "bench"
        if given.resume:
            results = resumed(partial, results)
        for _ in measure(bench, given, results):
            save(results, partial)  # a long run that is stopped leaves what it has
    took = results["environment"].get("took", 0)
    results["environment"]["took"] = round(took + time.time() - began)
    save(results, partial)
    complete = set(PARTS) <= set(results) and set(TITLES) == set(results["systems"])
    folder = HERE if complete and not given.quick else partial
    save(results, folder)
    print(f"\n{(folder / 'bench.md').read_text(encoding='utf-8')}\n{title}; written to {folder}")


if __name__ == "__main__":
    main()
