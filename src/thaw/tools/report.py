"""`thaw report RUN`: makes the page of a finished run again.

    thaw report logs/train/runs/2026-01-31_12-00-00
    thaw report logs/train/runs/2026-01-31_12-00-00 --full

It is made from the files in the folder alone; the photos of the test split should still be there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from thaw.report.page import write_page


def main(words: Sequence[str]) -> int:
    """Writes RUN/report.html and prints where it is.

    Args:
        words: The words of the command line after `thaw report`.

    Raises:
        ConfigError: The folder is no finished run.
    """
    parser = argparse.ArgumentParser(
        "thaw report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run, or of thaw evaluate")
    parser.add_argument("--full", action="store_true", help="add heat maps and layer movement")
    given = parser.parse_args(words)
    print(write_page(given.run, full=given.full))
    return 0
