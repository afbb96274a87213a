"""What a run's folder tells of it, also after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from thaw.errors import ConfigError, Interrupted
from thaw.jobs import status
from thaw.jobs.status import Status

ABOUT = Status(job=3, overrides=("seed=1", "data.root=${paths.data_dir}/x"))


def raising(error: BaseException) -> Callable[[], Mapping[str, Any]]:
    def work() -> Mapping[str, Any]:
        raise error

    return work


def test_a_run_that_ends_well(tmp_path: Path) -> None:
    seen = []

    def work() -> Mapping[str, Any]:
        seen.append(status.read(tmp_path))
        return {"val/acc": 0.1 + 0.2, "seconds": 3}

    assert status.keep(tmp_path, ABOUT, work, "val/acc") == 0.1 + 0.2
    assert seen[0].state == "running"
    assert (seen[0].pid, seen[0].seconds) == (os.getpid(), None)
    after = status.read(tmp_path)
    assert after is not None
    assert (after.state, after.value, after.job) == ("finished", 0.1 + 0.2, 3)
    assert after.overrides == ABOUT.overrides
    assert after.error is None
    assert after.seconds is not None
    assert 0 <= after.seconds < 60


def test_a_pruned_run_and_one_without_the_metric(tmp_path: Path) -> None:
    status.keep(tmp_path, ABOUT, lambda: {"pruned": "epoch 3: behind"}, "val/acc")
    after = status.read(tmp_path)
    assert after is not None
    assert (after.state, after.value) == ("pruned", None)


@pytest.mark.parametrize(
    ("error", "state", "line"),
    [
        (ConfigError("seed=x: is no number"), "failed", "seed=x: is no number"),
        (MemoryError(), "failed", "MemoryError"),
        (RuntimeError("\nout of memory.\n more"), "failed", "RuntimeError: out of memory."),
        (Interrupted(Path("a/checkpoints/b.ckpt")), "stopped", None),
        (KeyboardInterrupt(), "stopped", None),
        (SystemExit(1), "stopped", None),
    ],
)  # fmt: skip
def test_a_run_that_does_not(
    tmp_path: Path, error: BaseException, state: str, line: str | None
) -> None:
    with pytest.raises(type(error)):
        status.keep(tmp_path, ABOUT, raising(error), "val/acc")
    after = status.read(tmp_path)
    assert after is not None
    assert (after.state, after.error) == (state, line)
    assert after.ended is not None


CHILD = """
import sys, time
from pathlib import Path
from thaw.jobs import status
folder = Path(sys.argv[1])
def work():
    if "fork" in sys.argv:  # as a loading process does, which ends before its run
        import multiprocessing
        child = multiprocessing.get_context("fork").Process(target=int)
        child.start()
        child.join()
    (folder / "ready").touch()
    time.sleep(60)
status.keep(folder, status.Status(), work, "val/acc")
"""


@pytest.mark.parametrize("words", [[], ["fork"]])
def test_a_killed_run_is_known(tmp_path: Path, words: list[str]) -> None:
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), *words])
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.02)
    before = status.read(tmp_path)
    assert before is not None
    assert (before.state, before.pid) == ("running", process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    after = status.read(tmp_path)
    assert after is not None
    assert after.state == "killed"
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


def test_two_processes_do_not_work_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "WAIT", 0.1)
    lock = tmp_path / "status.lock"
    with status.hold(lock, ""), pytest.raises(ConfigError, match="another process is at work"):
        status.keep(tmp_path, ABOUT, dict, "val/acc")
    assert status.read(tmp_path) is None


def test_no_run_and_no_status_of_ours(tmp_path: Path) -> None:
    assert status.read(tmp_path) is None
    for text in ("{", "{}", "[]", '{"overrides": [], "else": 1}'):
        (tmp_path / "status.json").write_text(text)
        with pytest.raises(ConfigError, match=r"status\.json: is no status of a run.*move it away"):
            status.read(tmp_path)


def test_a_status_of_a_version_that_writes_more(tmp_path: Path) -> None:
    text = '{"state": "finished", "overrides": ["seed=1"], "else": 1}'
    (tmp_path / "status.json").write_text(text)
    assert status.read(tmp_path) == Status(state="finished", overrides=("seed=1",))


def test_a_folder_that_is_read_only_is_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("status.lock")

    (tmp_path / "status.json").write_text('{"state": "running", "overrides": []}')
    (tmp_path / "status.lock").touch()
    monkeypatch.setattr(status.FileLock, "acquire", refused)
    found = status.read(tmp_path)
    assert found is not None
    assert found.state == "running"
