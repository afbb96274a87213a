"""A job of a sweep in processes of its own, where Lightning's ddp starts the program once a rank.

In the sweep's process that would go wrong three ways: each rank would start the whole sweep
(Lightning issue 11300), the next job would take itself for a rank of this one (by LOCAL_RANK), and
a rank that failed would take the sweep with it (Lightning's observer kills who started it).
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw import launch
from thaw.errors import ThawError
from thaw.jobs import status, sweep
from thaw.jobs.job_folder import key_of
from thaw.jobs.status import DONE, Status


class JobError(ThawError):
    """It has told why."""


def is_first() -> bool:
    """Whether this is the first rank of its run, as Lightning, torchrun and SLURM tell it."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def is_needed(trainer: DictConfig) -> bool:
    """Whether Lightning would start the program again for further ranks.

    Args:
        trainer: node of the configuration.
    """
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        return False  # SLURM has started them
    strategy = str(trainer.get("strategy", "auto"))
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        return False
    return strategy.startswith("ddp") or (strategy == "auto" and trainer.devices not in (1, "1"))


def perform(script: str, cfg: DictConfig, about: Status) -> float | None:
    """Runs the job as a run of its own, which keeps its status itself.

    Args:
        script: train.py, as Python was given it.
        cfg: of the job; its `resume` is kept.
        about: the job's number and overrides.

    Returns:
        The monitored metric.

    Raises:
        JobError: why.
        SystemExit: it was stopped.
    """
    hydra = HydraConfig.get()
    folder = Path(cfg.paths.output_dir)
    words = arguments(hydra, folder, about.job, resumes=bool(cfg.resume))
    command = [sys.executable, str(Path(hydra.runtime.cwd) / script), *words]
    code = _wait(subprocess.Popen(command, cwd=hydra.runtime.cwd))
    after = status.read(folder)
    if code == 130:
        raise SystemExit(130)
    if after is None or after.state not in DONE:
        error = after.error if after else None
        if error is None:
            error = f"its process ended with code {code}"
            if after is None or after.state != "running":  # else ours was refused beside it
                failed = replace(after or about, state="failed", error=error, ended=status.now())
                status.write(folder, failed)
        raise JobError(error)
    return after.value


def arguments(hydra: Any, folder: Path, job: int | None, *, resumes: bool) -> list[str]:
    """The command line of a job as a run of its own.

    Args:
        hydra: Hydra's own configuration, of the job.
        folder: of the job.
        job: its number.
        resumes: whether it goes on from what is in the folder.
    """
    words = [
        word
        for word in sweep.plain_list(hydra.overrides.hydra)
        if key_of(word) not in ("hydra.mode", "hydra.run.dir")
    ]
    if resumes:
        words.append(f"resume={folder}")  # brings the rest
    else:
        words += [w for w in sweep.plain_list(hydra.overrides.task) if key_of(w) != "resume"]
        words += [f"hydra.run.dir={launch.quoted(folder)}", "hydra.mode=RUN"]
    return [*words, f"hydra.job.num={job}"]


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit code.

    Asked to stop, this process lets the other one save its checkpoint first. A terminal tells both
    of Ctrl-C; of SIGTERM, and of a second Ctrl-C, this one tells the other.

    Raises:
        KeyboardInterrupt: it was asked to.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked or number == signal.SIGTERM:
            process.terminate()
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
    return code
