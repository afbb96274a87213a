"""Tables for the terminal."""

from collections.abc import Collection, Sequence


def text_table(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Lays out rows of text as a table with aligned columns.

    A line of dashes separates the header from the rest, columns stand two spaces apart, and no
    line ends with blanks.

    Args:
        rows: The first row is the header; all rows have the same number of cells.
        right: Numbers of the columns that are aligned to the right, counted from 0.

    Raises:
        ValueError: A row has more or fewer cells than the header.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
