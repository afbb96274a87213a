"""Tables for the terminal."""

from collections.abc import Collection, Sequence


def text_table(rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Lays out rows, the header first; columns with numbers (from 0) in `right` align right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    cells = (f"{{:{'>' if n in right else '<'}{width}}}" for n, width in enumerate(widths))
    form = "  ".join(cells)  # of a line
    return "\n".join(form.format(*line).rstrip() for line in lines)
