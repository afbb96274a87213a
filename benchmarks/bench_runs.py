"""Starts what bench.py measures, each in a process of its own with the same threads, and watches
its memory. thaw runs as `train.py`, the others as peer_*.py.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
PEERS = {"plain": "plain PyTorch", "lightning": "Lightning BackboneFinetuning",
         "fastai": "fastai fine_tune", "timm": "timm"}  # fmt: skip
TITLES = {"thaw": "thaw", **PEERS}
LIMIT = 3 * 3600  # seconds for one process
CACHED = ["finetune=feature_extraction", "finetune.cache_features=true", "finetune.cached_views=1"]


class FailedError(Exception):
    """A process that ended with an error; the message is its last line."""


@dataclass
class Ended:
    """A process that is over.

    seconds:  from start to exit
    memory:   the most that it and its workers held together, MB; shared pages count once
    others:   share of the machine's CPUs, 0-1, that others used meanwhile
    last:     last line of its standard output
    """

    seconds: float
    memory: float
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
        if name not in ("peer_fastai", "peer_timm"):  # Lightning would find their rich and use it
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
            peak = Peak(process.pid)
            try:
                code = process.wait(LIMIT)
            except BaseException:  # too long, or Ctrl-C here
                process.kill()
                raise
            finally:
                memory = peak.stop()
        seconds = time.time() - started
        share = max(0.0, (others() - before) / (seconds * (psutil.cpu_count() or 1)))
        said = (folder / "out").read_text().strip().splitlines()
        if code:
            errors = (folder / "err").read_text().strip().splitlines() or said or ["no output"]
            raise FailedError(f"{name}: {errors[-1]}")
        return Ended(seconds, memory, share, said[-1] if said else "")

    def script(self, file: str, *arguments: str) -> tuple[dict[str, Any], Ended]:
        """One of this folder, and the line of JSON that it ends with."""
        given = ["--data", str(self.data), "--workers", str(self.workers), *arguments]
        ended = self.run(file.removesuffix(".py"), str(HERE / file), *given)
        return json.loads(ended.last), ended

    def peer(self, name: str, seed: int, frozen: int, unfrozen: int) -> dict[str, Any]:
        """Trains and tests one of `PEERS`."""
        options = {"frozen": frozen, "unfrozen": unfrozen, "seed": seed}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        line, ended = self.script(f"peer_{name}.py", *words)
        return {**line, **measured(ended)}

    def thaw(self, *settings: str, cache: Path | None = None) -> dict[str, Any]:
        """A run of train.py on the job's network and photos.

        Args:
            settings: after those of the job.
            cache: folder of caches; None: a new one.
        """
        mode = [f"finetune.unfreeze_epoch={self.frozen}"]
        mode += ["finetune.unfrozen.warmup_epochs=0.5"] if self.unfrozen == 1 else []
        if any(word.startswith("finetune=") for word in settings):
            mode = []  # another mode has no such keys
        seen, ended, out = self.train(
            "backbone=mobilenet_v2", f"backbone.weights='{self.data}/weights/mobilenet_v2.pth'",
            "backbone.image_size=128", "data=flowers102", f"paths.data_dir='{self.data}'",
            f"data.num_workers={self.workers}", f"trainer.max_epochs={self.frozen + self.unfrozen}",
            *mode, *self.more, *settings, cache=cache,
        )  # fmt: skip
        results = json.loads((out / "results.json").read_text())
        seconds = {phase["name"]: phase["seconds"] for phase in results["phases"]}
        return {
            "seconds": {**seen["seconds"], **seconds}, "epochs": seen["epochs"],
            "val": results.get("val/acc"), "test": results.get("test/acc"), **measured(ended),
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


def measured(ended: Ended) -> dict[str, float]:
    """What bench.json says of every process."""
    return {"memory": ended.memory, "process": ended.seconds, "others": ended.others}


def others() -> float:
    """Seconds of CPU that anything but this process and its ended children has used so far."""
    every = psutil.cpu_times()
    idle = every.idle + getattr(every, "iowait", 0.0)
    guests = getattr(every, "guest", 0.0) + getattr(every, "guest_nice", 0.0)  # in user already
    return sum(every) - guests - idle - sum(os.times()[:4])


class Peak(threading.Thread):
    """Looks every five seconds at the memory of a process and its children: looking costs time."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.over, self.bytes = psutil.Process(pid), threading.Event(), 0
        self.start()

    def run(self) -> None:
        """Until `stop`."""
        while not self.over.wait(5.0):
            self.bytes = max(self.bytes, self.now())

    def now(self) -> int:
        """Bytes; proportional to how many share a page, where the system says (Linux)."""
        total = 0
        try:
            for process in [self.root, *self.root.children(recursive=True)]:
                found = process.memory_full_info()
                total += getattr(found, "pss", found.rss)
        except psutil.Error:  # one of them has just ended
            return 0
        return total

    def stop(self) -> float:
        """The peak, MB."""
        self.over.set()
        self.join()
        return self.bytes / 1e6
