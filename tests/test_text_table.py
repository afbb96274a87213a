"""Tables for the terminal."""

import sys
from pathlib import Path

import pytest

from thaw.text_table import print_line, text_table


def test_columns_are_aligned() -> None:
    rows = [("name", "accuracy", "folder"), ("a long name", "0.5", "x"), ("b", "", "")]
    assert text_table(rows, right={1}).split("\n") == [
        "name         accuracy  folder",
        "-----------  --------  ------",
        "a long name       0.5  x",
        "b",
    ]


def test_a_header_alone() -> None:
    assert text_table([("ab", "c")]) == "ab  c\n--  -"


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_table([("a", "b"), ("c",)])


def test_a_line_is_in_a_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of `python train.py > log`, which people follow with tail -f."""
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stdout", log)
        print_line("1/10")
        assert (tmp_path / "log").read_text() == "1/10\n"
