"""`thaw compare`: runs beside each other, in the terminal and as a page with pictures.

thaw compare logs/train/multiruns/2026-01-31_12-00-00
thaw compare logs/train/runs/* 'logs/*/multiruns/2026-02-*' --metric acc_macro
thaw compare logs/train/multiruns/2026-01-31_12-00-00 --baseline finetune=from_scratch
"""

import argparse
import io
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from matplotlib.figure import Figure

from thaw.compare import pictures
from thaw.compare.comparison import Comparison, compare, in_markdown, in_words
from thaw.compare.page import page
from thaw.compare.run_groups import (
    Section,
    check_samples,
    group_runs,
    last_of_each,
    with_baseline,
)
from thaw.compare.runs import Run, Unfinished, find, ignore, read
from thaw.compare.tables import SPLITS, as_csv
from thaw.errors import ConfigError
from thaw.training.measures import MODES

PICTURES: dict[str, tuple[str, Callable[[Section], Figure | None]]] = {
    "together": ("Validation by epoch, all groups; dotted: the unfreeze",
                 pictures.together),
    "unfreeze": ("Frozen against unfrozen: the best validation value of each",
                 pictures.unfreeze_bars),
    "cost": ("Against seconds of training; large marks: means of the groups",
             pictures.cost),
    "curves": ("Loss and accuracy by epoch, training and validation; dotted: the unfreeze",
               pictures.curves),
}  # fmt: skip
FILES = {"html": "compare.html", "markdown": "compare.md", "csv": "compare.csv"}
DPI = 110


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("folders", nargs="+", metavar="FOLDER",
                        help="runs, sweeps, or folders above them; globs too")  # fmt: skip
    parser.add_argument("--metric", metavar="NAME",
                        help=f"{', '.join(MODES)}; default: that of the runs' monitor")  # fmt: skip
    parser.add_argument("--baseline", metavar="SETTINGS",
                        help="the group to hold the others against, by its settings, as "
                        "finetune=full; default: the best by validation")  # fmt: skip
    parser.add_argument("--ignore", metavar="NAMES", default="",
                        help="settings that tell no groups apart, beside the seed, as "
                        "ckpt_path,trainer.devices")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help="for compare.html, .md, .csv and the pictures; default: "
                        "logs/compare/<date_time>, unless single files are asked for")  # fmt: skip
    for kind in FILES:
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write {kind} there")


def run(given: argparse.Namespace) -> None:
    """Reads, compares, prints, writes.

    Raises:
        ConfigError: no run with results, or an option that fits none of them.
    """
    found = [read(folder) for folder in find(given.folders)]
    runs = [each for each in found if isinstance(each, Run)]
    left_out = [each for each in found if isinstance(each, Unfinished)]
    if not runs:
        raise ConfigError(
            "none of these folders holds a run that ended:\n"
            + "\n".join(f"  {each.folder}: {each.why}" for each in left_out)
        )
    metric = choose_metric(runs, given.metric)
    last, repeated = last_of_each(runs)
    samples = ignore(last, filter(None, given.ignore.split(",")))
    check_samples(samples)
    sections = group_runs(samples, metric)
    if given.baseline is not None:
        sections = with_baseline(sections, given.baseline)
    comparison = compare(sections, metric, left_out, repeated)
    print(in_words(comparison))
    for file in write(comparison, given):
        print(f"written: {file}")


def choose_metric(runs: Sequence[Run], asked: str | None) -> str:
    """A name without split.

    Raises:
        ConfigError: none that is known, or that any run has.
    """
    name = asked
    if name is None:
        name = Counter(run.monitor.partition("/")[2] for run in runs).most_common(1)[0][0]
    measured = {name for run in runs for name in run.results}
    there = [known for known in MODES if measured & {f"{split}/{known}" for split in SPLITS}]
    if name not in there:
        hint = "; both splits are shown, give the name alone" if "/" in name else ""
        raise ConfigError(
            f"--metric {name}: no run has it{hint}. Allowed here: {', '.join(there) or 'none'}"
        )
    return name


def write(comparison: Comparison, given: argparse.Namespace) -> list[Path]:
    """Files asked for, or all of them in one folder.

    Raises:
        ConfigError: a file that cannot be written.
    """
    now = datetime.now()
    asked: dict[str, Path | None] = {kind: getattr(given, kind) for kind in FILES}
    folder: Path | None = given.out
    if folder is None and not any(asked.values()):
        folder = Path("logs") / "compare" / f"{now:%Y-%m-%d_%H-%M-%S}"
    places = {
        kind: asked[kind] or (folder / name if folder else None) for kind, name in FILES.items()
    }
    drawn = draw(comparison.sections) if folder or places["html"] else []
    contents: dict[Path, str | bytes] = {}
    if folder:
        contents |= {folder / name: picture for each in drawn for name, _, picture in each}
    if places["csv"]:
        contents[places["csv"]] = as_csv(comparison.sections, comparison.left_out)
    if places["markdown"]:
        beside = {caption: name for each in drawn for name, caption, _ in each}
        with_pictures = folder is not None and places["markdown"].parent == folder
        contents[places["markdown"]] = in_markdown(comparison, beside if with_pictures else {})
    if places["html"]:
        pictures = [{caption: picture for _, caption, picture in each} for each in drawn]
        contents[places["html"]] = page(comparison, pictures, f"{now:%Y-%m-%d %H:%M}")
    for file, content in contents.items():
        _write(file, content)
    return list(contents)


def draw(sections: Sequence[Section]) -> list[list[tuple[str, str, bytes]]]:
    """For each section its pictures: name of the file, caption, PNG."""
    drawn = []
    for number, section in enumerate(sections):
        each = []
        for name, (caption, make) in PICTURES.items():
            figure = make(section)
            if figure is not None:
                part = f"-{number + 1}" if len(sections) > 1 else ""
                title = f"{section.name}: {caption}" if section.name else caption
                each.append((f"{name}{part}.png", title, _png(figure)))
        drawn.append(each)
    return drawn


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def _write(file: Path, content: str | bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error}). Give another place") from error
