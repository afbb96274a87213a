"""Starts what bench.py measures, each in a process of its own with the same threads: thaw as
`train.py`, the others as peer_*.py.
"""

import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from job import BACKBONES, RATES

HERE = Path(__file__).resolve().parent
PEERS = {"plain": "plain PyTorch", "lightning": "Lightning BackboneFinetuning",
         "fastai": "fastai fine_tune", "timm": "timm"}  # fmt: skip
TITLES = {"thaw": "thaw", **PEERS}
THAW_NAMES = {"lite0": "timm/tf_efficientnet_lite0", "mobilenet_v2": "mobilenet_v2"}
LIMIT = 3 * 3600  # seconds for one process
CACHED = ["finetune=feature_extraction", "finetune.cache_features=true", "finetune.cached_views=1"]


def tuned_rates(backbone: str, peer: str) -> tuple[float, float] | None:
    """Of the head and the body, out of tuned.json, which tune.py writes; None: not tuned yet."""
    peers = json.loads((HERE / "tuned.json").read_text(encoding="utf-8")).get(backbone, {})
    return (peers[peer]["head_rate"], peers[peer]["body_rate"]) if peer in peers else None


def lacking_files(data: Path, backbones: Iterable[str]) -> str:
    """What to say of photos or weights that are not there; empty: all are."""
    files = ["flowers-102/setid.mat", *(f"weights/{BACKBONES[name].file}" for name in backbones)]
    missing = [str(data / file) for file in files if not (data / file).exists()]
    return f"{missing[0]} is missing; name its folder: THAW_DATA=<folder>" if missing else ""


def lacking_rates(backbones: Iterable[str], peers: Iterable[str]) -> str:
    """What to say of peers that tuned.json has no rates of; empty: it has."""
    pairs = itertools.product(backbones, sorted(peers))
    missing = [pair for pair in pairs if tuned_rates(*pair) is None]
    if not missing:
        return ""
    names = ", ".join(f"{peer} for {backbone}" for backbone, peer in missing)
    return (
        f"tuned.json has no rates of {names}; find them with benchmarks/tune.py (--keep writes "
        "them there), or leave that table out: --tables page"
    )


class FailedError(Exception):
    """A process that ended with an error; the message is its last line."""


@dataclass
class Ended:
    """A process that is over.

    seconds:  from start to exit
    others:   share of the machine's CPUs, 0-1, that others used meanwhile
    last:     last line of its standard output
    """

    seconds: float
    others: float
    last: str


@dataclass
class Bench:
    """What all runs share.

    data:      folder of flowers-102/ and weights/
    scratch:   a folder that is thrown away
    threads:   of each process's tensor operations
    workers:   processes that decode, for every system
    frozen, unfrozen:  epochs
    more:      further settings of thaw
    """

    data: Path
    scratch: Path
    threads: int
    workers: int
    frozen: int = 5
    unfrozen: int = 5
    more: list[str] = field(default_factory=list)
    count: int = 0

    def folder(self, name: str) -> Path:
        """A new one."""
        self.count += 1
        made = self.scratch / f"{self.count:03d}-{name}"
        made.mkdir(parents=True)
        return made

    def run(self, name: str, *command: str) -> Ended:
        """Runs `python command` to its end.

        Raises:
            FailedError: it failed, or took too long.
        """
        folder = self.folder(f"log-{name}")
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if name != "peer_fastai":  # Lightning would find its rich and use it
            paths = [path for path in paths if not (Path(path) / "fastai").exists()]
        started, before = time.time(), others()
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *paths]),
            "OMP_NUM_THREADS": str(self.threads), "CUDA_VISIBLE_DEVICES": "",
            "BENCH_STARTED": str(started),
        }  # fmt: skip
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=out, stderr=err, env=environment, cwd=HERE.parent
            )
            try:
                code = process.wait(LIMIT)
            except BaseException:  # too long, or Ctrl-C here
                process.kill()
                raise
        seconds = time.time() - started
        share = max(0.0, (others() - before) / (seconds * len(own_cpus())))
        said = (folder / "out").read_text().strip().splitlines()
        if code:
            errors = (folder / "err").read_text().strip().splitlines() or said or ["no output"]
            raise FailedError(f"{name}: {errors[-1]}")
        return Ended(seconds, share, said[-1] if said else "")

    def script(self, file: str, *arguments: str) -> tuple[dict[str, Any], Ended]:
        """One of this folder, and the line of JSON that it ends with."""
        given = ["--data", str(self.data), "--workers", str(self.workers), *arguments]
        ended = self.run(file.removesuffix(".py"), str(HERE / file), *given)
        return json.loads(ended.last), ended

    def peer(
        self, name: str, backbone: str, seed: int, *, tuned: bool = False, head_only: bool = False
    ) -> dict[str, Any]:
        """Trains and tests one of `PEERS`.

        Args:
            tuned: with the rates of tuned.json; those of the peer's own page where it has none.
            head_only: only the frozen phase.
        """
        head, body = (tuned_rates(backbone, name) if tuned else None) or RATES[name]
        options = {"backbone": backbone, "frozen": self.frozen, "seed": seed,
                   "unfrozen": 0 if head_only else self.unfrozen,
                   "head-rate": head, "body-rate": body}  # fmt: skip
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        line, ended = self.script(f"peer_{name}.py", *words, *(["--tuned"] if tuned else []))
        return {**line, "head_rate": head, "body_rate": body, "process": ended.seconds,
                "others": ended.others}  # fmt: skip

    def thaw(self, backbone: str, *settings: str, cache: Path | None = None) -> dict[str, Any]:
        """A run of train.py on the job's photos.

        Args:
            backbone: one of `BACKBONES`.
            settings: after those of the job.
            cache: folder of caches; None: a new one.
        """
        mode = [f"finetune.unfreeze_epoch={self.frozen}"]
        mode += ["finetune.unfrozen.warmup_epochs=0.5"] if self.unfrozen == 1 else []
        if any(word.startswith("finetune=") for word in settings):
            mode = []  # another mode has no such keys
        name, file = THAW_NAMES[backbone], BACKBONES[backbone].file
        seen, ended, out = self.train(
            f"backbone={name}", f"backbone.weights='{self.data}/weights/{file}'",
            "backbone.image_size=128", "data=flowers102", f"paths.data_dir='{self.data}'",
            f"data.num_workers={self.workers}", f"trainer.max_epochs={self.frozen + self.unfrozen}",
            *mode, *self.more, *settings, cache=cache,
        )  # fmt: skip
        results = json.loads((out / "results.json").read_text())
        seconds = {phase["name"]: phase["seconds"] for phase in results["phases"]}
        return {
            "seconds": {**seen["seconds"], **seconds}, "epochs": seen["epochs"],
            "val": results.get("val/acc"), "test": results.get("test/acc"),
            "process": ended.seconds, "others": ended.others,
        }  # fmt: skip

    def train(
        self, *settings: str, cache: Path | None = None
    ) -> tuple[dict[str, Any], Ended, Path]:
        """Any run of train.py: what watch.py saw, the process, the folder of the run."""
        out = self.folder("thaw")
        ended = self.run(
            "thaw", str(HERE.parent / "train.py"), *settings, "trainer=cpu",
            "+callbacks.watch._target_=watch.Watch", f"paths.root_dir='{out}'",
            f"paths.cache_dir='{cache or out / 'cache'}'", f"hydra.run.dir='{out}'",
        )  # fmt: skip
        return json.loads((out / "watch.json").read_text()), ended, out

    def forget(self) -> None:
        """Deletes what the runs so far wrote."""
        shutil.rmtree(self.scratch)
        self.scratch.mkdir()


def environment(bench: Bench) -> dict[str, Any]:
    """Everything that can change a figure."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((x.split(": ")[1] for x in lines if x.startswith("model name")), platform.machine())
    packages = ("torch", "torchvision", "lightning", "fastai", "timm")
    there = {each.name for each in importlib.metadata.distributions()}
    versions = [f"{each} {importlib.metadata.version(each)}" for each in packages if each in there]
    git = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"],
                         capture_output=True, text=True, check=False).stdout.strip()  # fmt: skip
    return {
        "command": f"python {' '.join(sys.argv)}",
        "thaw": f"commit {git or 'unknown'}",
        "versions": f"python {platform.python_version()}, " + ", ".join(versions),
        "machine": f"{cpu}, {len(own_cpus())} of {os.cpu_count()} CPUs",
        "threads": f"{bench.threads} for tensors, {bench.workers} decoding process(es)",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def own_cpus() -> list[int]:
    """The numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def others() -> float:
    """Seconds of CPU that anything but this process and its ended children has used so far.

    Of the CPUs that this process may run on: `taskset -c 0 make bench` keeps it apart.
    """
    used = 0.0
    for cpu in own_cpus():
        every = psutil.cpu_times(percpu=True)[cpu]
        idle = every.idle + getattr(every, "iowait", 0.0)
        guests = getattr(every, "guest", 0.0) + getattr(every, "guest_nice", 0.0)  # in user already
        used += sum(every) - guests - idle
    return used - sum(os.times()[:4])
