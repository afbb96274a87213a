"""A comparison as one HTML file: no links outside, pictures inside, tables that sort."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from thaw.compare.comparison import Comparison, best_line
from thaw.compare.tables import Table, cost_table, runs_table, scores_table

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
       max-width: 1160px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p.all, figcaption, .notes { color: #555; }
code, td.path { font: 12.5px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.best { background: #eef6ee; border-left: 4px solid #3a8f3a; padding: .6rem .9rem;
        overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: right; border-bottom: 1px solid #e4e4e4;
         white-space: nowrap; }
th { cursor: pointer; border-bottom: 2px solid #999; vertical-align: bottom; white-space: normal; }
th[aria-sort=ascending]::after { content: " \\2191"; }
th[aria-sort=descending]::after { content: " \\2193"; }
th:first-child, td:first-child, th.path, td.path { text-align: left; }
td:first-child { white-space: normal; min-width: 11rem; }
td.path { white-space: normal; min-width: 18rem; }
tr:hover td { background: #f6f8fb; }
td.clear { font-weight: 600; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
"""

# A click on a column's head sorts by it, by number where cells begin with one.
SORT = """
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const body = head.closest("table").tBodies[0], place = head.cellIndex;
  const down = head.ariaSort === "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[place].textContent;
  const number = text => parseFloat(text.replace(/,/g, ""));
  const order = (a, b) => number(a) - number(b) || (isNaN(number(a)) - isNaN(number(b)))
    || a.localeCompare(b, undefined, {numeric: true});
  [...body.rows].sort((a, b) => (down ? -1 : 1) * order(value(a), value(b)))
    .forEach(row => body.append(row));
};
"""


def page(comparison: Comparison, pictures: Sequence[Mapping[str, bytes]], written: str) -> str:
    """The whole page.

    Args:
        comparison: what to show.
        pictures: for each section, caption -> PNG.
        written: when, for the head.
    """
    parts = [
        f"<h1>Comparison of {escape(comparison.title)}</h1>",
        f'<p class="all">{escape(written)}, by {escape(comparison.metric)}'
        + (f"; all with <code>{escape(comparison.common)}</code>" if comparison.common else "")
        + "</p>",
    ]
    for section, drawn in zip(comparison.sections, pictures, strict=True):
        parts += [
            f"<h2>{escape(section.name or 'Scores')}</h2>",
            f'<p class="best">{escape(best_line(section))}</p>',
            _table(scores_table(section)),
            "<h3>Cost</h3>",
            _table(cost_table(section)),
            *(_figure(caption, picture) for caption, picture in drawn.items()),
            "<h3>Runs</h3>",
            _table(runs_table(section)),
        ]
    if comparison.left_out:
        rows = tuple((str(each.folder), each.why) for each in comparison.left_out)
        parts += ["<h2>Left out</h2>", _table(Table(("folder", "why"), rows))]
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    parts += ["<h2>How to read it</h2>", f'<ul class="notes">{notes}</ul>']
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>thaw: {escape(comparison.title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{SORT}</script>\n</body></html>\n"
    )


def _table(table: Table) -> str:
    paths = [name in ("folder", "why") for name in table.head]
    head = "".join(
        f"<th{_class(path, '')}>{escape(name)}</th>"
        for name, path in zip(table.head, paths, strict=True)
    )
    rows = "".join(
        f"<tr>{''.join(_cell(cell, path) for cell, path in zip(row, paths, strict=True))}</tr>\n"
        for row in table.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: str, path: bool) -> str:
    return f"<td{_class(path, cell)}>{escape(cell)}</td>"


def _class(path: bool, cell: str) -> str:
    if path:
        return ' class="path"'
    return ' class="clear"' if cell.endswith("] *") else ""


def _figure(caption: str, picture: bytes) -> str:
    data = base64.b64encode(picture).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
