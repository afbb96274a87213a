"""thaw sweep resume: give a sweep's command again, in its folder.

    thaw sweep resume logs/train/multiruns/2026-01-31_12-00-00

Jobs that are done are passed over; others go on from their last checkpoint, or start anew.
"""

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from hydra_plugins.thaw_launcher import hydra_flags
from thaw import launch, trust
from thaw.errors import ConfigError

HARMLESS = re.compile(  # a launcher or sweeper by its name, and how much at once
    r"--config-name=\w+|hydra/(launcher|sweeper)=\w+|"
    r"hydra\.(launcher\.n_jobs|sweeper\.n_jobs|sweeper\.n_trials)=\d+"
)


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Becomes the process of the sweep, by the train.py beside conf/: no file names the script."""
    parser.add_argument("action", choices=["resume"])
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the sweep")
    parser.add_argument("--trust", action="store_true", help="the folder is as good as own code: "
                        "it may name classes, scripts and folders that conf/ does not")  # fmt: skip
    given = parser.parse_args(words)
    folder: Path = given.folder.resolve()
    file, script = folder / "multirun.yaml", launch.conf_dir().absolute().with_name("train.py")
    if given.trust:
        os.environ["THAW_TRUST"] = "1"  # the jobs, which resume, too
    if not file.is_file():
        raise ConfigError(f"{folder}: holds no sweep to go on with; give the folder of one")
    settings, hydra = launch.saved_words(file), trust.saved(file)
    try:
        again = [word for word in hydra["overrides"]["hydra"]
                 if launch.key_of(word) not in ("hydra.mode", "hydra.sweep.dir")]  # fmt: skip
        flags = hydra_flags(hydra)
        cwd = Path(hydra["runtime"]["cwd"])
        os.chdir(cwd if cwd.is_dir() else ".")  # the project may have been moved
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise trust.damaged(file, error) from error
    for word in (*flags, *again):
        if not HARMLESS.fullmatch(word):
            trust.refuse(word, file, "sets the program itself")
    if launch.conf_dir().absolute() != script.with_name("conf"):
        trust.refuse("runtime.cwd", file, "is a folder with a conf/ and a train.py of its own")
    place = f"hydra.sweep.dir={launch.quoted(folder)}"
    command = [sys.executable, str(script), "-m", *flags, *settings, *again, place]
    print(" ".join(command), flush=True)
    os.execv(command[0], command)
