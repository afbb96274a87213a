"""Runs -> groups that differ in the seed or fold only, on the same photos, beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isfinite
from typing import Any

from thaw.compare.curves import phase_starts
from thaw.compare.names import as_text, distinguish, words_of
from thaw.compare.paired import Difference, Spread, paired, spread
from thaw.compare.runs import Run, Unit
from thaw.errors import ConfigError
from thaw.training.measures import MODES

# Settings of the data that change neither the validation nor the test photos.
NOT_MEASURED = ("data.batch_size", "data.num_workers", "data.cache", "data.augment_on",
                "data.balanced", "data.train_per_class")  # fmt: skip
# Settings elsewhere that change how many of them are looked at.
MEASURED = ("trainer.limit_val_batches", "trainer.limit_test_batches", "trainer.overfit_batches")


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one setting, one for each seed and fold.

    Attributes:
        name: the settings that other groups have otherwise.
        runs: in the order of seeds and folds.
    """

    name: str
    runs: tuple[Run, ...]

    def values(self, metric: str) -> dict[Unit, float]:
        """Seed and fold -> metric, under its logged name, of the runs that have a finite one."""
        found = {run.unit: run.results.get(metric) for run in self.runs}
        return {
            unit: value for unit, value in found.items() if value is not None and isfinite(value)
        }

    def diverged(self, metric: str) -> list[Run]:
        """Runs whose value is nan or infinite: no mean holds them."""
        return [
            run for run in self.runs
            if metric in run.results and run.unit not in self.values(metric)
        ]  # fmt: skip

    def spread(self, metric: str) -> Spread:
        """Mean and standard deviation over seeds and folds."""
        return spread(list(self.values(metric).values()))

    def minus(self, other: "Group", metric: str) -> Difference:
        """Paired differences to another group."""
        mine, others = self.values(metric), other.values(metric)
        # seeds of one fold are no k-fold: they train on the same photos, and nothing is widened
        several = len({unit.fold for unit in mine if unit in others}) > 1
        return paired(mine, others, folds=self.runs[0].folds if several else None)

    @property
    def unfreeze_epochs(self) -> tuple[int, ...]:
        """Where a later phase began in any of the runs; a plateau may move it."""
        return tuple(sorted({start for run in self.runs for start in phase_starts(run.history)}))


@dataclass(frozen=True, eq=False)
class Section:
    """Groups that were measured on the same photos, so that their numbers compare.

    Attributes:
        name: of the data; "" where all runs have the same.
        groups: best validation mean first.
        metric: name without split, of MODES.
        baseline: what the others are held against; None where there is none.
    """

    name: str
    groups: tuple[Group, ...]
    metric: str
    baseline: Group | None = None

    @property
    def best(self) -> tuple[Group, Run] | None:
        """The run with the best validation value; None without validation.

        Over folds it is one of the best group: each fold has validation photos of its own, and the
        best value of all would rather tell which fold is easy.
        """
        key = f"val/{self.metric}"
        groups = self.groups[:1] if self.over_folds else self.groups
        runs = [
            (values[run.unit], group, run)
            for group in groups for values in (group.values(key),)
            for run in group.runs if run.unit in values
        ]  # fmt: skip
        pick = max if MODES[self.metric] == "max" else min
        return pick(runs, key=lambda each: each[0])[1:] if runs else None

    @property
    def over_folds(self) -> bool:
        """Whether its runs were measured on more than one fold."""
        return len({run.unit.fold for group in self.groups for run in group.runs}) > 1

    def measured_by_all(self, split: str) -> bool:
        """Whether each group has the metric on a split."""
        return all(group.values(f"{split}/{self.metric}") for group in self.groups)


@dataclass(frozen=True)
class Repeated:
    """A run whose settings, seed and fold a later run has again."""

    run: Run
    by: Run


def last_of_each(runs: Sequence[Run]) -> tuple[list[Run], list[Repeated]]:
    """Of runs that agree in settings, seed and fold the one that ended last.

    thaw repeats a run to the bit, so another one is no further sample.
    """
    kept: dict[tuple[str, Unit], Run] = {}
    for run in sorted(runs, key=lambda run: run.finished):
        kept[run.identity, run.unit] = run
    last = list(kept.values())
    return last, [
        Repeated(run, kept[run.identity, run.unit]) for run in runs if run not in last
    ]  # fmt: skip


def check_samples(runs: Sequence[Run]) -> None:
    """Refuses runs that differ in ignored settings only, and would count as one sample.

    Raises:
        ConfigError: names two of them.
    """
    first: dict[tuple[str, Unit], Run] = {}
    for run in runs:
        other = first.setdefault((run.identity, run.unit), run)
        if other is not run:
            raise ConfigError(
                f"--ignore: {other.folder} and {run.folder} have the same seed and fold and differ "
                "in nothing else, so one group would have two values of one sample; ignore less, "
                "or leave one of them out"
            )


def group_runs(runs: Sequence[Run], metric: str) -> tuple[Section, ...]:
    """Sections of groups; in each, the best group by validation is the baseline.

    Args:
        runs: of each settings, seed and fold one.
        metric: name without split.
    """
    typed = {name for run in runs for name in run.typed}
    ordered = sorted(runs, key=lambda run: (as_text(_photos(run)), run.identity, run.unit))
    parts = [list(part) for _, part in groupby(ordered, key=lambda run: as_text(_photos(run)))]
    titles = distinguish(
        [{**_photos(part[0]), "data": part[0].choices.get("data")} for part in parts], typed
    )
    sections = []
    for title, part in zip(titles, parts, strict=True):
        members = [tuple(each) for _, each in groupby(part, key=lambda run: run.identity)]
        names = distinguish([{**each[0].settings, **each[0].choices} for each in members], typed)
        groups = _sorted([Group(*each) for each in zip(names, members, strict=True)], metric)
        section = Section(title if len(parts) > 1 else "", groups, metric)
        first = groups[0] if section.best else None
        sections.append(replace(section, baseline=first if len(members) > 1 else None))
    return tuple(sorted(sections, key=lambda section: section.name))


def with_baseline(sections: Sequence[Section], asked: str) -> tuple[Section, ...]:
    """The sections with what was asked for as the baseline, None where a section has no such group.

    Args:
        sections: of groups.
        asked: settings of one group, as in its name, or a part of them that is enough.

    Raises:
        ConfigError: no group has these settings, or several of a section.
    """
    made = []
    for section in sections:
        found = [group for group in section.groups if words_of(asked) <= words_of(group.name)]
        if len(found) > 1:
            raise ConfigError(
                f"--baseline {asked}: is more than one group: "
                f"{'; '.join(group.name for group in found)}. Give more of the settings"
            )
        made.append(replace(section, baseline=found[0] if found else None))
    if not any(section.baseline for section in made):
        names = "; ".join(group.name for section in sections for group in section.groups)
        raise ConfigError(
            f"--baseline {asked}: no group has these settings. Give those of one of: {names}"
        )
    return tuple(made)


def _photos(run: Run) -> dict[str, Any]:
    """The settings that say what is validated and tested on."""
    return {
        name: value
        for name, value in run.settings.items()
        if (name.startswith("data.") and name not in NOT_MEASURED) or name in MEASURED
        if value is not None
    }


def _sorted(groups: Sequence[Group], metric: str) -> tuple[Group, ...]:
    """Best validation mean first; those without validation last, by name."""
    sign = -1 if MODES[metric] == "max" else 1

    def place(group: Group) -> tuple[bool, float, str]:
        mean = group.spread(f"val/{metric}").mean
        return mean is None, sign * (mean or 0.0), group.name

    return tuple(sorted(groups, key=place))
