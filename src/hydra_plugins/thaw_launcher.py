"""Sweeps: each job is a process of its own. Hydra finds the launcher in this folder."""

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

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from thaw.errors import ConfigError
from thaw.launch import explained, key_of, last_checkpoint, quoted, saved_words
from thaw.sweeps import new_folder, results_of, value

OF_SWEEPS = ("hydra.mode", "hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher")


class ThawLauncher(Launcher):
    """Runs each job of a sweep as `python train.py` in a process of its own.

    So a failure ends that job alone, its memory is freed, and Lightning's ddp works inside. A job
    that has results is not run again, and one that has a checkpoint goes on from it.

    Args:
        n_jobs: Jobs at the same time; they share out the GPUs and the CPU cores.
    """

    def __init__(self, n_jobs: int = 1) -> None:
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: allowed is a whole number from 1")
        self.n_jobs = n_jobs
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before the first job."""
        self.loader, self.config = hydra_context.config_loader, config
        self.script = Path(getfile(task_function)).resolve()
        sweep = config.hydra.sweep.dir
        self.lock = FileLock(f"{sweep}/.lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{sweep}: this sweep is still running; stop it first") from None
        signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs inherit what is ignored
        for name in ("SIGTERM", "SIGHUP"):  # end a sweep as Ctrl-C does, but for nohup's SIGHUP
            number = getattr(signal, name, signal.SIGTERM)  # Windows has no SIGHUP
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs jobs, whose settings Hydra hands over, to their end.

        Raises:
            SystemExit: 130 after Ctrl-C or SIGTERM; the jobs have saved a checkpoint.
        """
        jobs: list[JobReturn] = []
        for number, words in enumerate(job_overrides, initial_job_idx):
            cfg = self.loader.load_sweep_config(self.config, list(words))
            OmegaConf.set_struct(cfg, False)
            cfg.hydra.job.num = number
            folder = f"{cfg.hydra.sweep.dir}/{cfg.hydra.sweep.subdir}"
            # A failed job is one without a value: of one marked as failed Hydra raises the error.
            jobs.append(JobReturn(words, cfg, working_dir=folder, status=JobStatus.COMPLETED))
        try:
            self._run(jobs)
        except KeyboardInterrupt:
            for process in self.running.values():
                process.send_signal(signal.SIGINT)
            for process in self.running.values():
                process.wait()
            again = f"thaw sweep resume {quoted(self.config.hydra.sweep.dir)}"
            print(f"\nstopped; go on with: {again}", file=sys.stderr)
            raise SystemExit(130) from None
        for job in jobs:
            job.return_value = value(results_of(Path(job.working_dir)) or {}, job.cfg.monitor)
        return jobs

    def _run(self, jobs: Sequence[JobReturn]) -> None:
        waiting = [job for job in jobs if not results_of(Path(job.working_dir))]
        while waiting or self.running:
            for slot in range(self.n_jobs):
                if slot in self.running and self.running[slot].poll() is not None:
                    del self.running[slot]
                if waiting and slot not in self.running:
                    self.running[slot] = self._start(waiting.pop(0), slot)
            time.sleep(0.05)

    def _start(self, job: JobReturn, slot: int) -> subprocess.Popen[bytes]:
        folder, environment = Path(job.working_dir), dict(os.environ)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"\njob       {folder}", flush=True)
        if self.n_jobs > 1 and (gpus := visible_gpus()):
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._share(gpus, slot))
        with contextlib.ExitStack() as files:
            output = None  # the terminal; of several jobs at once each writes to a file
            if self.n_jobs > 1:
                output = files.enter_context((folder / "output.txt").open("ab"))
            process = subprocess.Popen(
                [sys.executable, str(self.script), *self.arguments(folder, job.overrides)],
                cwd=self.config.hydra.runtime.cwd, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output,
                process_group=0,  # so that Ctrl-C reaches a job through this process alone, once
            )  # fmt: skip
        if self.n_jobs > 1 and hasattr(os, "sched_setaffinity"):  # torch counts threads by it
            os.sched_setaffinity(process.pid, self._share(sorted(os.sched_getaffinity(0)), slot))
        return process

    def _share(self, items: Sequence[Any], slot: int) -> Sequence[Any]:
        return items[slot :: self.n_jobs] or [items[slot % len(items)]]

    def arguments(self, folder: Path, words: Sequence[str] | None) -> list[str]:
        """The words of a job after `python train.py`; a job that goes on has its own settings."""
        given = [str(word) for word in self.config.hydra.overrides.hydra]
        shared = [word for word in given if not key_of(word).startswith(OF_SWEEPS)]
        if last_checkpoint(folder):
            return [*shared, f"resume={quoted(folder)}"]
        return [*shared, *(words or ()), f"hydra.run.dir={quoted(folder)}", "hydra.mode=RUN"]


class SweepFolder(Callback):
    """Gives each sweep a folder of its own, and says at its end what failed."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Makes the folder, and tells the jobs of it; one that the command line names goes on."""
        folder, ours = Path(config.hydra.sweep.dir), config.hydra.overrides.hydra
        words = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        if "hydra.sweep.dir" not in map(key_of, ours):
            folder = new_folder(folder)
        elif (folder / "multirun.yaml").is_file() and saved_words(folder / "multirun.yaml") != words:
            before = " ".join(saved_words(folder / "multirun.yaml"))
            with explained():  # Hydra turns other errors of a callback into warnings
                raise ConfigError(f"hydra.sweep.dir={folder}: holds another sweep ({before})")
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.update(config, "hydra.sweep.dir", str(folder))
        config.hydra.overrides.hydra = [*ours, f"hydra.sweep.dir={quoted(folder)}"]  # of each job
        OmegaConf.save(config, folder / "multirun.yaml")  # Optuna's sweeper does not
        print(f"sweep     {folder}", flush=True)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Says how many jobs are done; where some failed, the program ends with 1."""
        sweep = Path(config.hydra.sweep.dir)
        jobs = sorted(sweep.glob("[0-9]*/"))
        failed = [job for job in jobs if not results_of(job)]
        for job in failed:
            file = job / "error.txt"
            why = file.read_text("utf-8") if file.is_file() else "its process was killed"
            print(f"\nfailed: {job}: {why}", file=sys.stderr)
        print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs done")
        if failed:
            print(f"run the others again with: thaw sweep resume {quoted(sweep)}")
            raise SystemExit(1)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
