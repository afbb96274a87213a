"""Shared by all tests: where the real photos are, and a straight way to local servers."""

import os
import signal
from pathlib import Path

import pytest
import torch

# Networks here are so small that a second thread costs more than it brings, and waits for its
# core when anything else runs on the machine.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
# A shell lets what it starts in the background ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real photos (flowers-102, ...), from THAW_DATA; skips, saying so, without it."""
    if not os.environ.get("THAW_DATA"):
        pytest.skip("THAW_DATA is not set: no real photos")
    return Path(os.environ["THAW_DATA"])


@pytest.fixture(autouse=True)
def straight_to_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reaches the network through a proxy would ask it for 127.0.0.1 too."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
