"""Sweeps of a train.py whose runs do next to nothing, to test in a second what is around them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import ROOT

from hydra_plugins.thaw_launcher import error_of
from thaw.sweeps import results_of

# Behaves as scenario.json says for its seed; leaves a line in ran.txt each time it is called.
SCRIPT = r"""
import json, os, signal, time
from pathlib import Path

import hydra

from thaw import launch, sweeps
from thaw.errors import ConfigError, Interrupted


def run(cfg):
    folder = Path(cfg.paths.output_dir)
    shared = [os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with (folder / "ran.txt").open("a") as file:
        file.write(json.dumps([cfg.resume, *shared, cores, time.time()]) + "\n")
    word = json.loads((Path(__file__).parent / "scenario.json").read_text()).get(str(cfg.seed), "")
    if word == "config":
        raise ConfigError(f"seed={cfg.seed}: is refused")
    if word == "memory":
        raise MemoryError("no room")
    if word == "kill":
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "sleep":
        (folder / "ready").touch()
        try:
            time.sleep(60)
        except Interrupted:
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "last.ckpt").touch()
            raise
    value = float("nan") if word == "nan" else cfg.seed / 10
    results = {"val/acc": value, "val/loss": 1 - value, "lr": cfg.finetune.unfrozen.lr}
    (folder / "results.json").write_text(json.dumps(results))
    return results


@launch.command
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    return sweeps.perform(run, cfg)


if __name__ == "__main__":
    main()
"""


THREADS = {"OMP_NUM_THREADS": "1"}  # of each process


class Place:
    """A folder with such a train.py, and its sweeps.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "conf").symlink_to(ROOT / "conf")
        (root / "train.py").write_text(SCRIPT)
        self.scenario()

    def scenario(self, **words: str) -> None:
        """How runs behave: seed1="config" makes the one with seed=1 fail."""
        plain = {name.removeprefix("seed"): word.replace("_", " ") for name, word in words.items()}
        (self.root / "scenario.json").write_text(json.dumps(plain))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """train.py, in a process of its own."""
        return self._popen(str(self.root / "train.py"), *words)

    def thaw(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command `thaw`, to its end."""
        return _end(self._popen("-c", "import thaw.cli; thaw.cli.main()", *words))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """train.py, to its end."""
        return _end(self.start(*words))

    def _popen(self, *words: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": _search_path(), **THREADS}
        return subprocess.Popen(
            [sys.executable, *words], cwd=self.root, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip

    def sweep(self) -> Path:
        """The folder of the only sweep."""
        (found,) = (self.root / "logs" / "train" / "multiruns").iterdir()
        return found

    def job(self, number: int) -> Path:
        (found,) = self.sweep().glob(f"{number}_*/")
        return found

    def ran(self) -> dict[int, list[list[Any]]]:
        """Of each job of the only sweep what each of its goes wrote, `resume` first."""
        files = sorted(self.sweep().glob("*/ran.txt"))
        return {
            int(file.parent.name.partition("_")[0]): [
                json.loads(line) for line in file.read_text().splitlines()
            ]
            for file in files
        }

    def resumed(self) -> dict[int, list[str | None]]:
        """Of each job the folder that each of its goes went on from."""
        return {job: [go[0] for go in goes] for job, goes in self.ran().items()}

    def states(self) -> dict[int, str]:
        """Of each job that began: done, or why it failed."""
        return {
            int(job.name.partition("_")[0]): "done" if results_of(job) else error_of(job)
            for job in sorted(self.sweep().glob("[0-9]*/"))
        }


def _search_path() -> str:
    given = os.environ.get("PYTHONPATH", "")
    ours = [str(ROOT / "src"), str(ROOT / "tests")]
    return os.pathsep.join([*ours, *([given] if given else [])])


def _end(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
