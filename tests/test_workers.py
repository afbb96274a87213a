"""As many workers as suit the machine."""

import pytest

from thaw.data import workers
from thaw.data.workers import choose_workers, usable_cpus


def test_workers_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "usable_cpus", lambda: 6)
    assert choose_workers(10_000, 1, on_cpu=True) == 3  # the network needs the others
    assert choose_workers(100, 1, on_cpu=False) == 0  # not worth a process
    assert choose_workers(10_000, 1, on_cpu=False) == 6
    assert choose_workers(10_000, 4, on_cpu=False) == 1
    assert choose_workers(10_000, 16, on_cpu=False) == 1
    monkeypatch.setattr(workers, "usable_cpus", lambda: 64)
    assert choose_workers(10_000, 1, on_cpu=False) == 8


def test_usable_cpus_follow_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert usable_cpus() == 3
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert usable_cpus() == 7
