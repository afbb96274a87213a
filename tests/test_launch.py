"""The command line around a run: choices, resume=, and errors that a user can read."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torchvision.models
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from runs import ROOT

from thaw import launch
from thaw.errors import ConfigError, Interrupted, PhotoError
from thaw.store import last_checkpoints


def test_a_task_name_is_looked_at_before_a_folder_is_made_of_it() -> None:
    with pytest.raises(ConfigError, match=r"^task_name=../evil: allowed is the name of a folder"):
        launch.check_choices(["task_name=../evil"])
    for word in ("++task_name=../evil", "task_name=a,../evil"):
        with pytest.raises(ConfigError, match=r"^task_name=../evil: allowed is"):
            launch.check_choices([word])
    launch.check_choices(["task_name='my task'", "task_name=a,b"])


def test_words_that_hydra_cannot_read() -> None:
    for word in ("data.root=/photos/Bild 1 (2)", "tags=[a,b", "data.root=~/Übung"):
        with pytest.raises(ConfigError) as error:
            launch.check_choices([word])
        assert str(error.value).startswith(f"{word}: cannot be read as KEY=VALUE (")
        key, _, value = word.partition("=")
        quoted = f"{key}='{value}'"
        assert str(error.value).endswith(
            f'quotes around a value with signs in it may help: "{quoted}"'
        )
        launch.check_choices([quoted])


def test_torchvision_names_without_importing_it() -> None:
    names = launch.torchvision_names()
    assert names == sorted(torchvision.models.list_models(module=torchvision.models))
    assert len(names) == 80


def run_folder(folder: Path, *overrides: str) -> Path:
    saved = folder / ".hydra" / "hydra.yaml"
    saved.parent.mkdir(parents=True)
    OmegaConf.save({"hydra": {"overrides": {"task": list(overrides), "hydra": []}}}, saved)
    return folder


def checkpoint(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()


def test_resume_brings_the_settings_of_the_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a run", "data=folder", "seed=3", "ckpt_path=x", "resume=y",
                        "+trainer.val_check_interval=2")  # fmt: skip
    checkpoint(folder)
    for word in (f"resume={folder}", f"resume='{folder}'"):
        words = launch.resume_words(["trainer.max_epochs=9", word, "--cfg", "job", "data=demo"])
        assert words == [
            *("--cfg", "job"),  # argparse takes no options between settings
            "seed=3",
            "+trainer.val_check_interval=2",
            "trainer.max_epochs=9",  # later, so it wins over a saved mapping that holds it too
            "data=demo",  # replaces the saved one
            f"resume='{folder}'",
            f"hydra.run.dir='{folder}'",
            "hydra.mode=RUN",  # a search's settings ask for a sweep
        ]
        assert launch.resume_words(words) == words  # Lightning starts further ranks with them


def test_a_run_without_a_checkpoint_still_begins_with_its_ckpt_path(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "ckpt_path=x")
    words = launch.resume_words([f"resume={folder}"])
    assert words[0] == "ckpt_path=x"
    checkpoint(folder)
    assert launch.resume_words(words) == words  # of a rank that reads it a moment later
    assert launch.resume_words(["ckpt_path=null", f"resume={folder}"])[0] == "ckpt_path=null"
    with pytest.raises(ConfigError, match=r"^resume=.* ckpt_path=\.\.\.: give one of the two$"):
        launch.resume_words([f"resume={folder}", "ckpt_path=y"])


NASTY = ["a", "Bob's", "a b", "\\", "a\\'", "'", "\\\\'b\\\\", "a\\b", '"x"', "größe,="]


@pytest.mark.parametrize("text", NASTY)
def test_quotes_are_put_on_and_taken_off(text: str, tmp_path: Path) -> None:
    quoted = launch.quoted(text)
    assert OverridesParser.create().parse_override(f"a={quoted}").value() == text
    folder = run_folder(tmp_path / text, "seed=3")
    words = launch.resume_words([f"resume={launch.quoted(folder)}"])
    assert words[1] == f"resume={launch.quoted(folder)}"
    assert launch.resume_words(words) == words


def test_only_a_folder_of_thaw_brings_its_own_conf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "train.py").touch()  # of another project that uses Hydra
    assert launch.conf_dir() == ROOT / "conf"
    (tmp_path / "conf" / "train.yaml").touch()
    assert launch.conf_dir() == tmp_path / "conf"


@pytest.mark.parametrize("words", [[], ["seed=1"], ["resume="], ["resume=null", "seed=1"]])
def test_without_resume_the_command_line_stays(words: list[str]) -> None:
    assert launch.resume_words(words) == words


def test_options_come_first_for_argparse() -> None:
    words = ["seed=1,2", "-m", "~tags", "--config-dir", "here", "head=mlp"]
    there = ["-m", "--config-dir", "here", "seed=1,2", "~tags", "head=mlp"]
    assert launch.resume_words(words) == there


def test_resume_of_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.yaml is missing.*ckpt_path=FILE"):
        launch.resume_words([f"resume={tmp_path}"])


def test_the_checkpoints_to_go_on_from(tmp_path: Path) -> None:
    """The newest first, whatever the clock said when it was written."""
    assert last_checkpoints(tmp_path) == []
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name, time in (("last", 3), ("previous", 9), ("best-epoch_001", 12)):
        (folder / f"{name}.ckpt").touch()
        os.utime(folder / f"{name}.ckpt", (time, time))
    found = [folder / "last.ckpt", folder / "previous.ckpt"]
    assert last_checkpoints(str(tmp_path)) == found


def test_an_error_that_the_user_can_mend_is_one_paragraph(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end, launch.explained():
        raise ConfigError("seed=x: allowed is a whole number")
    assert end.value.code == 1
    assert capsys.readouterr().err == "\nerror: seed=x: allowed is a whole number\n"


def test_an_error_from_a_loading_process_loses_its_stack(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """torch raises it anew with the worker's stack as its message."""
    stack = "Caught PhotoError in DataLoader worker process 0.\nTraceback ...\n"
    with pytest.raises(SystemExit), launch.explained():
        raise PhotoError(f"{stack}thaw.errors.PhotoError: a.jpg: is broken\n")
    assert capsys.readouterr().err == "\nerror: a.jpg: is broken\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ignored: list[Any] = []
    monkeypatch.setattr(launch, "ignore_signals", lambda: ignored.append(True))
    for saved in (False, True):
        if saved:
            (tmp_path / "checkpoints").mkdir()
            (tmp_path / "checkpoints" / "previous.ckpt").touch()
        with pytest.raises(SystemExit) as end, launch.explained(folder=tmp_path):
            raise Interrupted(number)
        assert end.value.code == 128 + number
        command = f"; go on with: python train.py resume={tmp_path}" if saved else ""
        assert capsys.readouterr().err == f"\nstopped{command}\n"
    assert ignored == [True, True]


FULL = "No space left on device"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, FULL, "a.json"), f"{FULL}: 'a.json': make room, allow"),
        (ValueError(f"I/O error: {FULL} (os error 28)"), f"{FULL} (os error 28): make room"),
        (
            OSError(errno.EROFS, "Read-only file system", "x"),
            "file system: 'x': make room, allow",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "num_workers"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "num_workers"),
        (MisconfigurationException("Try at least `limit_train_batches=0.03`"), "batches=0.03`"),
    ],
)
def test_trouble_around_the_program_is_one_paragraph(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, error: Exception, said: str
) -> None:
    folder = tmp_path / "a run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(SystemExit) as end, launch.explained(folder=folder):
        raise error
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.endswith(f"; go on with: python train.py 'resume={folder}'\n")


def test_the_reason_that_torch_hides_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos")
    error.__context__ = OSError(errno.ENOSPC, FULL)
    with pytest.raises(SystemExit), launch.explained():
        raise error
    assert FULL in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(),
        ValueError("Caught ValueError in DataLoader worker process 0.\nOriginal"),
    ],
)
def test_our_own_mistakes_keep_their_stack(error: Exception) -> None:
    with pytest.raises(type(error)), launch.explained():
        raise error


def test_a_group_is_chosen_from_once() -> None:
    launch.check_choices(["backbone=resnet18", "seed=1", "seed=2", "--cfg", "job"])
    for first in ("backbone=resnet18", "+backbone=resnet18"):
        with pytest.raises(ConfigError) as error:
            launch.check_choices([first, "seed=1", "backbone=resnet50"])
        assert str(error.value) == (
            f"{first} backbone=resnet50: backbone is chosen twice; leave one out, or sweep over "
            "them: -m backbone=ONE,TWO"
        )


@pytest.mark.slow
def test_main_works_from_another_folder(tmp_path: Path) -> None:
    """`import train; train.main()` knows all choices and tells errors in words."""

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import train; train.main()"
        return subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, text=True,
                              capture_output=True, check=False)  # fmt: skip

    assert "name: resnet18" in call("backbone=resnet18", "--cfg", "job").stdout
    refused = call("optim=lion")
    assert refused.returncode == 1
    known = "adam, adamw, muon, sgd"
    assert refused.stderr == f"\nerror: optim=lion: no such choice. Allowed: {known}\n"
