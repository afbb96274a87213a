"""Runs and their folders, alone and as the jobs of a sweep.

A folder tells what became of its run: it holds results.json when the run is done, and error.txt
when it failed. Nothing else is written down: a sweep that is started again in its folder goes on.
hydra_plugins/thaw_launcher.py starts the jobs.
"""

import contextlib
import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from thaw.errors import ConfigError, Interrupted, reason
from thaw.launch import checkpoints, explained, is_first_rank, key_of, quoted, saved_words

LONGEST = 120  # ASCII characters of a folder's name; file systems take 255, encrypted ones 143
FIXED = "hydra.job.config.override_dirname.exclude_keys"  # those with one value in all jobs


def perform(run: Callable[[DictConfig], Mapping[str, Any]], cfg: DictConfig) -> float | None:
    """Does a run; when it fails, its folder says why.

    Args:
        run: returns what results.json holds.
        cfg: of the run.

    Returns:
        The monitored metric.
    """
    folder = Path(cfg.paths.output_dir)
    in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN  # by a launcher of Hydra's, as submitit
    if in_sweep and is_done(folder):
        return value(folder, cfg.monitor)
    if in_sweep and checkpoints(folder):
        cfg.resume = str(folder)
    with contextlib.nullcontext() if in_sweep else explained():
        if is_first_rank():
            (folder / "error.txt").unlink(missing_ok=True)  # of an earlier go
        try:
            return finite(run(cfg).get(cfg.monitor))
        except Interrupted:
            raise
        except Exception as error:
            (folder / "error.txt").write_text(reason(error), encoding="utf-8")
            raise


def is_done(folder: Path) -> bool:
    """Whether a run has its results."""
    return (folder / "results.json").is_file()


def value(folder: Path, metric: str) -> float | None:
    """A metric of a run that is done."""
    return finite(json.loads((folder / "results.json").read_text("utf-8")).get(metric))


def finite(number: float | None) -> float | None:
    """None for nan too: a search counts a job without a value as failed, and ends at a nan."""
    return number if number is not None and math.isfinite(number) else None


def folder_name(number: int, words: Sequence[str], fixed: Sequence[str] = ()) -> str:
    """ "3_backbone-resnet18_lr-1e-3" for the folder of a job.

    Keys are cut to their last part, or to two where two keys end alike. No character is one that a
    file system or Hydra's command line takes for something else.

    Args:
        number: of the job; it alone makes the name unique.
        words: settings of the job.
        fixed: keys to leave out.
    """
    words = [word for word in words if key_of(word) not in fixed]
    keys = [re.split(r"[./]", key_of(word)) for word in words]
    ends = [key[-1] for key in keys]
    parts = [str(number)]
    for word, key in zip(words, keys, strict=True):
        text = word.partition("=")[2]
        with contextlib.suppress(ValueError):  # four digits of a number that a search drew
            text = f"{float(text):.4g}" if len(text) > 8 else text
        text = f"{'.'.join(key[-1:] if ends.count(key[-1]) == 1 else key[-2:])}-{text}"
        parts.append(re.sub(r"-*[^\w.+-]+-*", "-", text, flags=re.ASCII).rstrip("-."))
    name = "_".join(parts)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}"
    return name


def new_folder(folder: Path) -> Path:
    """Makes a folder of this name or, where there is one, with _2, _3, ... behind it.

    Two processes never get the same one, since the system makes a folder only once.

    Raises:
        ConfigError: the system refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            path = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be made ({error}); set paths.root_dir=... to where outputs may go"
        ) from error
    raise AssertionError


class Folders(Callback):
    """Gives each run and each sweep a folder of its own, and says at a sweep's end what failed.

    Hydra's names are the second of the start, so two that start in the same one would share a
    folder (lightning-hydra-template issue 511).
    """

    def __init__(self) -> None:
        # conf/hydra/ asks for both; Hydra brings the callback to other processes
        OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)
        OmegaConf.register_new_resolver("direction", _direction, replace=True)

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Makes the folder; one that the command line names must hold no results."""
        folder = Path(config.hydra.run.dir)
        with explained():  # Hydra turns other errors of a callback into warnings
            if not is_first_rank():
                return
            if "hydra.run.dir" not in map(key_of, config.hydra.overrides.hydra):
                config.hydra.run.dir = str(new_folder(folder))
            elif is_done(folder) and not config.resume:
                raise ConfigError(
                    f"hydra.run.dir={folder}: holds the results of a run; go on with it by "
                    f"resume={folder}, or choose another folder"
                )

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Makes the folder, and tells the jobs of it and of the settings that they share."""
        with explained():
            folder, fixed = str(_sweep_folder(config).resolve()), _fixed_keys(config)
        OmegaConf.update(config, "hydra.sweep.dir", folder)
        OmegaConf.update(config, FIXED, fixed)
        listed = ",".join(map(quoted, fixed))  # each job is composed anew, from these words
        words = [f"hydra.sweep.dir={quoted(folder)}", f"{FIXED}=[{listed}]"]
        config.hydra.overrides.hydra = [*config.hydra.overrides.hydra, *words]
        OmegaConf.save(config, Path(folder) / "multirun.yaml")  # Optuna's sweeper does not
        print(f"sweep     {folder}", flush=True)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Says how many jobs are done; where some failed, the program ends with 1."""
        folder = Path(config.hydra.sweep.dir)
        jobs = job_folders(folder)
        failed = [job for job in jobs if not is_done(job)]
        for job in failed:
            print(f"\nfailed: {job}: {error_of(job)}", file=sys.stderr)
        again = f", {len(failed)} failed; run them again with: thaw sweep resume {quoted(folder)}"
        print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs done{again * bool(failed)}")
        if failed:
            raise SystemExit(1)


def _sweep_folder(config: DictConfig) -> Path:
    folder = Path(config.hydra.sweep.dir)
    if not is_first_rank():
        raise ConfigError("-m: a sweep is started once, not by srun or torchrun in each process")
    if "hydra.sweep.dir" not in map(key_of, config.hydra.overrides.hydra):
        return new_folder(folder)
    if (folder / "multirun.yaml").is_file():
        before = saved_words(folder / "multirun.yaml", "hydra.overrides.task")
        if before != _strings(config.hydra.overrides.task):
            raise ConfigError(
                f"hydra.sweep.dir={folder}: holds another sweep ({' '.join(before)}); choose "
                "another folder"
            )
    return folder


def _fixed_keys(config: DictConfig) -> list[str]:
    words = _strings(config.hydra.overrides.task)
    parsed = OverridesParser.create().parse_overrides(words)
    both = zip(words, parsed, strict=True)
    return sorted({key_of(word) for word, override in both if not override.is_sweep_override()})


def _job_folder(number: int, words: ListConfig, fixed: ListConfig) -> str:
    return folder_name(number, _strings(words), _strings(fixed))


def _strings(node: ListConfig) -> list[str]:
    """As written: `${...}` stays."""
    return [str(word) for word in OmegaConf.to_container(node, resolve=False) or ()]


def _direction(monitor: str) -> str:
    from thaw.training.measures import MODES

    return f"{MODES.get(monitor.partition('/')[2], 'max')}imize"


def job_folders(sweep: Path) -> list[Path]:
    """Folders of a sweep's jobs, by number."""
    found = [path for path in sweep.iterdir() if path.is_dir() and path.name[0].isdigit()]
    return sorted(found, key=lambda path: int(path.name.partition("_")[0]))


def error_of(job: Path) -> str:
    """Why a job has no results."""
    file = job / "error.txt"
    return file.read_text("utf-8") if file.is_file() else "did not end"
