"""README's tour after a run, as a newcomer types it: look, predict, export, serve."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import ROOT, SMALL, TWO_AND_TWO, command, draw_photos

from thaw import cli

README = (ROOT / "README.md").read_text("utf-8")
TOUR = README[README.index("## After the run") : README.index("## Proven")]
COMMANDS = re.findall(r"^```bash\n(.*?)^```", TOUR, re.DOTALL | re.MULTILINE)[0].splitlines()
EXAMPLE = "logs/train/runs/2026-01-31_12-00-00"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the tour names: the run, a photo, labelled and unlabelled photos."""
    place = tmp_path_factory.mktemp("tour")
    photos = draw_photos(place / "drawn")
    words = command(*SMALL, *TWO_AND_TWO, f"data.root={photos}", "report=fast",
                    f"hydra.run.dir={place / EXAMPLE}")  # fmt: skip
    subprocess.run(words, check=True, timeout=300, capture_output=True)
    shutil.copytree(photos / "test", place / "my" / "labelled" / "photos")
    shutil.copytree(photos / "test", place / "my" / "photos")
    for name in ("photo.jpg", "a.jpg", "b.jpg"):  # a PNG inside, as happens
        shutil.copy(photos / "test" / "red" / "0.png", place / name)
    return place


def call(place: Path, words: str) -> subprocess.CompletedProcess[str]:
    """Types a command in the folder; `thaw` and `python` are those of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        ["bash", "-ec", words], cwd=place, env=environment, capture_output=True, text=True,
        timeout=300, check=True,
    )  # fmt: skip


@pytest.mark.slow
def test_every_command_but_the_server(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What names the one photo in a shell, the others in this process."""
    monkeypatch.chdir(place)
    first, *rest = COMMANDS
    assert first.startswith(f"RUN={EXAMPLE}")
    before_serve = rest[: next(n for n, line in enumerate(rest) if "serve" in line)]
    said = []
    for line in before_serve:
        if " photo.jpg" in line:
            said.append(call(place, f"RUN={EXAMPLE}\n{line}").stdout)
        else:
            assert cli.main(shlex.split(line.replace("$RUN", EXAMPLE), comments=True)[1:]) == 0
            said.append(capsys.readouterr().out)
    assert "heat map" in (place / "evaluation" / "report.html").read_text("utf-8").lower()
    assert (place / "other" / "report.html").is_file()
    of_photo = next(out for line, out in zip(before_serve, said, strict=True)
                    if "predict $RUN photo.jpg" in line)  # fmt: skip
    best = of_photo.split()[1]  # path, label, probability
    assert best in ("red", "green", "blue")
    assert len((place / "labels.csv").read_text().splitlines()) == 13
    assert sum(1 for path in (place / "sorted").rglob("*.png")) == 12
    assert best in said[-1]  # of preprocess.py


@pytest.mark.slow
def test_the_server(place: Path) -> None:
    serve, curl = COMMANDS[-2:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", "from thaw.cli import main; raise SystemExit(main())", "serve",
             EXAMPLE, "--port", str(port)]  # fmt: skip
    assert serve.split("#")[0].split() == ["thaw", "serve", "$RUN"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(words, cwd=place, env=environment, stdout=subprocess.DEVNULL)
    try:
        ask = curl.replace("8000", str(port))
        for _ in range(120):
            try:
                (answer,) = json.loads(call(place, ask).stdout)
                break
            except subprocess.CalledProcessError:  # it does not listen yet
                assert process.poll() is None
                time.sleep(0.5)
        assert answer["path"] == "photo.jpg"
        assert answer["label"] == answer["top"][0]["label"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_python(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", TOUR, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(place)
    names: dict[str, object] = {}
    exec(block, names)
    assert getattr(names["model"], "classes", None) == ("blue", "green", "red")
