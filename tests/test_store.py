"""A file that is kept is what its note says, or it is not used."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from thaw.errors import ConfigError
from thaw.store import LARGEST, Store, read_plain, write_json

CONTENT = bytes(range(96))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "features", {"number": 3, "views": 2})
    made.path.parent.mkdir()
    part = made.part("abc")
    part.write_bytes(CONTENT)
    assert not made.is_whole()
    made.finish(part, len(CONTENT), shape=[3, 2, 4])
    return made


def test_what_is_written_is_read(store: Store) -> None:
    assert store.is_whole()
    assert store.path.read_bytes() == CONTENT
    assert store.facts()["shape"] == [3, 2, 4]
    names = {path.suffix for path in store.path.parent.iterdir()}
    assert names == {".bin", ".json"}


def test_parts_of_killed_runs_go_and_those_of_other_files_stay(store: Store) -> None:
    other = Store(store.path.parent, {"number": 4})
    for part in (store.part("killed"), other.part("at-work")):
        part.touch()
    store.clear_parts()
    assert [path.name for path in store.path.parent.glob("*part")] == [other.part("at-work").name]
    assert store.is_whole()


@pytest.mark.parametrize("harm", [
    "truncated", "flipped", "foreign", "no note", "broken note", "note by hand", "list as note",
])  # fmt: skip
def test_a_file_that_is_not_what_it_says_is_not_used(store: Store, harm: str) -> None:
    content = store.path.read_bytes()
    if harm == "truncated":
        store.path.write_bytes(content[:-4])
    elif harm == "flipped":
        store.path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "foreign":
        note = json.loads(store.note.read_text())
        store.note.write_text(json.dumps({**note, "what": {"number": 3, "views": 1}}))
    elif harm == "note by hand":
        note = json.loads(store.note.read_text())
        del note["shape"]
        store.note.write_text(json.dumps(note))
    elif harm == "list as note":
        store.note.write_text("[]")
    elif harm == "no note":
        store.note.unlink()
    else:
        store.note.write_text("{")
    assert not store.is_whole()


def test_a_number_that_is_not_finite_is_null(tmp_path: Path) -> None:
    """Bare NaN is no JSON: JavaScript, jq and DuckDB refuse the file."""
    file = tmp_path / "results.json"
    write_json(
        {"a": [math.nan, -math.inf, 0.1], "b": {"c": np.float64(math.inf)}, "d": "NaN"}, file
    )
    assert read_plain(file) == {"a": [None, None, 0.1], "b": {"c": None}, "d": "NaN"}


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_files_that_are_no_plain_values(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    file.write_bytes(b"\xff")
    for path in (file, tmp_path / "missing", tmp_path / "folder", tmp_path / "pipe"):
        with pytest.raises(ConfigError, match=f"^{path}: is damaged, or of another program"):
            read_plain(path)
    file.write_text("{}")
    with pytest.raises(ConfigError, match="its content is no list"):
        read_plain(file, list)
    with file.open("wb") as opened:
        opened.truncate(LARGEST + 1)
    with pytest.raises(ConfigError, match="no file, or above 30 MB"):
        read_plain(file)


def test_a_small_file_stays_small(tmp_path: Path) -> None:
    """Nine lines of aliases can be a tree of a billion values, as soon as it is walked."""
    file = tmp_path / "a.yaml"
    file.write_text("a: &a [1, 2]\nb: [*a, *a]\n")
    with pytest.raises(ConfigError, match=r"a\.yaml: is damaged.*it has aliases"):
        read_plain(file)


@pytest.mark.parametrize("text", ["[" * 99_999 + "]" * 99_999, "- a\n" * 99_999])
def test_yaml_that_would_take_minutes(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml: is damaged.*larger than Hydra's files"):
        read_plain(file, list)
