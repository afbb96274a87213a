"""thaw sweep: go on with a sweep, or list what became of its jobs.

thaw sweep resume logs/train/multiruns/2026-01-31_12-00-00
thaw sweep status logs/train/multiruns/2026-01-31_12-00-00
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from thaw import launch, sweeps
from thaw.errors import ConfigError
from thaw.text_table import text_table

ACTIONS = {
    "resume": "give the sweep's command again, in its folder: jobs that are done are passed over, "
    "others go on from their last checkpoint or start anew",
    "status": "list the jobs that began: done and with which metric, or why not",
}


def main(words: Sequence[str]) -> int:
    """Runs `thaw sweep` with the words that follow it on the command line."""
    parser = argparse.ArgumentParser("thaw sweep", description=__doc__)
    _add_arguments(parser)
    _run(parser.parse_args(words))
    return 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command line."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    for name, about in ACTIONS.items():
        action = actions.add_parser(name, help=about, description=f"{about}.")
        action.add_argument("folder", type=Path, metavar="DIR", help="of the sweep")


def _run(given: argparse.Namespace) -> None:
    """Prints the table, or becomes the process of the sweep.

    Raises:
        ConfigError: the folder is no sweep's.
    """
    file = given.folder / "multirun.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{given.folder}: no sweep ({file} is missing). Give the folder that a sweep printed, "
            "like logs/train/multiruns/2026-01-31_12-00-00"
        )
    words = launch.saved_words(file, "hydra.overrides.task")
    if given.action == "status":
        print(table(given.folder, yaml.safe_load(file.read_text("utf-8"))["monitor"]))
        return
    command = resume_command(given.folder, words)
    print(" ".join(command), flush=True)
    os.chdir(yaml.safe_load(file.read_text("utf-8"))["hydra"]["runtime"]["cwd"])
    os.execv(command[0], command)


def resume_command(folder: Path, words: list[str]) -> list[str]:
    """The command line that goes on with a sweep, with the train.py beside conf/.

    A script that a saved file names is not run.

    Args:
        folder: of the sweep.
        words: its settings.
    """
    ours = launch.saved_words(folder / "multirun.yaml", "hydra.overrides.hydra")
    again = [word for word in ours if launch.key_of(word) not in
             ("hydra.mode", "hydra.sweep.dir", sweeps.FIXED)]  # fmt: skip
    script = launch.conf_dir().absolute().with_name("train.py")
    place = f"hydra.sweep.dir={launch.quoted(folder.resolve())}"
    return [sys.executable, str(script), "-m", *words, *again, place]


def table(folder: Path, monitor: str) -> str:
    """The jobs of a sweep that began, one a row.

    Args:
        folder: of the sweep.
        monitor: name of the metric to show.
    """
    rows = [("job", monitor, "error")]
    for job in sweeps.job_folders(folder):
        done = sweeps.is_done(job)
        value = sweeps.value(job, monitor) if done else None
        error = "" if done else " ".join(sweeps.error_of(job).split())
        rows.append((job.name, "" if value is None else f"{value:.4f}", error[:80]))
    return text_table(rows, right={1})
