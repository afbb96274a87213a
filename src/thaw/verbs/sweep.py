"""thaw sweep: what became of a sweep's jobs; run those again that failed or were killed.

thaw sweep status logs/train/multiruns/2026-01-31_12-00-00
thaw sweep resume logs/train/multiruns/2026-01-31_12-00-00
"""

import argparse
import os
from pathlib import Path

from thaw.errors import ConfigError
from thaw.jobs import sweep
from thaw.jobs.status import DONE

ACTIONS = {
    "status": "a table: job, what differs, state, validation metric, seconds, error",
    "resume": "run the sweep again in its folder: jobs that are done pass at once, failed and "
    "killed ones go on from their last checkpoint or start anew",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    for name, about in ACTIONS.items():
        action = actions.add_parser(name, help=about, description=f"{about}.")
        action.add_argument("folder", type=Path, metavar="DIR", help="of the sweep")


def run(given: argparse.Namespace) -> None:
    """Prints the table, or becomes the process of the sweep.

    Raises:
        ConfigError: no sweep's folder, or one that cannot go on now.
    """
    found = sweep.read(given.folder)
    if given.action == "status":
        print(sweep.table(found))
        return
    if len(found.those(*DONE)) == len(found.jobs):
        print(f"{sweep.summary(found)}: nothing to run")
        return
    command = sweep.resume_command(found)
    start = Path(found.master.hydra.runtime.cwd)
    if not start.is_dir():
        raise ConfigError(f"{start}: the folder that the sweep was started in has gone")
    print(f"{sweep.summary(found)}; in {start}: {' '.join(command)}", flush=True)
    os.chdir(start)
    os.execv(command[0], command)
