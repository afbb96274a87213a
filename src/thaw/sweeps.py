"""Run folders: results.json says that a run is finished, error.txt why it failed."""

import contextlib
import hashlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from thaw.errors import ConfigError, check, reason
from thaw.launch import explained, key_of
from thaw.store import last_checkpoints, read_plain
from thaw.training.measures import MODES


def perform(run: Callable[[DictConfig], Mapping[str, Any]], cfg: DictConfig) -> float | None:
    """Does a run and returns its monitored metric; when it fails, error.txt says why."""
    folder = Path(cfg.paths.output_dir)
    in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN  # other launchers, such as submitit
    if in_sweep and (done := results_of(folder)):
        return value(done, cfg.monitor)
    if in_sweep and last_checkpoints(folder):
        cfg.resume = str(folder)
    results, finished = folder / "results.json", None
    if cfg.train and is_first_rank():  # a run that trains on is not finished until it ends
        finished = results.read_bytes() if results.is_file() else None
        results.unlink(missing_ok=True)
        (folder / "error.txt").unlink(missing_ok=True)
    with contextlib.nullcontext() if in_sweep else explained(folder=folder):
        try:
            return value(run(cfg), cfg.monitor)
        except Exception as error:  # whatever it is, the folder says why, and the caller hears too
            if finished and isinstance(error, ConfigError):  # refused before anything was changed
                results.write_bytes(finished)
            with contextlib.suppress(OSError):  # as on a full disk, which is the error then
                (folder / "error.txt").write_text(reason(error), "utf-8", "backslashreplace")
            raise


def is_first_rank() -> bool:
    """Whether this process alone writes what all ranks of a run share."""
    return all(os.environ.get(n, "0") == "0" for n in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def results_of(folder: Path) -> dict[str, Any] | None:
    """The content of results.json; None: the run is not done."""
    file = folder / "results.json"
    return read_plain(file) if file.is_file() else None


def value(results: Mapping[str, Any], metric: str) -> float | None:
    """A metric; None where it is not a finite number, at which a search would end."""
    number = results.get(metric)
    return number if isinstance(number, int | float) and math.isfinite(number) else None


def new_folder(folder: Path) -> Path:
    """Makes a folder of this name or, where there is one, with _2, _3, ... behind it."""
    number, path = 1, folder
    while True:
        with contextlib.suppress(FileExistsError):  # the system makes a folder only once
            path.mkdir(parents=True)
            return path
        number += 1
        path = folder.with_name(f"{folder.name}_{number}")


class RunFolder(Callback):
    """Gives each run a folder of its own; Hydra's is shared by runs that start in one second."""

    def __init__(self) -> None:  # here, since Hydra brings callbacks to other processes
        OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)
        modes = {key: f"{mode}imize" for key, mode in MODES.items()}
        OmegaConf.register_new_resolver("direction", lambda m: modes.get(m[4:]), replace=True)

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Makes the folder; one that the command line names must hold no results."""
        folder = Path(config.hydra.run.dir).expanduser()
        if config.hydra.run.dir[:1] == "~":
            config.hydra.run.dir = str(folder)  # on all ranks
        if not is_first_rank():
            return
        with explained():  # Hydra turns other errors of a callback into warnings
            given = "hydra.run.dir" in map(key_of, config.hydra.overrides.hydra)
            check(config.hydra.run.dir > "", "hydra.run.dir", "", "the path of a folder")
            words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
            other = "paths.output_dir" in map(key_of, words)
            check(not other, "paths.output_dir", "...", "hydra.run.dir=FOLDER in place of it")
            try:
                if given:
                    folder.mkdir(parents=True, exist_ok=True)
                else:
                    config.hydra.run.dir = str(new_folder(folder))
            except OSError as error:
                message = f"{error}: choose another folder by paths.root_dir or hydra.run.dir"
                raise ConfigError(message) from error
            if given and results_of(folder) and not config.resume:
                message = f"hydra.run.dir={folder}: holds the results of a run; choose another"
                raise ConfigError(f"{message} folder, or go on with it by resume={folder}")


def _job_folder(number: int, words: ListConfig) -> str:
    """With a digest of the job's settings, since a search that is resumed may draw others."""
    given = OmegaConf.to_container(words, resolve=False)
    return f"{number}_{hashlib.sha256(repr(given).encode()).hexdigest()[:6]}"
