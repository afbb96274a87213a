"""What comes with the folder of a run, of a sweep or of a model is data: nothing of it runs."""

import os
import pickle
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
import yaml
from runs import ROOT

import thaw
from thaw import launch
from thaw.errors import ConfigError
from thaw.store import read_checkpoint
from thaw.tools import sweep

MARK = "/tmp/thaw_was_here"  # would be made by what runs
HOSTILE = [  # words of a run folder that would run code, reach out of it, or read secrets
    f"+callbacks.x={{_target_:os.mkdir,path:{MARK}}}",
    "+callbacks.x._target_=torch.load",
    "callbacks.checkpoint._target_=shutil.copy",
    "head={_target_:torch.hub.load,repo_or_dir:a/b}",
    "optim._target_=torch.optim.lr_scheduler.os.system",
    "logger={a:[{b:{_target_:joblib.load}}]}",
    "+optim.x=choice({_target_:os.getcwd},1)",
    "augment._target_=${task_name}",
    "augment._target_=os.getcwd.",
    "augment={_target_ : 'os.getcwd'}",
    "augment={_target_:thaw.head.linear-x}",
    "augment={_target_:[thaw.head.linear],x:{_target_:thaw.head.linear}}",
    "+augment.x='${oc.create:{_target_: os.getcwd}}'",
    "logger.tensorboard.name=${oc.env:HOME}",
    "hydra/launcher=joblib",
    "hydra.run.dir=/tmp/elsewhere",
    "+hydra.callbacks.x={_target_:os.getcwd}",
    "++hydra.callbacks.x._target_=os.getcwd",
    "optim@hydra.callbacks.x=adam",
    "experiment=../../../tmp/evil",
    "+experiment=/tmp/evil",
    "logger=[csv,../../evil]",
    "--config-dir=/tmp/evil",
    "-m",
    "--multirun",
]
OWN = [  # words that a run of one's own has
    "data=folder", "seed=1", "logger=[csv,tensorboard]", "~callbacks.progress", "paths.root_dir=/x",
    "+trainer.max_time='00:00:10:00'", "backbone=timm/resnet18.a1", "phase@finetune.frozen=none",
    "data.root='a b'", "callbacks.ema._target_=thaw.training.averaging.EMA",
    "finetune.frozen.schedule={_target_:torch.optim.lr_scheduler.StepLR,_partial_:true,step_size:2}",
]  # fmt: skip


def run_folder(folder: Path, *words: Any) -> Path:
    (folder / ".hydra").mkdir()
    hydra = {"overrides": {"task": list(words), "hydra": []}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    return folder


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as error:
        launch.resume_words(words)
    return str(error.value)


@pytest.mark.parametrize("word", HOSTILE)
def test_a_run_folder_is_data(word: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "seed=1", word)
    said = refused(f"resume={folder}")
    assert said.startswith(f"{word}: ")
    assert "hydra.yaml" in said
    assert "trust=true" in said
    assert word in launch.resume_words([f"resume={folder}", "trust=true"])


def test_a_run_of_ones_own_goes_on_without_trust(tmp_path: Path) -> None:
    words = launch.resume_words([f"resume={run_folder(tmp_path, *OWN)}"])
    assert set(OWN) <= {*words}


def test_a_run_folder_cannot_trust_itself(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "trust=true", "++trust=true", HOSTILE[0])
    assert "names a class" in refused(f"resume={folder}")
    (tmp_path / "other").mkdir()
    folder = run_folder(tmp_path / "other", "trust=true", "seed=1")
    assert "trust=true" not in launch.resume_words([f"resume={folder}"])


def test_a_class_of_the_checkouts_own_conf_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(tmp_path, "head._target_=my.heads.Own")
    assert "names a class" in refused(f"resume={folder}")
    (tmp_path / "conf" / "head").mkdir(parents=True)
    (tmp_path / "conf" / "train.yaml").touch()
    (tmp_path / "train.py").touch()
    (tmp_path / "conf" / "head" / "own.yaml").write_text("_target_: my.heads.Own\n")
    monkeypatch.chdir(tmp_path)
    assert "head._target_=my.heads.Own" in launch.resume_words([f"resume={folder}"])


@pytest.mark.parametrize(
    "content",
    ["", "hydra", "hydra:", "hydra: {overrides", "hydra: {overrides: [1]}",
     "hydra: {overrides: {}}", "hydra: {overrides: {task: [[a, b]]}}",
     "hydra: {overrides: {task: 5}}", "\0\1", "[" * 500,
     "hydra: !!python/object/apply:os.getcwd []"],
)  # fmt: skip
def test_a_damaged_file_is_told_in_a_paragraph(content: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    (folder / ".hydra" / "hydra.yaml").write_text(content)
    said = refused(f"resume={folder}")
    assert "hydra.yaml: is not as Hydra writes it" in said
    assert "ckpt_path=CHECKPOINT" in said
    assert "\n" not in said


def sweep_folder(folder: Path, **changes: Any) -> Path:
    hydra: dict[str, Any] = {
        "overrides": {"task": ["seed=1,2"], "hydra": ["hydra.mode=MULTIRUN"]},
        "runtime": {"cwd": str(ROOT), "config_sources": []}, "job": {"config_name": "train"},
    }  # fmt: skip
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {**hydra, **changes}}))
    return folder


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that a resumed sweep becomes."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, words: commands.append(words))
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("THAW_TRUST", raising=False)
    return commands


def words_of(task: list[str], hydra: list[str]) -> dict[str, Any]:
    return {"overrides": {"task": task, "hydra": hydra}}


@pytest.mark.parametrize(
    "changes",
    [
        *(words_of([word], []) for word in HOSTILE),
        words_of([], ["hydra/launcher=submitit_local", "hydra.launcher.setup=[touch x]"]),
        words_of([], ["hydra/launcher=../../evil"]),
        words_of([], ["hydra.launcher.n_jobs=2", "hydra.callbacks.x._target_=os.getcwd"]),
        {"job": {"config_name": "../../tmp/evil"}},
        {"runtime": {"cwd": str(ROOT), "config_sources": [
            {"path": "/tmp/evil", "provider": "command-line"}]}},
    ],
)  # fmt: skip
def test_a_sweep_folder_is_data(
    changes: dict[str, Any], tmp_path: Path, started: list[list[str]], monkeypatch: Any
) -> None:
    folder = sweep_folder(tmp_path, **changes)
    with pytest.raises(ConfigError, match=r"multirun\.yaml.*--trust"):
        sweep.main(ArgumentParser(), ["resume", str(folder)])
    assert started == []
    monkeypatch.setenv("THAW_TRUST", "")  # so that it is taken away again
    sweep.main(ArgumentParser(), ["resume", "--trust", str(folder)])
    assert len(started) == 1


def test_a_sweep_of_ones_own_goes_on(tmp_path: Path, started: list[list[str]]) -> None:
    sweep.main(ArgumentParser(), ["resume", str(sweep_folder(tmp_path, **words_of(
        ["seed=1,2", "backbone=glob(resnet*)"],
        ["hydra.launcher.n_jobs=2", "hydra/launcher=joblib", "hydra.mode=MULTIRUN"],
    )))])  # fmt: skip
    assert "hydra.launcher.n_jobs=2" in started[0]


def test_a_sweep_brings_no_conf_of_its_own(tmp_path: Path, started: list[list[str]]) -> None:
    """Its working directory would say which classes are known."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").touch()
    (tmp_path / "train.py").write_text(f"open({MARK!r}, 'w')")
    runtime = {"cwd": str(tmp_path), "config_sources": []}
    with pytest.raises(ConfigError, match=r"a conf/ and a train\.py of its own"):
        sweep.main(ArgumentParser(), ["resume", str(sweep_folder(tmp_path, runtime=runtime))])
    assert started == []


@pytest.mark.parametrize("changes", [{"runtime": {}}, {"runtime": {"cwd": 3}}, {"job": 3}])
def test_a_damaged_sweep(changes: dict[str, Any], tmp_path: Path, started: list[list[str]]) -> None:
    with pytest.raises(ConfigError, match="is not as Hydra writes it"):
        sweep.main(ArgumentParser(), ["resume", str(sweep_folder(tmp_path, **changes))])
    assert started == []


def test_a_sweep_whose_project_was_moved(tmp_path: Path, started: list[list[str]]) -> None:
    runtime = {"cwd": "/gone", "config_sources": []}
    sweep.main(ArgumentParser(), ["resume", str(sweep_folder(tmp_path, runtime=runtime))])
    assert len(started) == 1


class Evil:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_hostile_checkpoint_runs_nothing(legacy: bool, tmp_path: Path) -> None:
    mark, file = tmp_path / "mark", tmp_path / "last.ckpt"
    content = {"hyper_parameters": Evil(mark)}
    if legacy:
        file.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, file)
    for read in (read_checkpoint, thaw.load):
        with pytest.raises(ConfigError) as error:
            read(file)
        assert str(file) in str(error.value)
        assert "weights_only" not in str(error.value)
        assert "\n" not in str(error.value)
    assert not mark.exists()


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    """torch stores what it saves; 2 GB of zeros in a file of 4 MB would fill the memory."""
    plain, bomb = tmp_path / "plain.ckpt", tmp_path / "bomb.ckpt"
    torch.save({"hyper_parameters": {"classes": ["a"]}, "x": torch.zeros(9)}, plain)
    read_checkpoint(plain)
    with ZipFile(plain) as source, ZipFile(bomb, "w", ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ConfigError, match="is damaged or is no checkpoint"):
        read_checkpoint(bomb)
