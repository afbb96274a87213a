"""The command line around a run: choices, resume=, and errors that a user can read."""

import os
from pathlib import Path

import pytest
import torchvision.models
from omegaconf import OmegaConf

from thaw import launch
from thaw.errors import ConfigError, Interrupted, PhotoError


def test_torchvision_names_without_importing_it() -> None:
    names = launch.torchvision_names()
    assert names == sorted(torchvision.models.list_models(module=torchvision.models))
    assert len(names) == 80


def run_folder(folder: Path, *overrides: str) -> Path:
    saved = folder / ".hydra" / "overrides.yaml"
    saved.parent.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), saved)
    return folder


def test_resume_brings_the_settings_of_the_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a run", "data=folder", "seed=3", "ckpt_path=x", "resume=y")
    for word in (f"resume={folder}", f"resume='{folder}'"):
        arguments = launch.resume_arguments([word, "trainer.max_epochs=9"])
        assert arguments == [
            "data=folder",
            "seed=3",
            "trainer.max_epochs=9",  # last, so it wins
            f"resume='{folder}'",
            f"hydra.run.dir='{folder}'",
            "hydra.mode=RUN",  # a search's settings ask for a sweep
        ]


@pytest.mark.parametrize("words", [[], ["seed=1"], ["resume="], ["resume=null", "seed=1"]])
def test_without_resume_the_command_line_stays(words: list[str]) -> None:
    assert launch.resume_arguments(words) == words


def test_resume_of_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"overrides\.yaml is missing.*ckpt_path=FILE"):
        launch.resume_arguments([f"resume={tmp_path}"])


def test_the_checkpoint_furthest_along(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no last\.ckpt or interrupted\.ckpt in .*checkpoints"):
        launch.last_checkpoint(tmp_path)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    last, interrupted = folder / "last.ckpt", folder / "interrupted.ckpt"
    for age, path in enumerate((interrupted, last)):
        path.touch()
        os.utime(path, (age, age))
    assert launch.last_checkpoint(tmp_path) == last
    os.utime(interrupted, (9, 9))
    assert launch.last_checkpoint(str(tmp_path)) == interrupted
    last.unlink()
    assert launch.last_checkpoint(tmp_path) == interrupted


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


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end, launch.explained():
        raise Interrupted(tmp_path / "checkpoints" / "interrupted.ckpt")
    assert end.value.code == 130
    assert f"python train.py resume={tmp_path}\n" in capsys.readouterr().err


def test_our_own_mistakes_keep_their_stack() -> None:
    with pytest.raises(ZeroDivisionError), launch.explained():
        raise ZeroDivisionError
