"""Sweeps: each job is a process of its own. Hydra finds the launcher in this folder."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from inspect import getfile
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from thaw.errors import ConfigError, Interrupted
from thaw.launch import explained, key_of, quoted, saved_words
from thaw.store import last_checkpoints
from thaw.sweeps import new_folder, results_of, value


class ThawLauncher(Launcher):
    """Runs jobs that have no results in a process each; `n_jobs` at once share GPUs and cores."""

    def __init__(self, n_jobs: int = 1) -> None:
        if not isinstance(n_jobs, int) or n_jobs < 1:
            raise ConfigError(f"hydra.launcher.n_jobs={n_jobs}: allowed is a whole number from 1")
        self.n_jobs = n_jobs
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.loader, self.config = hydra_context.config_loader, config
        self.script = str(Path(getfile(task_function)).resolve())
        self.lock = FileLock(Path(config.hydra.sweep.dir) / ".lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout as held:
            raise ConfigError(f"{held} This sweep is still running: stop it first") from None

        def stop(number: int, _frame: object) -> None:
            raise Interrupted(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # all end it as Ctrl-C does
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # by nohup
                signal.signal(number, stop)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs jobs to their end; exits with 130 (Ctrl-C) or 143 (SIGTERM) when they have saved."""
        jobs: dict[Path, DictConfig] = {}
        for number, words in enumerate(job_overrides, initial_job_idx):
            cfg = self.loader.load_sweep_config(self.config, list(words))
            OmegaConf.set_struct(cfg, False)
            cfg.hydra.job.num = number
            jobs[Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir] = cfg
        try:
            self._run(list(zip(jobs, job_overrides, strict=True)))
        except Interrupted as stopped:
            while self.running:  # a second Ctrl-C goes to the jobs too, see thaw.stopping
                for process in self.running.values():
                    process.send_signal(signal.SIGINT)
                with suppress(Interrupted):
                    for process in self.running.values():
                        process.wait()
                    self.running = {}
            sweep = quoted(self.config.hydra.sweep.dir)
            print(f"\nstopped; go on with: thaw sweep resume {sweep}", file=sys.stderr)
            raise SystemExit(128 + stopped.number) from None
        done = [JobReturn(cfg=cfg, working_dir=str(folder)) for folder, cfg in jobs.items()]
        for job, (folder, cfg) in zip(done, jobs.items(), strict=True):
            job.status = JobStatus.COMPLETED  # also of a failed job: Hydra would raise its error
            job.return_value = value(results_of(folder) or {}, cfg.monitor)
        return done

    def _run(self, jobs: Sequence[tuple[Path, Sequence[str]]]) -> None:
        waiting = [job for job in jobs if not results_of(job[0])]
        while waiting or self.running:
            self.running = {slot: job for slot, job in self.running.items() if job.poll() is None}
            free = set(range(self.n_jobs)) - self.running.keys()
            for slot in sorted(free)[: len(waiting)]:
                self.running[slot] = self._start(*waiting.pop(0), slot)
            time.sleep(0.05)

    def _start(self, folder: Path, words: Sequence[str], slot: int) -> subprocess.Popen[bytes]:
        folder.mkdir(parents=True, exist_ok=True)
        print(f"\njob       {folder}: {' '.join(words)}", flush=True)
        (folder / "error.txt").unlink(missing_ok=True)
        gpus = visible_gpus() if self.n_jobs > 1 else []
        own = {"CUDA_VISIBLE_DEVICES": ",".join(self._share(gpus, slot))} if gpus else {}
        # Several jobs at once write to a file each, not to the terminal.
        with (folder / "output.txt").open("ab") if self.n_jobs > 1 else nullcontext() as output:
            process = subprocess.Popen(
                [sys.executable, self.script, *self.arguments(folder, words)],
                cwd=self.config.hydra.runtime.cwd, env={**os.environ, **own}, stdout=output,
                stderr=output, stdin=subprocess.DEVNULL, process_group=0,  # no Ctrl-C but by us
            )  # fmt: skip
        if self.n_jobs > 1 and hasattr(os, "sched_setaffinity"):  # torch counts threads by it
            os.sched_setaffinity(process.pid, self._share(sorted(os.sched_getaffinity(0)), slot))
        return process

    def _share(self, items: Sequence[Any], slot: int) -> Sequence[Any]:
        return items[slot :: self.n_jobs] or [items[slot % len(items)]]

    def arguments(self, folder: Path, words: Sequence[str]) -> list[str]:
        """The words of a job after `python train.py`; a job that goes on has its own settings."""
        of_sweep = re.compile(r"\+*hydra[./](mode|sweep|launcher)")
        shared = [word for word in self.config.hydra.overrides.hydra if not of_sweep.match(word)]
        shared = [*hydra_flags(self.config.hydra), *shared]
        if last_checkpoints(folder):
            return [*shared, f"resume={quoted(folder)}"]
        return [*shared, *words, f"hydra.run.dir={quoted(folder)}", "hydra.mode=RUN"]


def hydra_flags(hydra: Any) -> list[str]:
    """The --config-dir and --config-name that a command was given, out of its node `hydra`."""
    sources = hydra["runtime"]["config_sources"]
    folders = [f"--config-dir={s['path']}" for s in sources if s["provider"] == "command-line"]
    return [*folders, f"--config-name={hydra['job']['config_name']}"]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return names.split(",") if names else list(map(str, range(torch.cuda.device_count())))


def error_of(folder: Path) -> str:
    """Why a job has no results."""
    file = folder / "error.txt"
    return file.read_text("utf-8") if file.is_file() else "its process was killed"


class SweepFolder(Callback):
    """Gives each sweep a folder of its own; at its end says what failed, and exits with 1."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir).expanduser().resolve()
        given = config.hydra.overrides.hydra
        if "hydra.sweep.dir" not in map(key_of, given):
            folder = new_folder(folder)
        elif (file := folder / "multirun.yaml").is_file():
            with explained():  # Hydra turns other errors of a callback into warnings
                before = saved_words(file, trusted=True)
                if before != OmegaConf.to_container(config.hydra.overrides.task, resolve=False):
                    raise ConfigError(f"{folder}: holds another sweep ({' '.join(before)})")
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.update(config, "hydra.sweep.dir", str(folder))
        config.hydra.overrides.hydra = [*given, f"hydra.sweep.dir={quoted(folder)}"]  # of each job
        OmegaConf.save(config, folder / "multirun.yaml")  # Optuna's sweeper does not
        print(f"sweep     {folder}", flush=True)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        jobs = sorted(Path(config.hydra.sweep.dir).glob("[0-9]*/"))
        failed = [job for job in jobs if not results_of(job) or (job / "error.txt").is_file()]
        for job in failed:
            print(f"\nfailed: {job}: {error_of(job)}", file=sys.stderr)
        print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs done")
        if any(not results_of(job) for job in failed):
            print(f"run the others again with: thaw sweep resume {quoted(config.hydra.sweep.dir)}")
        if failed:
            raise SystemExit(1)
