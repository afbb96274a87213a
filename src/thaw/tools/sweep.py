"""thaw sweep resume: give a sweep's command again, in its folder.

    thaw sweep resume logs/train/multiruns/2026-01-31_12-00-00

Jobs that are done are passed over; others go on from their last checkpoint, or start anew.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from hydra_plugins.thaw_launcher import hydra_flags
from thaw import launch
from thaw.errors import ConfigError, reason
from thaw.store import read_plain


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Becomes the process of the sweep, by the train.py beside conf/: no file names the script."""
    parser.add_argument("action", choices=["resume"])
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the sweep")
    folder: Path = parser.parse_args(words).folder.resolve()
    script = launch.conf_dir().absolute().with_name("train.py")
    try:
        hydra = read_plain(folder / "multirun.yaml")["hydra"]
        again = [word for word in hydra["overrides"]["hydra"]
                 if launch.key_of(word) not in ("hydra.mode", "hydra.sweep.dir")]  # fmt: skip
        given = [*hydra_flags(hydra), *hydra["overrides"]["task"], *again]
        place = f"hydra.sweep.dir={launch.quoted(folder)}"
        command = [sys.executable, *map(str, (script, "-m", *given, place))]
        print(" ".join(command), flush=True)
        os.chdir(hydra["runtime"]["cwd"])
        os.execv(command[0], command)
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{folder}: holds no sweep to go on with ({reason(error)}). Give the folder that a "
            "sweep printed, like logs/train/multiruns/2026-01-31_12-00-00"
        ) from error
