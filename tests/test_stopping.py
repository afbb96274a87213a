"""Ctrl-C, SIGTERM and kill -9: what ends first, and that a run goes on to the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def test_it_waits_too_where_nobody_reads_any_more() -> None:
    """Ctrl-C ends `tee` as well, of `python train.py 2>&1 | tee FILE`; the checkpoint counts."""
    code = (
        "import os, signal, sys; from thaw.stopping import Signals\n"
        "signals = Signals(); signals.in_epoch = True; sys.stdin.read()\n"
        "signals._ask(signal.SIGINT, None); print('row', flush=True)\n"
        "print('row', file=sys.stderr, flush=True); os._exit(7)"
    )
    reads, writes = os.pipe()
    job = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=writes, stderr=writes
    )
    os.close(writes)
    os.close(reads)
    job.communicate(b"", timeout=60)
    assert job.returncode == 7


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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_go_on_after_signals_and_kills() -> None:
    """In a process of its own: torch cannot train in the fork of a process that has trained."""
    file = Path(__file__).with_name("stops.py")
    options = ["-n0", "-q", "-p", "no:cacheprovider", "-W", "ignore:.*fork:DeprecationWarning"]
    own = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, env=own, cwd=file.parents[1])
    assert ended.returncode == 0, ended.stdout[-5000:]
