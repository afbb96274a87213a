"""The runs that `thaw compare` compares, read from the folders that train.py wrote."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from thaw.errors import ConfigError, reason

# Settings in which the runs of one group may differ: what is repeated, and what changes no number.
NOT_COMPARED = (
    "seed", "data.fold", "tags", "task_name", "paths", "hydra", "launcher", "local",
    "logger", "report", "resume", "data.data_dir", "data.cache_dir", "data.num_workers",
    "callbacks.checkpoint.dirpath", "callbacks.last", "callbacks.progress", "callbacks.rates",
    "callbacks.first_batch",
)  # fmt: skip


class Unit(NamedTuple):
    """What is paired across groups: runs of one unit drew the same numbers and the same photos."""

    seed: int
    fold: int | None

    def __str__(self) -> str:
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run."""

    folder: Path
    settings: Mapping[str, Any]  # dotted name -> value as in .hydra/config.yaml, but NOT_COMPARED
    choices: Mapping[str, str | None]  # group of conf/ -> chosen file, as backbone -> resnet18
    typed: frozenset[str]  # names of the settings and choices that stood on the command line
    unit: Unit
    folds: int | None  # data.folds, the number of parts in k-fold
    monitor: str  # the metric that chose the best checkpoint
    results: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    ended: float  # seconds since 1970

    @property
    def identity(self) -> str:
        """Equal for runs that differ in the seed or fold alone; null counts as absent."""
        return as_text({name: value for name, value in self.settings.items() if value is not None})

    @property
    def seconds(self) -> float:
        """Seconds of training in all phases, with validation and with caching of features."""
        return sum(phase["seconds"] for phase in self.results["phases"])

    @property
    def images(self) -> int:
        """Images of all training and validation batches, as photos or as cached features."""
        return sum(phase["images"] for phase in self.results["phases"])

    @property
    def unfreeze_epochs(self) -> tuple[int, ...]:
        """How many epochs were done when each later phase began."""
        return tuple(phase["start_epoch"] - 1 for phase in self.results["phases"][1:])

    def epochs(self, *, frozen: bool) -> list[Mapping[str, Any]]:
        """The rows of the history in which the body stood still, or those in which it trained."""
        names = {each["name"] for each in self.results["phases"] if each["frozen"] == frozen}
        return [row for row in self.history if row["phase"] in names]


def find_runs(folders: Iterable[str]) -> list[Path]:
    """Finds the run folders in folders of runs or sweeps, or in anything above them, each once."""
    runs: dict[Path, None] = {}
    for word in folders:
        files = Path(word).expanduser().resolve().rglob(".hydra/config.yaml")
        inside = sorted(file.parent.parent for file in files)
        if not inside:
            raise ConfigError(f"{word}: there is no run in it; give folders of runs or sweeps")
        runs.update(dict.fromkeys(inside))
    return list(runs)


def read_run(folder: Path) -> Run | str:
    """Reads a run folder; returns the reason in words where it cannot be compared."""
    if not (folder / "results.json").is_file():
        return "unfinished, there is no results.json"
    try:
        return _read(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, YAMLError,
            OmegaConfBaseException) as error:  # fmt: skip
        return f"cannot be read, or is of another version of thaw ({reason(error)})"


def _read(folder: Path) -> Run:
    hydra = folder / ".hydra"
    cfg: Any = OmegaConf.load(hydra / "config.yaml")
    results = json.loads((folder / "results.json").read_text("utf-8"))
    for phase in results["phases"]:  # a KeyError here names what another version did not write
        _ = phase["start_epoch"], phase["frozen"], phase["seconds"], phase["images"]
    history = folder / "history.json"
    overrides: Any = OmegaConf.load(hydra / "overrides.yaml")
    choices: Any = OmegaConf.load(hydra / "hydra.yaml").hydra.runtime.choices
    folds = cfg.data.get("folds")
    fold = None if folds is None else int(cfg.data.fold)
    return Run(
        folder,
        settings=_compared(dict(flat(OmegaConf.to_container(cfg, resolve=False)))),
        choices=_compared({str(group): choices[group] for group in choices}),
        typed=frozenset(str(word).partition("=")[0].lstrip("+~") for word in overrides),
        unit=Unit(int(cfg.seed), fold),
        folds=folds,
        monitor=str(cfg.monitor),
        results=results,
        history=json.loads(history.read_text("utf-8")) if history.is_file() else (),
        ended=(folder / "results.json").stat().st_mtime,
    )


def last_of_each(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Drops runs that a later one repeats, which is no further sample, and says which."""
    last = {(run.identity, run.unit): run for run in sorted(runs, key=lambda run: run.ended)}
    dropped = [
        f"Left out: {run.folder}; {by.folder} has the same settings and {by.unit}"
        for run in runs
        if (by := last[run.identity, run.unit]) is not run
    ]
    return list(last.values()), dropped


def as_text(value: Any) -> str:
    """A value as JSON: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))


def flat(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value of nested mappings under its dotted name; an empty mapping is a value."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not NOT_COMPARED, nor below one of them."""
    left_out = tuple(f"{name}." for name in NOT_COMPARED)
    return {
        name: value
        for name, value in settings.items()
        if not f"{name.replace('/', '.')}.".startswith(left_out)
    }
