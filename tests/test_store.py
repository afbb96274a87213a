"""A file that is kept is what its note says, or it is not used."""

import json
from pathlib import Path

import pytest

from thaw.store import Store

CONTENT = bytes(range(96))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "features", {"number": 3, "views": 2})
    made.path.parent.mkdir()
    part = made.part("abc")
    part.write_bytes(CONTENT)
    assert not made.is_whole()
    made.finish(part, shape=[3, 2, 4])
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


@pytest.mark.parametrize("harm", ["truncated", "flipped", "foreign", "no note", "broken note"])
def test_a_file_that_is_not_what_it_says_is_not_used(store: Store, harm: str) -> None:
    content = store.path.read_bytes()
    if harm == "truncated":
        store.path.write_bytes(content[:-4])
    elif harm == "flipped":
        store.path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "foreign":
        note = json.loads(store.note.read_text())
        store.note.write_text(json.dumps({**note, "what": {"number": 3, "views": 1}}))
    elif harm == "no note":
        store.note.unlink()
    else:
        store.note.write_text("{")
    assert not store.is_whole()
