"""Tables for the terminal."""

import pytest

from thaw.text_table import text_table


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
