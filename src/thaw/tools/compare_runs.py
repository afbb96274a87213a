"""The runs that `thaw compare` compares, read from the folders that train.py wrote."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import ConfigError, reason
from thaw.launch import key_of
from thaw.store import read_plain

# Settings in which the runs of one group may differ: what is repeated, and what changes no number.
NOT_COMPARED = (
    "seed", "data.fold", "tags", "task_name", "paths", "hydra", "launcher", "local",
    "logger", "report", "resume", "data.data_dir", "data.cache_dir", "data.num_workers",
    "callbacks.checkpoint.dirpath", "callbacks.last", "callbacks.progress", "callbacks.rates",
    "callbacks.first_batch",
)  # fmt: skip
# What decides which validation and test photos are measured, and what of the data does not.
PHOTOS = ("data.", "trainer.limit_val_batches", "trainer.limit_test_batches",
          "trainer.overfit_batches")  # fmt: skip
SAME_PHOTOS = ("data.batch_size", "data.num_workers", "data.cache", "data.balanced",
               "data.train_per_class")  # fmt: skip


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
    results: Mapping[str, Any]  # as in results.json
    scores: Mapping[str, float]  # its metrics; nan where one is not finite
    history: Sequence[Mapping[str, Any]]  # of each epoch its number, whether `frozen`, metrics
    seconds: float  # of training in all phases, with validation and with caching of features
    images: int  # of all training and validation batches, as photos or as cached features
    trained: int  # parameters that train in the last phase
    unfreeze_epochs: Sequence[int]  # how many epochs were done when each later phase began
    ended: float  # seconds since 1970

    @property
    def identity(self) -> str:
        """Equal for runs that differ in the seed or fold alone; null counts as absent."""
        return as_text({name: value for name, value in self.settings.items() if value is not None})

    @property
    def photos(self) -> dict[str, Any]:
        """The settings on which it depends which validation and test photos are measured."""
        chosen = {name: value for name, value in self.settings.items() if value is not None
                  if name.startswith(PHOTOS) and name not in SAME_PHOTOS}  # fmt: skip
        return {**chosen, "data": self.choices.get("data")}


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
    except ConfigError as error:  # names the file
        return str(error)
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError,
            OmegaConfBaseException) as error:  # fmt: skip
        return f"its files are damaged, or of another version of thaw ({reason(error)})"


def _read(folder: Path) -> Run:
    hydra, history = folder / ".hydra", folder / "history.json"
    results, plain = read_plain(folder / "results.json"), read_plain(hydra / "config.yaml")
    choices = read_plain(hydra / "hydra.yaml")["hydra"]["runtime"]["choices"]
    words = read_plain(hydra / "overrides.yaml", list)
    rows, phases = read_plain(history, list) if history.is_file() else [], results["phases"]
    frozen = {phase["name"]: bool(phase["frozen"]) for phase in phases}
    cfg: Any = OmegaConf.create(plain)
    folds = cfg.data.get("folds")
    return Run(
        folder,
        settings=compared(plain),
        choices={group: choices[group] for group in choices
                 if group.partition("/")[0] not in NOT_COMPARED},
        typed=frozenset(key_of(str(word)) for word in words),
        unit=Unit(int(cfg.seed), None if folds is None else int(cfg.data.fold)),
        folds=folds and int(folds),
        monitor=str(cfg.monitor),
        results=results,
        scores=_metrics(results),
        history=[{"epoch": int(row["epoch"]), "frozen": frozen[row["phase"]], **_metrics(row)}
                 for row in rows],
        seconds=int(1000 * sum(phase["seconds"] for phase in phases)) / 1000,  # refuses inf
        images=int(sum(phase["images"] for phase in phases)),
        trained=int(results["trainable_parameters"]),
        unfreeze_epochs=[int(phase["start_epoch"]) - 1 for phase in phases[1:]],
        ended=(folder / "results.json").stat().st_mtime,
    )  # fmt: skip


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: nan if row[name] is None else float(row[name]) for name in row if "/" in name}


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


def compared(node: Any, name: str = "") -> dict[str, Any]:
    """The values of nested mappings under dotted names, without NOT_COMPARED and below them.

    An empty mapping is a value.
    """
    if name in NOT_COMPARED:
        return {}
    if not isinstance(node, Mapping) or not node:
        return {name: node}
    parts = [compared(value, f"{name}.{key}".lstrip(".")) for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}
