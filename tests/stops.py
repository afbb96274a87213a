"""Runs that Ctrl-C, SIGTERM and kill -9 end at many moments; test_stopping.py starts this file."""

import os
import random
import signal
from collections.abc import Callable

import kills
import pytest
from kills import Place

from thaw import stopping
from thaw.training import checkpoints

# one of each kind; `python tests/kills.py` has them all
KINDS = ("before fit", "caching val", "frozen", "at the unfreeze", "validating", "saving last",
         "writing a checkpoint", "testing", "results")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("kills"))


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("workers"), "data.num_workers=1")


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


@pytest.mark.parametrize("moment", KINDS)
def test_a_signal_at_each_moment(place: Place, moment: str) -> None:
    number = stopping.NUMBERS[KINDS.index(moment) % 2]
    name = f"signal {moment}".replace(" ", "-")
    assert place.run(name, kills.at(moment, send(number))) == 128 + number, place.said(name)
    assert moment != "caching val" or "features  val" not in place.said(name), "ended the pass"
    check_stopped(place, name)


def test_a_signal_in_a_validation_that_takes_long(place: Place) -> None:
    """It is left, and so is what its epoch has trained; the same bits come of it."""

    def before() -> None:
        checkpoints.VALIDATION_SECONDS = 0
        kills.at("validating", send(signal.SIGTERM))()

    assert place.run("long-validation", before) == 128 + signal.SIGTERM
    check_stopped(place, "long-validation")


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("caching train", signal.SIGINT),
        ("unfrozen", signal.SIGTERM),
        ("validating", signal.SIGTERM),
    ],
)
def test_a_signal_to_the_whole_group_with_workers(workers: Place, moment: str, number: int) -> None:
    """As systemd and containers send it."""
    name = f"group {moment}".replace(" ", "-")
    assert workers.run(name, kills.at(moment, lambda: os.killpg(0, number))) == 128 + number
    check_stopped(workers, name)


@pytest.mark.parametrize("moment", ["random", "caching val", "writing a checkpoint"])
def test_a_killed_run_ends_as_one_that_was_not(place: Place, moment: str) -> None:
    name = f"kill {moment}".replace(" ", "-")
    if moment == "random":
        kills.kill_at_random(place, name, random.Random())
    else:
        kills.kill_at(place, name, moment)
