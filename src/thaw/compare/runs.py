"""Run folders, read: settings, results, history. Folders without results are told, not skipped."""

import glob
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from thaw.compare.names import as_text, flat
from thaw.errors import ConfigError, near
from thaw.jobs import status

# Settings in which runs of one group may differ: seed and fold, where files lie, what is shown.
NOT_COMPARED = (
    "seed", "data.seed", "data.fold", "tags", "task_name", "paths", "hydra", "local", "logger",
    "resume", "save_backbone", "data.data_dir", "data.cache_dir", "callbacks.checkpoint.dirpath",
    "callbacks.checkpoint.filename", "callbacks.checkpoint.save_top_k", "callbacks.last",
    "callbacks.progress", "callbacks.rates", "callbacks.first_batch",
)  # fmt: skip


class Unit(NamedTuple):
    """What is paired across groups: runs of one unit drew the same numbers and photos."""

    seed: int
    data_seed: int
    fold: int | None

    def __str__(self) -> str:
        words = [f"seed {self.seed}"]
        if self.data_seed != self.seed:
            words.append(f"data.seed {self.data_seed}")
        if self.fold is not None:
            words.append(f"fold {self.fold}")
        return ", ".join(words)


@dataclass(frozen=True)
class Unfinished:
    """A folder that cannot be compared.

    Attributes:
        folder: of the run.
        why: for people.
    """

    folder: Path
    why: str


@dataclass(frozen=True, eq=False)
class Run:
    """A run that ended, and was not pruned.

    Attributes:
        folder: where it left its files.
        settings: name with dots -> value as written in .hydra/config.yaml, unresolved, without
            NOT_COMPARED.
        choices: group of conf/ -> the file chosen.
        typed: names of the settings and choices that its command line gave.
        unit: its seed and fold.
        folds: data.folds.
        monitor: the metric that its checkpoint was chosen by.
        results: of results.json.
        history: of history.json; empty where there is none.
        finished: seconds since the epoch.
    """

    folder: Path
    settings: Mapping[str, Any]
    choices: Mapping[str, str | None]
    typed: frozenset[str]
    unit: Unit
    folds: int | None
    monitor: str
    results: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    finished: float = 0.0

    @cached_property
    def identity(self) -> str:
        """Equal for runs that differ in the seed or fold only; a setting that is null, as one that
        another version did not have, counts as none."""
        return as_text({name: value for name, value in self.settings.items() if value is not None})

    @property
    def train_seconds(self) -> float:
        """Of all phases, with validation and cached features; a resumed run counts as a whole."""
        return sum(phase["seconds"] for phase in self.results["phases"])

    @property
    def images(self) -> int:
        """Of all training and validation batches, as photos or as cached features."""
        return sum(
            phase.get("images", round(phase["seconds"] * phase["images_per_second"]))
            for phase in self.results["phases"]
        )

    @property
    def checkpoint(self) -> Path | None:
        """The best one, also when the folder was moved; None where it is gone."""
        written = self.results.get("best_checkpoint")
        if not written:
            return None
        places = (Path(written), self.folder / "checkpoints" / Path(written).name)
        return next((place for place in places if place.is_file()), None)


def find(words: Iterable[str]) -> list[Path]:
    """The run folders that folders and globs name: runs, sweeps (their jobs), or anything above.

    Raises:
        ConfigError: a word that names nothing, or a folder without a run in it.
    """
    found: dict[Path, None] = {}
    for word in words:
        place = Path(word).expanduser()
        matching = glob.glob(str(place), recursive=True)  # noqa: PTH207  the word may be absolute
        places = [place] if place.is_dir() else sorted(map(Path, matching))
        folders = [place for place in places if place.is_dir()]
        if not folders:
            raise ConfigError(f"{word}: no such folder. Give folders of runs or sweeps, or globs")
        inside = [run for folder in folders for run in _runs_in(folder)]
        if not inside:
            raise ConfigError(
                f"{word}: no run in it (looked for .hydra/config.yaml and results.json, in all "
                "folders below too). Give folders like logs/train/runs/2026-01-31_12-00-00 or "
                "logs/train/multiruns/2026-01-31_12-00-00"
            )
        found.update(dict.fromkeys(run.resolve() for run in inside))
    return list(found)


def _runs_in(folder: Path) -> Iterator[Path]:
    if (folder / ".hydra" / "config.yaml").is_file() or (folder / "results.json").is_file():
        yield folder
        return
    for inside in sorted(folder.iterdir(), key=lambda path: (len(path.name), path.name)):
        if inside.is_dir() and not inside.is_symlink() and not inside.name.startswith("."):
            yield from _runs_in(inside)


def read(folder: Path) -> Run | Unfinished:
    """One run folder."""
    results = folder / "results.json"
    if not results.is_file():
        return Unfinished(folder, _unfinished(folder))
    if not (folder / ".hydra" / "config.yaml").is_file():
        return Unfinished(folder, "no .hydra/config.yaml, so its settings are not known")
    try:
        run = _read(folder, set(NOT_COMPARED))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, YAMLError,
            OmegaConfBaseException) as error:  # fmt: skip
        return Unfinished(folder, f"cannot be read: {type(error).__name__}: {error}".rstrip())
    pruned = run.results.get("pruned")  # ended early for being worse: its value is no sample
    return Unfinished(folder, f"pruned ({pruned})") if pruned else run


def ignore(runs: Sequence[Run], names: Iterable[str]) -> list[Run]:
    """The runs without these settings and choices, so that groups are not told apart by them.

    Raises:
        ConfigError: a name that no run has.
    """
    ignored = set(names)
    known = {name for run in runs for name in (*run.settings, *run.choices)}
    for name in sorted(ignored):
        if not any(_within(other, {name}) for other in known):
            raise ConfigError(f"--ignore {name}: no run has such a setting{near(name, known)}")
    return [
        replace(
            run,
            settings={k: value for k, value in run.settings.items() if not _within(k, ignored)},
            choices={k: value for k, value in run.choices.items() if not _within(k, ignored)},
            typed=frozenset(name for name in run.typed if not _within(name, ignored)),
        )
        for run in runs
    ]


def _read(folder: Path, ignored: set[str]) -> Run:
    hydra = folder / ".hydra"
    cfg: Any = OmegaConf.load(hydra / "config.yaml")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    missing = [name for name in ("seed", "monitor", "data") if name not in cfg]
    missing += [name for name in ("phases", "seconds") if name not in results]
    if missing:
        raise ValueError(f"no {', '.join(missing)}; these are no files of thaw's")
    settings = dict(flat(OmegaConf.to_container(cfg, resolve=False)))
    seed, folds = int(cfg.seed), cfg.data.get("folds")
    history = folder / "history.json"
    return Run(
        folder,
        {name: value for name, value in settings.items() if not _within(name, ignored)},
        {name: value for name, value in _choices(hydra).items() if not _within(name, ignored)},
        frozenset(name for name in _typed(hydra) if not _within(name, ignored)),
        Unit(seed, int(cfg.data.get("seed", seed)), None if folds is None else int(cfg.data.fold)),
        folds,
        str(cfg.monitor),
        results,
        json.loads(history.read_text(encoding="utf-8")) if history.is_file() else (),
        (folder / "results.json").stat().st_mtime,
    )


def _within(name: str, ignored: set[str]) -> bool:
    """Whether a name, or a mapping that it stands in, is ignored."""
    parts = name.replace("/", ".").split(".")
    return any(".".join(parts[:length]) in ignored for length in range(1, len(parts) + 1))


def _choices(hydra: Path) -> dict[str, str | None]:
    """group -> file; none where Hydra's own record is missing."""
    file = hydra / "hydra.yaml"
    if not file.is_file():
        return {}
    record: Any = OmegaConf.load(file)
    chosen = record.hydra.runtime.choices
    return {str(group): chosen[group] and str(chosen[group]) for group in chosen}


def _typed(hydra: Path) -> list[str]:
    """Names that stand before the "=" on the command line."""
    file = hydra / "overrides.yaml"
    words = OmegaConf.load(file) if file.is_file() else []
    return [str(word).partition("=")[0].lstrip("+~") for word in words]


def _unfinished(folder: Path) -> str:
    """What can be said of a run without results."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    last = max((path.stat().st_mtime for path in files), default=folder.stat().st_mtime)
    when = f"{datetime.fromtimestamp(last):%Y-%m-%d %H:%M:%S}"
    try:
        told = status.read(folder)
        why = told.state + (f" ({told.error})" if told.error else "") if told else "no status.json"
    except (ConfigError, OSError) as error:  # one folder does not end the comparison of all others
        why = str(error)
    text = f"no results.json, {why}; last wrote {when}"
    saved = [name for name in ("last.ckpt", "interrupted.ckpt")
             if (folder / "checkpoints" / name).is_file()]  # fmt: skip
    return f"{text}; python train.py resume={folder} goes on with it" if saved else text
