"""The command `thaw`: what can be done beside training.

    thaw predict logs/train/runs/2026-01-31_12-00-00 photo.jpg
    thaw compare logs/train/multiruns/2026-01-31_12-00-00

Each command is a module of thaw.tools, whose docstring is its help. Its `main(parser, words)` adds
its options to the parser, reads the words by it, and returns the exit status; None is 0. It is
imported only when it is called, so that `thaw --help` does not wait for torch.
"""

import importlib
import os
import sys
from argparse import REMAINDER, SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial

from thaw import launch
from thaw.errors import ConfigError

COMMANDS = {
    "predict": "say what is on photos, with a trained model",
    "evaluate": "measure a trained model on other labelled photos",
    "export": "write a trained model as ONNX or pt2, and check that it gives the same answers",
    "serve": "answer in the browser and over HTTP, with a trained model",
    "check": "look for broken, odd, doubled and mislabelled photos, before training",
    "probe": "find the backbone and layer whose features suit your photos, before training",
    "compare": "compare runs: means over seeds, differences, cost, pictures",
    "models": "list the backbones: size, compute, accuracy, licence",
    "sweep": "go on with a sweep that was stopped",
}
EXTRAS = {"export": "export", "serve": "serve", "probe": "probe", "check": "probe"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the words after `thaw` name, and returns its exit status."""
    listed = "\n".join(f"  {name:<8}  {about}" for name, about in COMMANDS.items())
    make = partial(ArgumentParser, formatter_class=RawDescriptionHelpFormatter)
    parser = make("thaw", usage="thaw COMMAND ...", description=f"commands:\n{listed}",
                  epilog="thaw COMMAND --help says what a command takes.")  # fmt: skip
    parser.add_argument("command", choices=COMMANDS, help=SUPPRESS)
    parser.add_argument("words", nargs=REMAINDER, help=SUPPRESS)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with launch.explained():
        try:
            tool = importlib.import_module(f"thaw.tools.{given.command}")
            own = make(f"thaw {given.command}", description=tool.__doc__)
            status = tool.main(own, given.words)
            sys.stdout.flush()
            return status or 0
        except ModuleNotFoundError as error:
            if given.command not in EXTRAS:
                raise
            hint = f"pip install -e '.[{EXTRAS[given.command]}]' in thaw's folder"
            raise ConfigError(f"thaw {given.command}: {error.name} is missing; {hint}") from error
        except BrokenPipeError:  # of `| head`; what is left goes nowhere when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141  # as shells report it
        except OSError as error:
            hint = "give a place that can be read and written, and has room"
            raise ConfigError(f"thaw {given.command}: {error}; {hint}") from error
