"""Groups of runs that differ in the seed or fold alone, and the differences between groups."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite, sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

from thaw.tools.compare_runs import Run, Unit, as_text
from thaw.training.measures import MODES

# Settings of the data that change neither the validation nor the test photos, and settings
# elsewhere that do change how many of them are measured.
SAME_PHOTOS = ("data.batch_size", "data.num_workers", "data.cache", "data.balanced",
               "data.train_per_class")  # fmt: skip
OTHER_PHOTOS = ("trainer.limit_val_batches", "trainer.limit_test_batches",
                "trainer.overfit_batches")  # fmt: skip


class Difference(NamedTuple):
    """The mean of paired differences with its 95 % confidence interval; None: there is none."""

    pairs: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one setting, one for each seed and fold; named by what other groups have not."""

    name: str
    runs: tuple[Run, ...]

    def values(self, metric: str) -> dict[Unit, float]:
        """Seed and fold -> a metric such as "test/acc", of the runs where it is a finite number."""
        values = {run.unit: run.results.get(metric) for run in self.runs}
        return {unit: v for unit, v in values.items() if v is not None and isfinite(v)}

    def mean(self, metric: str) -> float | None:
        """The mean over the runs; None where no run has the metric."""
        values = self.values(metric)
        return fmean(values.values()) if values else None

    def minus(self, other: "Group", metric: str) -> Difference:
        """The paired difference to another group."""
        mine, others = self.values(metric), other.values(metric)
        # Seeds on one fold train on the same photos, which is no k-fold.
        several = len({unit.fold for unit in mine if unit in others}) > 1
        return paired_difference(mine, others, folds=self.runs[0].folds if several else None)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Groups that were measured on the same photos, so that their numbers can be compared.

    Attributes:
        photos: The settings of the data; "" where all runs have the same.
        groups: The best mean on the validation photos first.
        metric: Its name without the split, such as "acc".
    """

    photos: str
    groups: tuple[Group, ...]
    metric: str

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
) -> Difference:
    """The mean of values - baseline over common seeds and folds, with Student's t.

    Runs of one seed share the drawn photos and their order, so luck that a seed gives to both
    groups falls out. Runs of k-fold share most of their training photos, and the plain interval
    would be too narrow: the variance of the mean is multiplied by (1/n + 1/(folds - 1)) instead of
    1/n (Nadeau and Bengio, 2003, "Inference for the generalization error").

    """
    differences = [value - baseline[unit] for unit, value in values.items() if unit in baseline]
    n = len(differences)
    if n < 2:
        return Difference(n, *differences)
    mean = fmean(differences)
    error = stdev(differences) * sqrt(1 / n + (1 / (folds - 1) if folds else 0))
    half = float(stdtrit(n - 1, 0.975)) * error  # two-sided 95 %
    return Difference(n, mean, mean - half, mean + half)


def group_runs(runs: Sequence[Run], metric: str) -> list[Comparison]:
    """Makes groups, and one comparison for each set of photos that was measured."""

    def order(group: Group) -> tuple[bool, float, str]:
        """The best on the validation photos first, groups without validation last."""
        mean = group.mean(f"val/{metric}")
        return mean is None, (mean or 0.0) * (-1 if MODES[metric] == "max" else 1), group.name

    typed = {name for run in runs for name in run.typed}
    ordered = sorted(runs, key=lambda run: (_photos(run), run.identity, run.unit))
    parts = [list(part) for _, part in groupby(ordered, key=_photos)]
    titles = names_of([_photo_settings(part[0]) for part in parts], typed)
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
    chosen: list[str] = []
    for key in sorted(keys, key=lambda key: (key not in typed_keys, "." in key)):
        before = len({*zip(*(columns[name] for name in chosen), strict=True)}) or 1
        after = len({*zip(*(columns[name] for name in [*chosen, key]), strict=True)})
        if after > before or (key in typed_keys and len(set(columns[key])) > 1):
            chosen.append(key)
    texts = [[f"{key}={row[key] if isinstance(row[key], str) else as_text(row[key])}"
              for key in chosen if key in row] for row in rows]  # fmt: skip
    return [", ".join(row) or ("otherwise" if chosen else "all") for row in texts]


def _photo_settings(run: Run) -> dict[str, Any]:
    settings = {
        name: value
        for name, value in run.settings.items()
        if (name.startswith("data.") and name not in SAME_PHOTOS) or name in OTHER_PHOTOS
        if value is not None
    }
    return {**settings, "data": run.choices.get("data")}


def _photos(run: Run) -> str:
    return as_text(_photo_settings(run))
