"""The command `thaw`: what is done beside training.

    thaw models resnet --sort accuracy
    thaw probe data=pets backbones=resnet18,resnet50
    thaw compare logs/train/multiruns/2026-01-31_12-00-00

A verb's module is imported when it is asked for, so that `thaw --help` does not wait for torch.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from thaw import launch

VERBS = {
    "models": "the backbones there are: size, compute, accuracy, licence",
    "probe": "which backbone and layers suit your photos, by classifiers on frozen features",
    "sweep": "what became of a sweep's jobs; run those that failed again",
    "compare": "runs beside each other: means over seeds, differences, pictures",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the verb that the command line names.

    Args:
        arguments: those after the program's name; None: the process's.

    Raises:
        SystemExit: 1 with one paragraph for what the user can mend, 2 for a wrong command line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        "thaw", description="Transfer learning: what is beside train.py."
    )
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)
    for name, about in VERBS.items():
        verb = verbs.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        if words[:1] == [name]:
            module = _module(name)
            module.arguments(verb)
    given = parser.parse_args(words)
    module = _module(given.verb)
    with launch.explained():
        module.run(given)


def _module(name: str) -> Any:
    return importlib.import_module(f"thaw.{'tools' if name == 'probe' else 'verbs'}.{name}")
