"""What Hydra calls around runs and sweeps: each gets a folder of its own, a sweep tells its end."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from thaw import launch
from thaw.errors import ConfigError, ThawError
from thaw.jobs import own_process, status, sweep
from thaw.jobs.job_folder import claim, folder_name, key_of
from thaw.jobs.status import DONE

# The sweep's lock; not the callback's, which launchers pickle. It ends with the process anyway.
_held = ExitStack()


class Folders(Callback):
    """Gives each run and each sweep a folder that no other has, and lists what failed at the end.

    Hydra's own names are the second of the start, so two that start in the same one share a folder
    (lightning-hydra-template issue 511).
    """

    def __init__(self) -> None:
        # conf/hydra/default.yaml asks for both; Hydra's launchers bring them to other processes
        OmegaConf.register_new_resolver("job_folder", _name, replace=True)
        OmegaConf.register_new_resolver("settings_folder", _settings_folder, replace=True)

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Unless the command line names the folder, as `resume=` and ddp's further ranks do."""
        if own_process.is_first() and "hydra.run.dir" not in _keys(config):
            with ending():
                config.hydra.run.dir = str(claim(Path(config.hydra.run.dir)))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Takes a folder, tells the jobs which settings differ, keeps the command."""
        signal.signal(signal.SIGTERM, _stop)
        with ending():
            folder = _sweep_folder(config)
            if own_process.is_first():
                refusal = f"{folder}: another process is at work on this sweep"
                _held.enter_context(status.hold(folder / "sweep.lock", refusal))
            _check_is_same(config, folder)
            _fit_direction(config)
            self._tell(config, folder)
        print(f"sweep     {folder}; stopped or failed: thaw sweep resume {folder}")

    def _tell(self, config: DictConfig, folder: Path) -> None:
        fixed = set(config.hydra.job.config.override_dirname.exclude_keys) | _fixed_keys(config)
        listed = ",".join(launch.quoted(key) for key in sorted(fixed))
        # Jobs are composed anew from these words, in other processes too.
        _set(config, "hydra.sweep.dir", launch.quoted(folder))
        _set(config, "hydra.job.config.override_dirname.exclude_keys", f"[{listed}]")
        config.hydra.sweep.dir = str(folder)
        config.hydra.job.config.override_dirname.exclude_keys = sorted(fixed)
        if own_process.is_first():
            OmegaConf.save(config, folder / "multirun.yaml")  # Hydra's sweeper does, others do not

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Lists the jobs that failed; then the program ends with 1."""
        _held.close()
        folder = Path(config.hydra.sweep.dir)
        with ending():
            found = sweep.read(folder)
        print(f"{sweep.summary(found)}: {folder}")
        failed = [job for job in found.jobs if job.state not in (*DONE, "waiting", "running")]
        for job in failed:
            assert job.status is not None
            text = f"{job.folder}: {job.state}, {job.status.error or 'without a word'}"
            print(f"\n{text}", file=sys.stderr)
        if failed:
            raise SystemExit(1)


@contextmanager
def ending() -> Iterator[None]:
    """Errors end the program: Hydra would turn those of a callback into warnings."""
    with launch.explained():
        try:
            yield
        except ThawError:
            raise
        except Exception:  # shown whole, and the program ends: else the sweep would go on without
            traceback.print_exc()
            raise SystemExit(1) from None


def _sweep_folder(config: DictConfig) -> Path:
    """A new one, or the one that the command line names.

    Raises:
        ConfigError: several processes were started, and each would take one of its own.
    """
    folder = Path(config.hydra.sweep.dir)
    if "hydra.sweep.dir" in _keys(config):
        folder.mkdir(parents=True, exist_ok=True)
        return folder.resolve()
    if not own_process.is_first():
        raise ConfigError(
            "a sweep that srun or torchrun starts in several processes needs one folder for them: "
            "give hydra.sweep.dir=FOLDER; or start it once, with launcher=slurm"
        )
    return claim(folder).resolve()


def _check_is_same(config: DictConfig, folder: Path) -> None:
    """Whether the folder is new, or this sweep's.

    Raises:
        ConfigError: another sweep has it.
    """
    if (folder / "multirun.yaml").is_file():
        before = sweep.plain_list(sweep.read_master(folder).hydra.overrides.task)
        if before != sweep.plain_list(config.hydra.overrides.task):
            raise ConfigError(
                f"hydra.sweep.dir={folder}: holds another sweep ({' '.join(before)}); leave it "
                "out for a new folder"
            )


def _fit_direction(config: DictConfig) -> None:
    """Sets a search's direction where it is `auto`, from the monitored metric.

    Raises:
        ConfigError: the other one was chosen.
    """
    given = OmegaConf.select(config, "hydra.sweeper.direction")
    if given is None or isinstance(given, ListConfig):
        return
    from thaw.training.metrics import MODES  # imports torch

    mode = MODES.get(str(config.monitor).partition("/")[2], "max")
    right = {"max": "maximize", "min": "minimize"}[mode]
    word = str(getattr(given, "name", given))
    if word not in ("auto", right):
        raise ConfigError(
            f"hydra.sweeper.direction={word}: monitor={config.monitor} is to be {right}d; set auto"
        )
    with open_dict(config.hydra):
        config.hydra.sweeper.direction = right


def _fixed_keys(config: DictConfig) -> set[str]:
    """Keys that have one value in all jobs."""
    words = sweep.plain_list(config.hydra.overrides.task)
    parsed = OverridesParser.create().parse_overrides(words)
    return {
        key_of(word)
        for word, override in zip(words, parsed, strict=True)
        if not override.is_sweep_override()
    }


def _name(number: int, overrides: ListConfig, fixed: ListConfig) -> str:
    return folder_name(number, sweep.plain_list(overrides), sweep.plain_list(fixed))


def _settings_folder(mode: RunMode | None, folder: str) -> str | None:
    """Where Hydra writes a job's settings; nowhere for one that is done, which keeps its own."""
    before = status.read(Path(folder)) if mode is RunMode.MULTIRUN else None
    return None if before and before.state in DONE else ".hydra"


def _keys(config: DictConfig) -> set[str]:
    """Of Hydra's own settings on the command line."""
    return {key_of(word) for word in sweep.plain_list(config.hydra.overrides.hydra)}


def _set(config: DictConfig, key: str, value: str) -> None:
    words = sweep.plain_list(config.hydra.overrides.hydra)
    kept = [word for word in words if key_of(word) != key]
    config.hydra.overrides.hydra = [*kept, f"{key}={value}"]


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
