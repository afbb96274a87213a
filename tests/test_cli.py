"""The command `thaw`."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from thaw import cli
from thaw.errors import ConfigError


def test_help_lists_the_commands_without_importing_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    for name, about in cli.COMMANDS.items():
        assert f"  {name:<8}  {about}" in printed
    code = "import sys; from thaw import cli; cli.main(['--help'])"
    script = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); {code}"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: thaw {name}" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["comapre"]])
def test_a_wrong_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "usage: thaw COMMAND" in capsys.readouterr().err


LONG = """
import sys, types
from thaw import cli
tool = types.ModuleType("thaw.tools.models")
tool.main = lambda *_: print("x" * 1_000_000)
sys.modules["thaw.tools.models"] = tool
sys.exit(cli.main())
"""


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(LONG)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} long.py models | true; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_words_and_errors_of_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_parser: object, arguments: list[str]) -> int:
        if arguments == ["x", "--top", "-1"]:
            return 3
        raise ConfigError("--top 0: give 1 or more")

    command = ModuleType("thaw.tools.predict")
    command.main = main  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "thaw.tools.predict", command)
    assert cli.main(["predict", "x", "--top", "-1"]) == 3
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", "--top", "0"])
    assert end.value.code == 1
    assert capsys.readouterr().err == "\nerror: --top 0: give 1 or more\n"
