"""What runs scored and cost, as tables of text and as one row a run for a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from thaw.compare.names import flat
from thaw.compare.paired import Difference, Spread
from thaw.compare.run_groups import Group, Section
from thaw.compare.runs import Run, Unfinished

SPLITS = ("val", "test")


@dataclass(frozen=True)
class Table:
    """Cells as people read them; the first column is text, the others are numbers.

    Attributes:
        head: titles of the columns.
        rows: as many cells in each.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def scores_table(section: Section) -> Table:
    """Means and standard deviations, and paired differences to the baseline."""
    metrics = measured(section)
    head = ["group", "runs", *metrics]
    if section.baseline:
        head += [f"{metric} - baseline [95 %]" for metric in metrics]
    rows = []
    for group in section.groups:
        row = [group.name, str(len(group.runs))]
        row += [spread_cell(group.spread(metric)) for metric in metrics]
        if section.baseline:
            row += [_against(group, section.baseline, metric) for metric in metrics]
        rows.append(tuple(row))
    return Table(tuple(head), tuple(rows))


def measured(section: Section) -> list[str]:
    """val/metric and test/metric, those of them that any run has."""
    names = [f"{split}/{section.metric}" for split in SPLITS]
    return [name for name in names if any(group.values(name) for group in section.groups)]


def runs_table(section: Section) -> Table:
    """One row a run."""
    metrics = measured(section)
    rows = [
        (group.name, str(run.unit),
         *(f"{run.results[name]:.4f}" if name in run.results else "none" for name in metrics),
         f"{run.train_seconds:.1f}", f"{run.results['seconds']:.1f}", str(run.folder))
        for group in section.groups for run in group.runs
    ]  # fmt: skip
    head = ("group", "run", *metrics, "seconds of training", "seconds in all", "folder")
    return Table(head, tuple(rows))


def cost_table(section: Section) -> Table:
    """Seconds, images and parameters: means over the runs of each group."""
    rows = []
    for group in section.groups:
        seconds = [run.train_seconds for run in group.runs]
        images = fmean(run.images for run in group.runs)
        speed = f"{images / fmean(seconds):,.0f}" if fmean(seconds) else ""
        facts = group.runs[0].results
        rows.append(
            (group.name, _mean_cell(seconds, ".1f"), f"{images:,.0f}", speed,
             _count(facts.get("trainable_parameters")), _count(facts.get("parameters")))
        )  # fmt: skip
    head = ("group", "seconds of training", "images seen", "images/s", "parameters trained", "of")
    return Table(head, tuple(rows))


def spread_cell(spread: Spread) -> str:
    """ "0.8640 ± 0.0012"; without ± where there is one value only."""
    if spread.mean is None:
        return "none"
    return f"{spread.mean:.4f}" + ("" if spread.std is None else f" ± {spread.std:.4f}")


def difference_cell(difference: Difference) -> str:
    """ "+0.0120 [+0.0010, +0.0230] *"; the star says that the interval leaves zero out."""
    if difference.mean is None:
        return "no common seed"
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.4f}, 1 pair: no interval"
    star = " *" if clear(difference) else ""
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]{star}"


def clear(difference: Difference) -> bool:
    """Whether there is an interval and it leaves zero out."""
    if difference.low is None or difference.high is None:
        return False
    return difference.low > 0 or difference.high < 0


def as_markdown(table: Table) -> str:
    """Columns aligned, so that it reads well as text too."""
    widths = _widths(table)
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_padded(table.head, widths), rule, *(_padded(row, widths) for row in table.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_plain(table: Table) -> str:
    """For a terminal."""
    widths = _widths(table)
    lines = [_padded(table.head, widths), ["-" * width for width in widths]]
    lines += [_padded(row, widths) for row in table.rows]
    return "\n".join("  ".join(cells).rstrip() for cells in lines)


def as_csv(sections: Iterable[Section], left_out: Iterable[Unfinished]) -> str:
    """One row a run, the ones without results too; every metric, setting and version."""
    rows = [
        _run_row(run, group, section)
        for section in sections for group in section.groups for run in group.runs
    ]  # fmt: skip
    names = dict.fromkeys(name for row in rows for name in row)
    rows += [{"status": each.why, "folder": str(each.folder)} for each in left_out]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["status", "folder", *(n for n in names if n not in
                            ("status", "folder"))], lineterminator="\n")  # fmt: skip
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _run_row(run: Run, group: Group, section: Section) -> dict[str, Any]:
    facts = {name: value for name, value in run.results.items() if name not in ("phases", "tags")}
    scores = {name: value for name, value in facts.items() if name.partition("/")[0] in SPLITS}
    other = {name: value for name, value in facts.items() if name not in scores and "/" not in name}
    return {
        "status": "finished", "folder": str(run.folder), "photos": section.name,
        "group": group.name, "seed": run.unit.seed, "fold": run.unit.fold, **scores,
        "train_seconds": round(run.train_seconds, 3), "images": run.images,
        **dict(flat({**other, "seed": run.unit.seed})),
        **{name: value for name, value in sorted(run.settings.items()) if value is not None},
    }  # fmt: skip


def _against(group: Group, baseline: Group, metric: str) -> str:
    if group is baseline:
        return "baseline"
    if not group.values(metric) or not baseline.values(metric):
        return "none"
    return difference_cell(group.minus(baseline, metric))


def _mean_cell(values: Sequence[float], form: str) -> str:
    spread = [min(values), max(values)]
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{fmean(values):{form}} ({spread[0]:{form}} to {spread[1]:{form}})"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _widths(table: Table) -> list[int]:
    return [max(len(row[k]) for row in (table.head, *table.rows)) for k in range(len(table.head))]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if place else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
