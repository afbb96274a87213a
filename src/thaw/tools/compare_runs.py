"""The runs that `thaw compare` reads from their folders, their groups, and the differences."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isfinite, nan, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from scipy.special import stdtrit

from thaw.errors import ConfigError, reason
from thaw.launch import key_of
from thaw.store import read_plain
from thaw.training.measures import MODES

# Settings in which the runs of one group may differ: what is repeated, and what changes no number.
NOT_COMPARED = (
    "seed", "data.fold", "tags", "task_name", "paths", "hydra", "launcher", "local", "logger",
    "report", "resume", "trust", "data.data_dir", "data.cache_dir", "data.num_workers",
    "callbacks.checkpoint.dirpath", "callbacks.last", "callbacks.progress", "callbacks.rates",
    "callbacks.first_batch",
)  # fmt: skip
# What decides which validation and test photos are measured, and what of the data does not.
PHOTOS = ("data.", "trainer.limit_val_", "trainer.limit_test_", "trainer.overfit_batches")
SAME_PHOTOS = ("data.batch_size", "data.cache", "data.balanced", "data.train_per_class",
               "data.crop")  # fmt: skip


class Unit(NamedTuple):
    """What is paired across groups: runs of one unit drew the same numbers and the same photos."""

    seed: int
    fold: int | None

    def __str__(self) -> str:
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


@dataclass(frozen=True, eq=False)
class Run:
    folder: Path
    settings: Mapping[str, Any]  # dotted name -> value as in .hydra/config.yaml, but NOT_COMPARED
    choices: Mapping[str, str | None]  # group of conf/ -> chosen file, as backbone -> resnet18
    typed: frozenset[str]  # names of the settings and choices that stood on the command line
    unit: Unit
    facts: Mapping[str, Any]  # the plain values of results.json
    scores: Mapping[str, float]  # its metrics; nan where one is not finite
    history: Sequence[Mapping[str, Any]]  # of each epoch its number and metrics
    seconds: float  # of training in all phases, with validation and with caching of features
    trained: int  # parameters that train in the last phase
    unfreeze_epochs: Sequence[int]  # how many epochs were done when each later phase began

    @property
    def identity(self) -> str:
        """Equal for runs that differ in the seed or fold alone."""
        return as_text(self.settings)

    @property
    def photos(self) -> dict[str, Any]:
        """The settings on which it depends which validation and test photos are measured."""
        names = [n for n in self.settings if n.startswith(PHOTOS) and n not in SAME_PHOTOS]
        return {"data": self.choices.get("data"), **{n: self.settings[n] for n in names}}


def find_runs(folders: Iterable[str]) -> list[Path]:
    """Finds the run folders in folders of runs or sweeps, or in anything above them, each once."""
    runs: list[Path] = []
    paths = [Path(word).expanduser().resolve() for word in folders]
    for path in paths:
        runs += sorted(file.parent.parent for file in path.rglob(".hydra/config.yaml"))
    # a sweep with a typo leaves a folder without runs, which `compare sweeps/*` should pass over
    if empty := [str(path) for path in paths if not runs or not path.is_dir()]:
        where = ", ".join(empty)
        raise ConfigError(f"{where}: there is no run in it; give folders of runs or sweeps")
    return [*dict.fromkeys(runs)]


def read_run(folder: Path) -> Run | str:
    """Reads a run folder; returns the reason in words where it cannot be compared."""
    if not (folder / "results.json").is_file():
        return "unfinished, there is no results.json"
    hydra, history = folder / ".hydra", folder / "history.json"
    try:
        results, plain = read_plain(folder / "results.json"), read_plain(hydra / "config.yaml")
        choices = read_plain(hydra / "hydra.yaml")["hydra"]["runtime"]["choices"]
        words = read_plain(hydra / "overrides.yaml", list)
        rows, phases = read_plain(history, list) if history.is_file() else [], results["phases"]
        cfg: Any = OmegaConf.create(plain)
        fold = int(cfg.data.folds) and int(cfg.data.fold) if cfg.data.get("folds") else None
        return Run(
            folder,
            settings=compared(plain),
            choices={group: choices[group] for group in choices
                     if group.partition("/")[0] not in NOT_COMPARED},
            typed=frozenset(key_of(str(word)) for word in words),
            unit=Unit(int(cfg.seed), fold),
            facts={name: v for name, v in results.items() if not isinstance(v, list | dict)},
            scores=_metrics(results),
            history=[{"epoch": int(row["epoch"]), **_metrics(row)} for row in rows],
            seconds=int(1000 * sum(phase["seconds"] for phase in phases)) / 1000,  # refuses inf
            trained=int(results["trainable_parameters"]),
            unfreeze_epochs=[int(phase["start_epoch"]) - 1 for phase in phases[1:]],
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError,
            OmegaConfBaseException) as error:  # fmt: skip
        damaged = f"its files are damaged, or of another version of thaw ({reason(error)})"
        return str(error) if isinstance(error, ConfigError) else damaged  # which names the file


def _metrics(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: nan if row[name] is None else float(row[name]) for name in row if "/" in name}


def as_text(value: Any) -> str:
    """A value as JSON: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))


def compared(node: Any, name: str = "") -> dict[str, Any]:
    """The values of nested mappings under dotted names, without null and NOT_COMPARED.

    An empty mapping is a value.
    """
    if name in NOT_COMPARED or node is None:
        return {}
    if not isinstance(node, Mapping) or not node:
        return {name: node}
    parts = [compared(value, f"{name}.{key}".lstrip(".")) for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one setting, one for each seed and fold; named by what other groups have not."""

    name: str
    runs: tuple[Run, ...]

    def values(self, metric: str) -> dict[Unit, float]:
        """Seed and fold -> a metric such as "test/acc", of the runs where it is a finite number."""
        return {run.unit: run.scores[metric] for run in self.runs
                if isfinite(run.scores.get(metric, nan))}  # fmt: skip

    def minus(self, other: "Group", metric: str) -> list[float]:
        """The paired difference to another group, as `paired_difference` gives it."""
        folds = int(self.runs[0].settings.get("data.folds", 0))
        return paired_difference(self.values(metric), other.values(metric), folds)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups that were measured on the same photos, so that their numbers can be compared."""

    photos: str  # the settings of the data; "" where all runs have the same
    groups: tuple[Group, ...]  # the best mean on the validation photos first
    metric: str  # its name without the split, such as "acc"

    @property
    def best(self) -> Group | None:
        """The first group, which the others are compared with; None without validation."""
        return self.groups[0] if self.groups[0].values(f"val/{self.metric}") else None

    @property
    def metrics(self) -> list[str]:
        """The metric on the validation and on the test photos, where any run has it."""
        names = [f"{split}/{self.metric}" for split in ("val", "test")]
        return [name for name in names if any(group.values(name) for group in self.groups)]


def paired_difference(
    values: Mapping[Unit, float], baseline: Mapping[Unit, float], folds: int = 0
) -> list[float]:
    """The mean of values - baseline over common seeds and folds, and the ends of its 95 % interval.

    One pair has a mean alone, no pair nothing. The interval is Student's. Runs of one seed share
    the drawn photos and their order, so luck that a seed gives to both groups falls out. Runs on
    several folds share most of their training photos, and the plain interval would be too narrow:
    the variance of the mean is multiplied by (1/n + 1/(folds - 1)) instead of 1/n (Nadeau and
    Bengio, 2003, "Inference for the generalization error").
    """
    common = [unit for unit in values if unit in baseline]
    differences, n = [values[unit] - baseline[unit] for unit in common], len(common)
    if n < 2:
        return differences
    mean = fmean(differences)
    shared = 1 / max(1, folds - 1) if folds and len({unit.fold for unit in common}) > 1 else 0
    error = stdev(differences) * sqrt(1 / n + shared)
    half = float(stdtrit(n - 1, 0.975)) * error  # two-sided 95 %
    return [mean, mean - half, mean + half]


def group_runs(runs: Sequence[Run], metric: str) -> list[Comparison]:
    """Makes groups, and one comparison for each set of photos that was measured."""
    sign = -1 if MODES[metric] == "max" else 1

    def order(group: Group) -> tuple[float, str]:
        """The best on the validation photos first, groups without validation last."""
        values = group.values(f"val/{metric}").values()
        return sign * fmean(values) if values else inf, group.name

    typed = {name for run in runs for name in run.typed}
    ordered = sorted(runs, key=lambda run: (as_text(run.photos), run.identity, run.unit))
    parts = [list(part) for _, part in groupby(ordered, key=lambda run: run.photos)]
    titles = names_of([part[0].photos for part in parts], typed)
    comparisons = []
    for title, part in zip(titles, parts, strict=True):
        members = [tuple(each) for _, each in groupby(part, key=lambda run: run.identity)]
        names = names_of([{**each[0].settings, **each[0].choices} for each in members], typed)
        groups = sorted(map(Group, names, members), key=order)
        comparisons.append(Comparison(title if len(parts) > 1 else "", tuple(groups), metric))
    return comparisons


def names_of(rows: Sequence[Mapping[str, Any]], typed: Collection[str]) -> list[str]:
    """Names each row by its settings that other rows have otherwise.

    What stood on a command line is always named where it varies. Of the rest only what is still
    needed to tell rows apart: beside backbone=vit_b_16 nobody needs backbone.image_size=224.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [as_text(row.get(key)) for row in rows] for key in keys}
    chosen, told = [], [() for _ in rows]  # keys, and their values in each row
    for key in sorted(keys, key=lambda key: (key not in typed, "." in key)):
        more = [(*values, value) for values, value in zip(told, columns[key], strict=True)]
        if len({*more}) > len({*told}) or (key in typed and len({*columns[key]}) > 1):
            chosen, told = [*chosen, key], more
    texts = [[f"{key}={row[key] if isinstance(row[key], str) else as_text(row[key])}"
              for key in chosen if key in row] for row in rows]  # fmt: skip
    return [", ".join(row) or ("otherwise" if chosen else "all") for row in texts]
