"""What a sweep's folder tells, and the command to go on; test_jobs.py runs it all."""

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from runs import CONF, ROOT
from thaw.jobs import status, sweep
from thaw.jobs.status import Status

from thaw.errors import ConfigError

GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
SEARCH = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


def sweep_folder(folder: Path, *words: str, **sweeper: Any) -> Path:
    """One whose multirun.yaml has what is read of it."""
    hydra = {
        "sweeper": {"_target_": GRID, **sweeper},
        "overrides": {"task": list(words), "hydra": ["hydra.mode=MULTIRUN", "hydra.verbose=true"]},
        "runtime": {"config_sources": [{"provider": "main", "path": str(CONF)}]},
        "job": {"name": "train", "config": {"override_dirname": {"exclude_keys": ["trainer"]}}},
    }
    folder.mkdir()
    OmegaConf.save(OmegaConf.create({"monitor": "val/acc", "hydra": hydra}),
                   folder / "multirun.yaml")  # fmt: skip
    return folder


def test_jobs_that_never_began_are_known(tmp_path: Path) -> None:
    words = ("trainer=cpu", "backbone=glob(resnet1?)", "seed=range(1,3)", "trainer.devices=1")
    folder = sweep_folder(tmp_path / "it's a sweep", *words, params={"head.dropout": "0.1,0.2"})
    found = sweep.read(folder)
    assert [job.state for job in found.jobs] == ["waiting"] * 4
    assert found.jobs[1].differs == (
        "head.dropout=0.1", "backbone=resnet18", "seed=2", "trainer.devices=1",
    )  # fmt: skip
    (folder / "0").mkdir()
    status.write(folder / "0", Status("failed", ("seed=1",), job=0, error="why\nnot " + "x" * 99))
    found = sweep.read(folder)
    assert sweep.summary(found) == "0 of 4 jobs done, 1 failed, 3 waiting"
    cell = sweep.table(found).splitlines()[2].partition("why")[2]
    assert cell == " not " + "x" * 69 + "..."
    assert sweep.resume_command(found) == [
        sys.executable, str(ROOT / "train.py"), "-m", *words, "hydra.verbose=true",
        f"hydra.sweep.dir='{tmp_path}/it\\'s a sweep'",
    ]  # fmt: skip


def test_a_search_needs_its_seed(tmp_path: Path) -> None:
    folder = sweep_folder(tmp_path / "a", _target_=SEARCH, n_trials=3, sampler={"seed": None})
    assert len(sweep.read(folder).jobs) == 3
    with pytest.raises(ConfigError, match=r"sampler\.seed=null: without a seed"):
        sweep.resume_command(sweep.read(folder))
    folder = sweep_folder(tmp_path / "b", _target_=SEARCH, n_trials=3, sampler={"seed": 0})
    assert sweep.resume_command(sweep.read(folder))
