"""Hydra's launcher for sweeps: each job is a process of its own. Hydra finds it in this folder."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from inspect import getfile
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from thaw.errors import ConfigError
from thaw.launch import checkpoints, key_of, quoted
from thaw.sweeps import is_done, value


class ThawLauncher(Launcher):
    """Runs each job of a sweep as `python train.py` in a process of its own.

    So a failure ends that job alone, its memory is freed, and Lightning's ddp, which starts the
    program again for each further rank, works inside. A job that has results is not run again, and
    one that has a checkpoint goes on from it.

    Attributes:
        n_jobs: jobs at the same time; they share out the GPUs and the CPU cores.
    """

    def __init__(self, n_jobs: int = 1) -> None:
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: allowed is a whole number from 1")
        self.n_jobs = n_jobs
        self.running: dict[int, tuple[Path, subprocess.Popen[bytes]]] = {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before the first job."""
        self.loader, self.config = hydra_context.config_loader, config
        self.script = Path(getfile(task_function)).resolve()
        self.lock = lock(Path(config.hydra.sweep.dir))
        # Signals that end a sweep end it as Ctrl-C does, unless nohup or a shell had them ignored;
        # Ctrl-C itself always does, since the jobs inherit what is ignored.
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, signal.SIGTERM)  # Windows has no SIGHUP
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs jobs to their end.

        Args:
            job_overrides: the settings of each.
            initial_job_idx: number of the first.

        Raises:
            SystemExit: 130, asked to stop by Ctrl-C or SIGTERM; the jobs have saved a checkpoint.
        """
        jobs: dict[Path, DictConfig] = {}
        for number, words in enumerate(job_overrides, initial_job_idx):
            cfg = self.loader.load_sweep_config(self.config, list(words))
            OmegaConf.set_struct(cfg, False)
            cfg.hydra.job.num = number
            jobs[Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir] = cfg
        try:
            self._run(list(zip(jobs, job_overrides, strict=True)))
        except KeyboardInterrupt:
            for _, process in self.running.values():
                process.send_signal(signal.SIGINT)
            for _, process in self.running.values():
                process.wait()
            again = f"thaw sweep resume {quoted(self.config.hydra.sweep.dir)}"
            print(f"\nstopped; go on with: {again}", file=sys.stderr)
            raise SystemExit(130) from None
        return [_result(job, cfg) for job, cfg in jobs.items()]

    def _run(self, jobs: Sequence[tuple[Path, Sequence[str]]]) -> None:
        waiting = [job for job in jobs if not is_done(job[0])]
        while waiting or self.running:
            for slot in range(self.n_jobs):
                if slot in self.running and self.running[slot][1].poll() is not None:
                    job, process = self.running.pop(slot)
                    if process.returncode and not (job / "error.txt").is_file():
                        text = f"its process ended with code {process.returncode}"
                        (job / "error.txt").write_text(text, encoding="utf-8")
                if waiting and slot not in self.running:
                    job, words = waiting.pop(0)
                    self.running[slot] = job, self._start(job, words, slot)
            time.sleep(0.05)

    def _start(self, job: Path, words: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
        job.mkdir(parents=True, exist_ok=True)
        (job / "error.txt").unlink(missing_ok=True)
        print(f"\njob       {job}", flush=True)
        environment, cores = dict(os.environ), []
        if self.n_jobs > 1:
            cores = share(usable_cores(), slot, self.n_jobs)
            environment.setdefault("OMP_NUM_THREADS", str(len(cores)))
            if gpus := visible_gpus():
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(share(gpus, slot, self.n_jobs))
        with contextlib.ExitStack() as files:
            output = None  # the terminal; of several jobs at once each writes to a file
            if self.n_jobs > 1:
                output = files.enter_context((job / "output.txt").open("ab"))
            process = subprocess.Popen(
                [sys.executable, str(self.script), *self.arguments(job, words)],
                cwd=self.config.hydra.runtime.cwd, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, pass_fds=self.lock,
                process_group=0,  # so that Ctrl-C reaches a job through this process alone, once
            )  # fmt: skip
        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cores)
        return process

    def arguments(self, job: Path, words: Sequence[str]) -> list[str]:
        """The command line of a job, after `python train.py`.

        Args:
            job: its folder.
            words: its settings.
        """
        sweeps = ("hydra.mode", "hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher",
                  "hydra.job.config", "hydra.run.dir")  # fmt: skip
        given = [str(word) for word in self.config.hydra.overrides.hydra]
        shared = [word for word in given if not key_of(word).startswith(sweeps)]
        if checkpoints(job):
            return [*shared, f"resume={quoted(job)}"]  # brings the rest
        return [*shared, *words, f"hydra.run.dir={quoted(job)}", "hydra.mode=RUN"]


def _result(job: Path, cfg: DictConfig) -> JobReturn:
    """A failed job is one without a value: of one that is marked failed Hydra raises the error."""
    result = JobReturn(cfg=cfg, working_dir=str(job), status=JobStatus.COMPLETED)
    result.return_value = value(job, cfg.monitor) if is_done(job) else None
    return result


def lock(sweep: Path) -> list[int]:
    """Locks a sweep until this process and all jobs that inherit the lock have ended.

    Returns:
        The open file, for the jobs; nothing where the system has no locks.

    Raises:
        ConfigError: the sweep, or a job that outlived it, is still running.
    """
    try:
        import fcntl

        sweep.mkdir(parents=True, exist_ok=True)
        file = os.open(sweep / ".lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{sweep}: this sweep, or a job of it, is still running; wait until it ends, or stop it"
        ) from None
    except (ImportError, OSError):  # Windows; some network file systems
        return []
    return [file]


def share(items: Sequence[Any], slot: int, slots: int) -> Sequence[Any]:
    """A slot's part of the GPUs or cores; several slots have the same one where there are few."""
    return items[slot::slots] or [items[slot % len(items)]]


def usable_cores() -> list[int]:
    """Numbers of the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
