"""Names that tell settings apart, in as few words as say it."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from thaw.errors import shown

# Choices come before single settings in a name, in this order, then whatever else varies.
FIRST = ("experiment", "data", "backbone", "finetune", "head", "optim")
LONGEST = 48  # characters of a value in a name


def distinguish(rows: Sequence[Mapping[str, Any]], typed: Collection[str]) -> list[str]:
    """A name for each row: "backbone=resnet18, finetune.unfrozen.lr=0.01".

    What was given on the command line is always named where it varies; of the rest only what does
    not follow from it: with backbone=vit_b_16 nobody needs to read backbone.image_size=224.

    Args:
        rows: settings and choices of each thing to be named; one that is missing counts as null.
        typed: names given on the command line.
    """
    keys = dict.fromkeys(key for row in rows for key in row)
    columns = {key: [as_text(row.get(key)) for row in rows] for key in keys}
    varied = [key for key, column in columns.items() if len(set(column)) > 1]
    if not varied:
        return ["all"] * len(rows)
    varied.sort(key=lambda key: (not _is_typed(key, typed), _rank(key)))
    chosen: list[str] = []
    told: list[tuple[str, ...]] = [()] * len(rows)
    for key in varied:
        longer = [(*told[place], text) for place, text in enumerate(columns[key])]
        if _is_typed(key, typed) or len(set(longer)) > len(set(told)):
            chosen.append(key)
            told = longer
    short = [_name(chosen, row, longest=LONGEST) for row in rows]
    return short if len(set(short)) == len(set(told)) else [
        _name(chosen, row, longest=None) for row in rows
    ]  # fmt: skip


def words_of(name: str) -> set[str]:
    """The settings in a name."""
    return {word.strip() for word in name.split(", ")}


def as_text(value: Any) -> str:
    """One text for equal values, without blanks."""
    return json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))


def flat(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested mappings under its name with dots; an empty mapping is a value."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node


def _rank(key: str) -> tuple[int, bool]:
    return FIRST.index(key) if key in FIRST else len(FIRST), "." in key


def _is_typed(key: str, typed: Collection[str]) -> bool:
    """Whether the command line gave it, or a mapping that it stands in: finetune.rates={...}."""
    parts = key.split(".")  # "finetune" alone is the choice of a file, not a mapping
    return any(".".join(parts[:n]) in typed for n in (len(parts), *range(2, len(parts))))


def _name(keys: Sequence[str], row: Mapping[str, Any], longest: int | None) -> str:
    words = [f"{key}={_value(row[key], longest)}" for key in keys if key in row]
    return ", ".join(words) or "otherwise"


def _value(value: Any, longest: int | None) -> str:
    text = shown(value) if isinstance(value, str | None) else as_text(value)
    if longest is None:
        return text
    if isinstance(value, str) and "/" in value:
        text = PurePath(value).name
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
