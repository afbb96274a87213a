"""Sweeps of a train.py whose runs do next to nothing, to test in a second what is around them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import ROOT

# Behaves as scenario.json says for its seed; leaves a line in ran.txt each time it is called.
SCRIPT = r"""
import json, os, signal, sys, time
from pathlib import Path

import hydra

from thaw import launch
from thaw.errors import ConfigError, Interrupted
from thaw.jobs import job


def run(cfg):
    folder = Path(cfg.paths.output_dir)
    with (folder / "ran.txt").open("a") as file:
        file.write(f"{cfg.resume}\n")
    word = json.loads((Path(__file__).parent / "scenario.json").read_text()).get(str(cfg.seed), "")
    if word == "config":
        raise ConfigError(f"seed={cfg.seed}: is refused")
    if word == "memory":
        raise MemoryError("no room")
    if word == "interrupted":
        raise Interrupted(folder / "checkpoints" / "interrupted.ckpt")
    if word == "nan":
        return {"val/acc": float("nan")}
    if word == "kill":
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "bare kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "sleep":
        (folder / "ready").touch()
        time.sleep(60)
    return {"val/acc": cfg.seed / 10, "val/loss": 1 - cfg.seed / 10, "lr": cfg.finetune.unfrozen.lr}


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    return job.perform(run, cfg)


if __name__ == "__main__":
    launch.register_backbones()
    with launch.explained():
        sys.argv[1:] = launch.resume_arguments(sys.argv[1:])
        main()
"""


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
        environment = {**os.environ, "PYTHONPATH": _search_path(), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, *words], cwd=self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def sweep(self) -> Path:
        """The folder of the only sweep."""
        (found,) = (self.root / "logs" / "train" / "multiruns").iterdir()
        return found

    def ran(self) -> dict[int, list[str]]:
        """Of each job of the only sweep, the `resume` of each time that it ran."""
        files = sorted(self.sweep().glob("*/ran.txt"))
        return {number(file.parent): file.read_text().splitlines() for file in files}


def number(folder: Path) -> int:
    match = re.match(r"\d+", folder.name)
    assert match is not None, folder
    return int(match[0])


def states(folder: Path) -> dict[int, str]:
    """As written, by job."""
    written: dict[int, Any] = {
        number(file.parent): json.loads(file.read_text()) for file in folder.glob("*/status.json")
    }
    return {job: written[job]["state"] for job in sorted(written)}


def _search_path() -> str:
    given = os.environ.get("PYTHONPATH", "")
    ours = [str(ROOT / "src"), str(ROOT / "tests")]
    return os.pathsep.join([*ours, *([given] if given else [])])


def _end(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
