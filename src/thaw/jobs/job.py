"""What one of Hydra's jobs does: a run, whose failure does not end the sweep it is one of."""

import gc
import math
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from thaw import launch
from thaw.errors import ConfigError, Interrupted, ThawError, reason
from thaw.jobs import own_process, status, sweep
from thaw.jobs.job_folder import key_of
from thaw.jobs.status import DONE, Status

Run = Callable[[DictConfig], dict[str, Any]]


def perform(run: Run, cfg: DictConfig) -> float | None:
    """What one job of Hydra's does.

    A run of its own ends the program as `launch.explained` says. A job of a sweep that fails is
    written down and told, and the sweep goes on; Ctrl-C and SIGTERM end the sweep.

    Args:
        run: gives what results.json holds.
        cfg: of the job.

    Returns:
        The monitored metric; None for a job of a sweep that failed, or whose metric is not finite.
    """
    hydra = HydraConfig.get()
    folder = Path(cfg.paths.output_dir)
    about = _about(hydra, folder, resumes=bool(cfg.resume))
    if hydra.mode is RunMode.MULTIRUN:
        return _perform_in_sweep(run, cfg, folder, about)
    with launch.explained():
        return _kept(run, cfg, folder, about)


def _kept(run: Run, cfg: DictConfig, folder: Path, about: Status) -> float | None:
    if not own_process.is_first():
        return run(cfg).get(cfg.monitor)
    return status.keep(folder, about, lambda: run(cfg), cfg.monitor)


def _perform_in_sweep(run: Run, cfg: DictConfig, folder: Path, about: Status) -> float | None:
    """Where SLURM starts every rank, each decides for itself, from the same files: the first writes
    nothing that would change the others' minds before they have met it in the training. (Where a
    process of an earlier go still lives, the first is refused and the others wait in vain.)
    """
    hydra = HydraConfig.get()
    with launch.explained():
        before = _before(folder, about)
    if before and before.state in DONE:
        print(f"job {about.job} is done, and is not run again: {folder}")
        return _finite(before.value)
    if before and before.state == "failed" and sweep.is_search(hydra):
        # the search went on from this failure; another outcome would make it draw other jobs
        print(f"job {about.job} failed, and is not run again in a search: {folder}")
        return None
    if launch.checkpoints(folder):
        cfg.resume = str(folder)
    elif own_process.is_first():  # what a killed first epoch left
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    try:
        if own_process.is_needed(cfg.trainer):
            return _finite(own_process.perform(run.__code__.co_filename, cfg, about))
        return _finite(_kept(run, cfg, folder, about))
    except (Interrupted, SystemExit) as stop:
        print(f"\nstopped; go on with: thaw sweep resume {folder.parent}", file=sys.stderr)
        raise SystemExit(130) from stop
    except Exception as error:  # said here and in status.json, listed at the end; the rest goes on
        if not isinstance(error, ThawError):
            traceback.print_exc()
        print(f"\nerror: job {about.job} failed: {reason(error)}", file=sys.stderr)
        return None
    finally:
        _clean_up()


def _finite(value: float | None) -> float | None:
    """None for nan too: a search bears the one as a failure, and ends at the other."""
    return value if value is not None and math.isfinite(value) else None


def _about(hydra: Any, folder: Path, *, resumes: bool) -> Status:
    """Number and overrides; a job that is resumed by itself stays one of its sweep."""
    words = sweep.plain_list(hydra.overrides.task)
    left_out = ("resume", "ckpt_path") if resumes else ("resume",)
    overrides = tuple(word for word in words if key_of(word) not in left_out)
    if not OmegaConf.is_missing(hydra.job, "num"):
        return Status(job=hydra.job.num, overrides=overrides)
    before = status.read(folder)
    return Status(job=before.job if before else None, overrides=overrides)


def _before(folder: Path, about: Status) -> Status | None:
    """What an earlier go left in the folder.

    Raises:
        ConfigError: it is of another job.
    """
    before = status.read(folder)
    # a run that was resumed has gone on from its own checkpoint, and has no ckpt_path any more
    given, had = ([word for word in each.overrides if key_of(word) != "ckpt_path"]
                  for each in (about, before or about))  # fmt: skip
    if before and given != had:
        raise ConfigError(
            f"{folder}: holds a run with other settings ({' '.join(before.overrides)}) than job "
            f"{about.job} ({' '.join(about.overrides)}); delete the folder, or leave "
            "hydra.sweep.subdir as it is, with the job's number in it"
        )
    return before


def _clean_up() -> None:
    """Gives a failed job's memory back, also the GPU's: cycles keep its tensors."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
