"""What a person reads while a run trains."""

import contextlib
import os
import pty
import re
import subprocess
import termios
from pathlib import Path

import pytest
from runs import SMALL, TWO_AND_TWO, command, draw_photos, run_small


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def test_one_row_an_epoch_and_a_line_at_the_unfreeze(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_small(photos, tmp_path, "callbacks=default")
    printed = capsys.readouterr()
    rows = re.findall(r"^ *([1-4])/4 +(\w+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +(\S+) +[\d.]+"
                      r"(  best)?$", printed.out, re.MULTILINE)  # fmt: skip
    assert [row[:2] for row in rows] == [
        ("1", "frozen"), ("2", "frozen"), ("3", "unfrozen"), ("4", "unfrozen"),
    ]  # fmt: skip
    accuracies = [float(row[5]) for row in rows]
    best = [accuracy > max(accuracies[:place], default=-1)
            for place, accuracy in enumerate(accuracies)]  # fmt: skip
    assert [bool(row[7]) for row in rows] == best
    lines = printed.out.splitlines()
    unfreeze = next(place for place, line in enumerate(lines) if line.startswith("--- "))
    assert "unfrozen: head, layer4" in lines[unfreeze]
    assert "from epoch 3 on, lr 2.0e-03 to " in lines[unfreeze]
    assert lines[unfreeze + 1].lstrip().startswith("3/4")
    assert "%" not in printed.err  # no bar without a terminal
    assert lines[-1] == f"next      thaw predict {tmp_path} photo.jpg"


@pytest.mark.slow
def test_in_a_terminal_one_bar_stands_below_the_rows(photos: Path, tmp_path: Path) -> None:
    """The bar goes to stderr and is wiped before each row."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, 120))
    words = [*SMALL, *TWO_AND_TWO, f"data.root={photos}", f"hydra.run.dir={tmp_path / 'run'}",
             "callbacks=default", "finetune.cache_features=true"]  # fmt: skip
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    bars = ""
    with contextlib.suppress(OSError):  # how Linux tells that the other end is closed
        while part := os.read(master, 1 << 16):
            bars += part.decode(errors="replace")
    rows = process.communicate()[0].decode()
    os.close(master)
    assert process.returncode == 0
    assert "training 1/4" in bars
    assert re.search(r"caching features of train: +\d+%", bars)
    assert re.search(r"caching features of val: +\d+%", bars)
    assert "testing" in bars
    assert "%" not in rows.split("train loss", 1)[1]
