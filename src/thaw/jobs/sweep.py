"""A sweep's folder: what became of each job, and how to go on.

Hydra writes the sweep's command into multirun.yaml; each job keeps a status of its own.
"""

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from thaw import launch
from thaw.errors import ConfigError
from thaw.jobs import status
from thaw.jobs.job_folder import differing, key_of, shortened
from thaw.jobs.status import DONE, State, Status


@dataclass(frozen=True)
class Job:
    """One of a sweep.

    Attributes:
        number: from 0.
        differs: its overrides that not all jobs have; empty where a search has not drawn them yet.
        folder: None before it began.
        status: None before it began.
    """

    number: int
    differs: tuple[str, ...]
    folder: Path | None = None
    status: Status | None = None

    @property
    def state(self) -> State | Literal["waiting"]:
        """What became of it."""
        return self.status.state if self.status else "waiting"


@dataclass(frozen=True)
class Sweep:
    """What its folder tells.

    Attributes:
        folder: of the sweep.
        master: the composed multirun.yaml.
        jobs: by number.
    """

    folder: Path
    master: DictConfig
    jobs: tuple[Job, ...]

    @property
    def monitor(self) -> str:
        """The metric that jobs are judged by."""
        return str(self.master.monitor)

    def those(self, *states: str) -> list[Job]:
        """Jobs in one of these states."""
        return [job for job in self.jobs if job.state in states]


def read(folder: Path) -> Sweep:
    """The jobs of a sweep, those too that never began.

    Raises:
        ConfigError: the folder is none of a sweep.
    """
    master = read_master(folder)
    fixed = tuple(master.hydra.job.config.override_dirname.exclude_keys)
    begun: dict[int, Job] = {}
    for file in folder.glob("**/status.json"):
        found = status.read(file.parent)
        if found is not None and found.job is not None:
            differs = tuple(differing(found.overrides, fixed))
            begun[found.job] = Job(found.job, differs, file.parent, found)
    planned = {
        number: Job(number, tuple(differing(overrides, fixed)))
        for number, overrides in enumerate(planned_jobs(master))
    }
    every = {**planned, **begun}
    return Sweep(folder, master, tuple(every[number] for number in sorted(every)))


def read_master(folder: Path) -> DictConfig:
    """The composed multirun.yaml of a sweep.

    Raises:
        ConfigError: there is none.
    """
    file = folder / "multirun.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{folder}: no sweep ({file} is missing). Give the folder that a sweep printed, like "
            "logs/train/multiruns/2026-01-31_12-00-00"
        )
    master = OmegaConf.load(file)
    assert isinstance(master, DictConfig)
    return master


def is_search(hydra: Any) -> bool:
    """Whether the sweeper draws its jobs one after another instead of having a list of them.

    Args:
        hydra: Hydra's own configuration.
    """
    return not str(hydra.sweeper._target_).endswith(".BasicSweeper")


def planned_jobs(master: DictConfig) -> list[list[str]]:
    """The overrides of each job, as far as they stand before the sweep.

    Of a search only how many there will be.

    Raises:
        ConfigError: a configuration folder that has gone, where a pattern asks for it.
    """
    sweeper = master.hydra.sweeper
    if is_search(master.hydra):
        return [[] for _ in range(sweeper.get("n_trials", 0))]
    params = sweeper.get("params") or {}
    words = [f"{key}={value}" for key, value in params.items()] + plain_list(
        master.hydra.overrides.task
    )
    launch.register_backbones()
    sources = master.hydra.runtime.config_sources
    conf = next(source.path for source in sources if source.provider == "main")
    there = GlobalHydra.instance().is_initialized()  # in the sweep itself
    try:
        with nullcontext() if there else initialize_config_dir(conf, version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
            return BasicSweeper.split_arguments(parsed, None)[0]
    except HydraException as error:
        raise ConfigError(f"{conf}: cannot list the jobs of the sweep ({error})") from error


def resume_command(sweep: Sweep) -> list[str]:
    """The command that runs the sweep again in its folder; jobs that are done pass at once.

    Raises:
        ConfigError: jobs that are still at work; a sweep that would draw other jobs now; a script
            that has gone.
    """
    hydra = sweep.master.hydra
    running = sweep.those("running")
    if running:
        first = running[0]
        assert first.status is not None
        raise ConfigError(
            f"{sweep.folder}: job {first.number} is still running (process {first.status.pid} on "
            f"{first.status.host}); wait until it ends, or stop it"
        )
    if is_search(hydra) and OmegaConf.select(hydra, "sweeper.sampler.seed") is None:
        raise ConfigError(
            "hydra.sweeper.sampler.seed=null: without a seed the search would draw other jobs than "
            "it did; start a new one"
        )
    words = plain_list(hydra.overrides.task)
    if any("shuffle(" in word or "shuffle=true" in word for word in words):
        raise ConfigError("shuffle(...): would put the jobs in another order; start a new sweep")
    sources = hydra.runtime.config_sources
    conf = next(Path(source.path) for source in sources if source.provider == "main")
    script = conf.parent / f"{hydra.job.name}.py"
    if not script.is_file():
        raise ConfigError(f"{script}: the sweep's script has gone")
    kept = [
        word
        for word in plain_list(hydra.overrides.hydra)
        if key_of(word) not in ("hydra.mode", "hydra.sweep.dir")
    ]
    place = f"hydra.sweep.dir={launch.quoted(sweep.folder.resolve())}"
    return [sys.executable, str(script), "-m", *words, *kept, place]


def plain_list(node: Any) -> list[str]:
    """A list of strings as written: `${...}` stays."""
    return [str(word) for word in OmegaConf.to_container(node, resolve=False)]  # pyright: ignore


def table(sweep: Sweep) -> str:
    """Job, what differs, state, value, seconds and error, and a line that counts them."""
    rows = [("job", "what differs", "state", sweep.monitor, "seconds", "error")]
    for job in sweep.jobs:
        known = job.status or Status()
        rows.append((
            str(job.number),
            " ".join(shortened(job.differs)),
            job.state,
            "" if known.value is None else f"{known.value:.4f}",
            "" if known.seconds is None else f"{known.seconds:.1f}",
            _cut(known.error or "", 80),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    right = (True, False, False, True, True, False)
    lines = [
        "  ".join(
            cell.rjust(width) if aligned else cell.ljust(width)
            for cell, width, aligned in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", summary(sweep)])


def summary(sweep: Sweep) -> str:
    """ "5 of 8 jobs done, 1 failed, 2 waiting"."""
    done = sweep.those(*DONE)
    others = [
        f"{len(found)} {state}"
        for state in ("failed", "stopped", "killed", "running", "waiting")
        if (found := sweep.those(state))
    ]
    return ", ".join([f"{len(done)} of {len(sweep.jobs)} jobs done", *others])


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 3]}..."
