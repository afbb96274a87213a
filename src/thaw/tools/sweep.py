"""thaw sweep resume: give a sweep's command again, in its folder.

    thaw sweep resume logs/train/multiruns/2026-01-31_12-00-00

Jobs that are done are passed over; others go on from their last checkpoint, or start anew.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from hydra_plugins.thaw_launcher import hydra_flags
from thaw import launch
from thaw.errors import ConfigError


def main(words: Sequence[str]) -> int:
    """Becomes the process of the sweep, by the train.py beside conf/: no file names the script.

    Raises:
        ConfigError: The folder is no sweep's.
    """
    parser = argparse.ArgumentParser(
        "thaw sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["resume"])
    parser.add_argument("folder", type=Path, metavar="DIR", help="of the sweep")
    folder: Path = parser.parse_args(words).folder.resolve()
    file = folder / "multirun.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{folder}: no sweep ({file} is missing). Give the folder that a sweep printed, like "
            "logs/train/multiruns/2026-01-31_12-00-00"
        )
    settings = launch.saved_words(file)
    hydra = yaml.safe_load(file.read_text("utf-8"))["hydra"]
    again = [word for word in hydra["overrides"]["hydra"]
             if launch.key_of(word) not in ("hydra.mode", "hydra.sweep.dir")]  # fmt: skip
    place = f"hydra.sweep.dir={launch.quoted(folder)}"
    script = str(launch.conf_dir().absolute().with_name("train.py"))
    command = [sys.executable, script, "-m", *hydra_flags(hydra), *settings, *again, place]
    print(" ".join(command), flush=True)
    os.chdir(hydra["runtime"]["cwd"])
    os.execv(command[0], command)
