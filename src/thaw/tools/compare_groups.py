"""Groups of runs that differ in the seed or fold alone, and the differences between groups."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isfinite, nan, sqrt
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from thaw.tools.compare_runs import Run, Unit, as_text
from thaw.training.measures import MODES


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
        mine, others = self.values(metric), other.values(metric)
        # Seeds on one fold train on the same photos, which is no k-fold.
        several = len({unit.fold for unit in mine if unit in others}) > 1
        return paired_difference(mine, others, folds=self.runs[0].folds if several else None)


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
    values: Mapping[Unit, float], baseline: Mapping[Unit, float], *, folds: int | None = None
) -> list[float]:
    """The mean of values - baseline over common seeds and folds, and the ends of its 95 % interval.

    One pair has a mean alone, no pair nothing. The interval is Student's. Runs of
    one seed share the drawn photos and their order, so luck that a seed gives to both groups falls
    out. Runs of k-fold share most of their training photos, and the plain interval would be too
    narrow: the variance of the mean is multiplied by (1/n + 1/(folds - 1)) instead of 1/n (Nadeau
    and Bengio, 2003, "Inference for the generalization error").
    """
    differences = [value - baseline[unit] for unit, value in values.items() if unit in baseline]
    n = len(differences)
    if n < 2:
        return differences
    mean = fmean(differences)
    error = stdev(differences) * sqrt(1 / n + (1 / max(1, folds - 1) if folds else 0))
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
        groups = [Group(*each) for each in zip(names, members, strict=True)]
        groups.sort(key=order)
        comparisons.append(Comparison(title if len(parts) > 1 else "", tuple(groups), metric))
    return comparisons


def names_of(rows: Sequence[Mapping[str, Any]], typed: Collection[str]) -> list[str]:
    """Names each row by its settings that other rows have otherwise.

    What stood on a command line is always named where it varies. Of the rest only what is still
    needed to tell rows apart: beside backbone=vit_b_16 nobody needs backbone.image_size=224.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [as_text(row.get(key)) for row in rows] for key in keys}
    below = tuple(f"{name}." for name in typed if "." in name)  # `finetune` alone is a file
    typed_keys = {key for key in keys if key in typed or f"{key}.".startswith(below)}
    chosen, told = [], [() for _ in rows]  # keys, and their values in each row
    for key in sorted(keys, key=lambda key: (key not in typed_keys, "." in key)):
        more = [(*values, value) for values, value in zip(told, columns[key], strict=True)]
        if len({*more}) > len({*told}) or (key in typed_keys and len({*columns[key]}) > 1):
            chosen, told = [*chosen, key], more
    texts = [[f"{key}={row[key] if isinstance(row[key], str) else as_text(row[key])}"
              for key in chosen if key in row] for row in rows]  # fmt: skip
    return [", ".join(row) or ("otherwise" if chosen else "all") for row in texts]
