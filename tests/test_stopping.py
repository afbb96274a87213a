"""Ctrl-C, SIGTERM and kill -9: what ends first, and that a run goes on to the same bits."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import kills
import pytest
from kills import MOMENTS, Place

from thaw import stopping
from thaw.errors import Interrupted
from thaw.stopping import Signals


def test_outside_an_epoch_a_signal_ends_all_at_once() -> None:
    signals = Signals()
    with pytest.raises(Interrupted) as stop:
        signals._ask(signal.SIGTERM, None)
    assert stop.value.number == signal.SIGTERM
    assert not isinstance(stop.value, Exception)


def test_in_an_epoch_it_waits_for_the_step_and_the_second_does_not(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = Signals()
    signals.in_epoch = True
    signals._ask(signal.SIGTERM, None)
    assert "SIGTERM: saving a checkpoint, then stopping; once more" in capfd.readouterr().err
    signals._ask(signal.SIGTERM, None)  # as `timeout` sends it, to the process and to its group
    signals.check(after=1)
    now = time.monotonic() + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(Interrupted):
        signals.check(after=1)
    with pytest.raises(Interrupted):
        signals._ask(signal.SIGINT, None)


def test_a_write_ends_however_many_signals_come(monkeypatch: pytest.MonkeyPatch) -> None:
    signals, written = Signals(), []

    def write() -> None:
        with signals.held():
            for second in (10, 20, 30):
                monkeypatch.setattr(time, "monotonic", lambda now=second: now)
                signals._ask(signal.SIGINT, None)
                written.append(second)

    with pytest.raises(Interrupted):
        write()
    assert written == [10, 20, 30]
    signals.in_epoch = True
    with signals.held():  # the step's end is what raises then
        signals._ask(signal.SIGINT, None)


def test_a_worker_leaves_signals_to_its_parent() -> None:
    before = [signal.getsignal(number) for number in stopping.NUMBERS]
    try:
        stopping.ignore_signals(0)
        assert [signal.getsignal(number) for number in stopping.NUMBERS] == [signal.SIG_IGN] * 2
    finally:
        for number, handler in zip(stopping.NUMBERS, before, strict=True):
            signal.signal(number, handler)


WAITS = """
import torch.utils.data as data
from thaw.stopping import ignore_signals

loader = data.DataLoader(range(9), num_workers=1, persistent_workers=True,
                         worker_init_fn=ignore_signals)
batches = iter(loader)
next(batches)
"""


def test_a_worker_that_ignores_signals_does_not_outlive_a_program() -> None:
    """Of whatever kind: a notebook has no `explained` around it."""
    subprocess.run([sys.executable, "-c", WAITS], check=True, timeout=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("kills"))


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def check_stopped(place: Place, name: str) -> None:
    """A run that a signal has ended: the last line says so, and it goes on to the same bits."""
    said = place.said(name)
    assert "Traceback" not in said
    assert said.rstrip().rpartition("\n")[2].startswith("stopped")
    saved = (place.folder / name / "checkpoints" / "last.ckpt").exists()
    assert ("go on with" in said) == saved
    place.check_begun(name)
    assert place.run(name) == 0, place.said(name)
    place.check_ended(name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_at_each_moment(place: Place, moment: str) -> None:
    number = (signal.SIGTERM, signal.SIGINT)[list(MOMENTS).index(moment) % 2]
    name = f"signal {moment}".replace(" ", "-")
    assert place.run(name, kills.at(moment, send(number))) == 128 + number, place.said(name)
    assert moment != "caching val" or "features  val" not in place.said(name), "ended the pass"
    check_stopped(place, name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("number", stopping.NUMBERS)
@pytest.mark.parametrize("moment", ["caching train", "unfrozen", "validating", "testing"])
def test_a_signal_to_the_whole_group_with_workers(
    tmp_path_factory: pytest.TempPathFactory, moment: str, number: int
) -> None:
    """As systemd and containers send it."""
    workers = Place(tmp_path_factory.mktemp("workers"), "data.num_workers=1")
    assert workers.run("run", kills.at(moment, lambda: os.killpg(0, number))) == 128 + number
    check_stopped(workers, "run")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("moment", ["random", "caching val", "writing a checkpoint", "results"])
def test_a_killed_run_ends_as_one_that_was_not(place: Place, moment: str) -> None:
    name = f"kill {moment}".replace(" ", "-")
    if moment == "random":
        kills.kill_at_random(place, name, random.Random())
    else:
        kills.kill_at(place, name, moment)
