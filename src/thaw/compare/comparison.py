"""A whole comparison: what is told of runs, in words, Markdown and one HTML page."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from thaw.compare.names import as_text
from thaw.compare.run_groups import Repeated, Section
from thaw.compare.runs import Run, Unfinished
from thaw.compare.tables import SPLITS, Table, as_markdown, as_plain, cost_table, scores_table
from thaw.errors import shown
from thaw.training.measures import MODES

GROUPS = (
    "Groups are runs that differ in the seed or fold only; their order and the best run go by "
    "validation ({}). Test values are for reporting: choosing by them would make them too good."
)
ALONE = (
    "One run tells nothing of the spread: groups of one run have no ± and no interval. Run each "
    "setting with several seeds: python train.py -m ... seed=0,1,2"
)
INTERVALS = (
    "[ ] holds the mean of the paired differences (same seed and fold) at 95 % confidence, by "
    "Student's t; * marks those that leave zero out. It speaks of other seeds and folds of these "
    "photos, not of other photos. Of twenty such intervals one is wrong by chance, and the best of "
    "many groups looks better than it is."
)
TWO_PAIRS = (
    "Two pairs are few: their interval reaches 12.7 standard errors to each side, so it says "
    "little. Three bring that to 4.3, five to 2.8."
)
FOLDS = (
    "Folds share training photos, so their differences vary less than independent ones would; the "
    "intervals are widened for that (Nadeau and Bengio, 2003)."
)
BEST_OF_FOLDS = (
    "The best run is one of the best group, since each fold has validation photos of its own: the "
    "best value of all would rather tell which fold is easy."
)
CACHED = (
    "Runs share cached features: the one that computes them takes seconds that the others save. "
    "To compare seconds, give each its own paths.cache_dir."
)


@dataclass(frozen=True)
class Comparison:
    """All that is shown.

    Attributes:
        sections: of groups that were measured on the same photos.
        metric: name without split.
        left_out: folders without results.
        notes: sentences on how to read the figures, and what to be careful about.
        common: settings of the command lines that all runs share.
    """

    sections: tuple[Section, ...]
    metric: str
    left_out: tuple[Unfinished, ...]
    notes: tuple[str, ...]
    common: str

    @property
    def title(self) -> str:
        """How many runs and groups."""
        groups = [group for section in self.sections for group in section.groups]
        runs = sum(len(group.runs) for group in groups)
        return f"{_number(runs, 'run')} in {_number(len(groups), 'group')}"


def compare(
    sections: tuple[Section, ...],
    metric: str,
    left_out: Sequence[Unfinished],
    repeated: Sequence[Repeated],
) -> Comparison:
    """The groups with what must be said of them."""
    runs = [run for section in sections for group in section.groups for run in group.runs]
    notes = [*reading_notes(sections, metric), *origin_notes(runs)]
    notes += [
        f"{each.run.folder} is left out: {each.by.folder} has the same settings and "
        f"{each.by.unit}, and ended later."
        for each in repeated
    ]  # fmt: skip
    for name in (f"{split}/{metric}" for split in SPLITS):
        lost = [run for section in sections for group in section.groups
                for run in group.diverged(name)]  # fmt: skip
        if lost:
            folders = ", ".join(str(run.folder) for run in lost)
            notes.append(f"{name} is not finite, so in no mean: {folders}.")
    missing = [run for run in runs if not run.history]
    if missing:
        notes.append(
            f"Without history.json, so not among the curves: "
            f"{', '.join(str(run.folder) for run in missing)}."
        )
    return Comparison(sections, metric, tuple(left_out), tuple(notes), common_settings(runs))


def reading_notes(sections: Sequence[Section], metric: str) -> list[str]:
    """What the figures are, and where there are too few of them."""
    groups = [group for section in sections for group in section.groups]
    runs = [run for group in groups for run in group.runs]
    compared = [
        group.minus(section.baseline, f"{split}/{metric}")
        for section in sections if section.baseline
        for group in section.groups if group is not section.baseline
        for split in SPLITS
    ]  # fmt: skip
    pairs = [difference.pairs for difference in compared if difference.pairs > 1]
    better = "larger" if MODES[metric] == "max" else "smaller"
    notes = (
        (True, GROUPS.format(f"{better} val/{metric} is better")),
        (len(runs) > len(groups), "± is the standard deviation over the runs of a group."),
        (any(len(group.runs) < 2 for group in groups), ALONE),
        (bool(pairs), INTERVALS),
        (min(pairs, default=3) < 3, TWO_PAIRS),
        (bool(pairs) and any(section.over_folds for section in sections), FOLDS),
        (any(section.over_folds and section.best for section in sections), BEST_OF_FOLDS),
        (any(run.settings.get("finetune.cache_features") for run in runs), CACHED),
    )
    return [text for applies, text in notes if applies]


def origin_notes(runs: Sequence[Run]) -> list[str]:
    """A note for each version, commit or device in which the runs differ."""
    notes = []
    for name, values in _origins(runs).items():
        counted = Counter(values)
        if len(counted) > 1:
            told = ", ".join(f"{value} ({_number(n, 'run')})" for value, n in counted.items())
            notes.append(f"The runs differ in {name}: {told}. Figures may differ for that alone.")
    monitors = Counter(run.monitor for run in runs)
    if len(monitors) > 1:
        notes.append(f"Checkpoints were chosen by different metrics: {', '.join(monitors)}.")
    return notes


def _origins(runs: Sequence[Run]) -> dict[str, list[str]]:
    versions = dict.fromkeys(name for run in runs for name in run.results.get("versions", {}))
    origins = {"commit": [_commit(run.results) for run in runs],
               "device": [shown(run.results.get("device")) for run in runs]}  # fmt: skip
    for name in versions:
        origins[f"{name}'s version"] = [
            shown(run.results.get("versions", {}).get(name)) for run in runs
        ]
    return origins


def _commit(results: Mapping[str, object]) -> str:
    commit, plus, changes = shown(results.get("git")).partition("+")
    return commit[:9] + plus + changes


def common_settings(runs: Sequence[Run]) -> str:
    """Settings given on command lines that have one value in all runs."""
    typed = sorted({name for run in runs for name in run.typed})
    rows = [{**run.settings, **run.choices} for run in runs]
    told = []
    for name in typed:
        values = {as_text(row.get(name)) for row in rows}
        if len(values) == 1 and all(name in row for row in rows):
            value = rows[0][name]
            told.append(f"{name}={shown(value) if isinstance(value, str) else as_text(value)}")
    return " ".join(told)


def best_line(section: Section) -> str:
    """The best run by validation, its folder and checkpoint."""
    if section.best is None:
        return "No validation photos, so no best run: choosing by test photos would be cheating."
    group, run = section.best
    key = f"val/{section.metric}"
    name = "" if len(section.groups) == 1 else f"{group.name}, "
    return (
        f"Best run by {key}: {run.results[key]:.4f}, {name}{run.unit}, {run.folder}, checkpoint "
        f"{run.checkpoint or 'gone'}"
    )


def in_words(comparison: Comparison) -> str:
    """For the terminal."""
    return "\n".join(_parts(comparison, as_plain, heading=lambda text: text))


def in_markdown(comparison: Comparison, pictures: Mapping[str, str]) -> str:
    """For a README or an issue.

    Args:
        comparison: what to show.
        pictures: title -> file, beside the Markdown file.
    """
    lines = [f"# Comparison of {comparison.title}", ""]
    lines += _parts(comparison, as_markdown, heading=lambda text: f"## {text}")
    for title, file in pictures.items():
        lines += ["", f"![{title}]({file})"]
    return "\n".join(lines) + "\n"


def _parts(
    comparison: Comparison, table: Callable[[Table], str], heading: Callable[[str], str]
) -> list[str]:
    lines = []
    if comparison.common:
        lines += [f"All: {comparison.common}", ""]
    for section in comparison.sections:
        if section.name:
            lines += [heading(section.name), ""]
        lines += [table(scores_table(section)), "", table(cost_table(section)), ""]
        lines += [best_line(section), ""]
    if comparison.left_out:
        lines.append(f"Left out, {_number(len(comparison.left_out), 'folder')}:")
        lines += ["", *(f"- {each.folder}: {each.why}" for each in comparison.left_out), ""]
    return [*lines, *(f"- {note}" for note in comparison.notes)]


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
