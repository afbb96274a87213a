"""`thaw report RUN`: makes the page of a finished run again.

    thaw report logs/train/runs/2026-01-31_12-00-00
    thaw report logs/train/runs/2026-01-31_12-00-00 --full

It is made from the files in the folder alone; the photos of the test split should still be there.
"""

import shlex
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError

from thaw.errors import ConfigError, ThawError, reason
from thaw.report.page import write_page


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    parser.add_argument("run", type=Path, help="folder of a run, or of thaw evaluate")
    parser.add_argument("--full", action="store_true", help="add heat maps")
    given = parser.parse_args(words)
    try:
        print(write_page(given.run, full=given.full))
    except ThawError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
            TemplateError) as error:  # fmt: skip
        raise ConfigError(
            f"{given.run}: results.json or another file of the run is damaged, or of another "
            f"version of thaw ({reason(error)}); measure its model by: thaw evaluate "
            f"{shlex.quote(str(given.run))}"
        ) from error
