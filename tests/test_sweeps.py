"""Folders of runs and jobs: safe names, never shared, and what they say of the run."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import sweeps as places
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from hydra_plugins.thaw_launcher import SweepFolder
from thaw import sweeps
from thaw.errors import ConfigError
from thaw.launch import saved_words
from thaw.sweeps import RunFolder, new_folder


def test_processes_at_the_same_time_get_folders_of_their_own(tmp_path: Path) -> None:
    with ProcessPoolExecutor(8, mp_context=get_context("fork")) as pool:
        found = list(pool.map(new_folder, [tmp_path / "logs" / "2026-01-31_12-00-00"] * 40))
    assert len(set(found)) == 40
    names = {path.name for path in found}
    assert names == {"2026-01-31_12-00-00", *(f"2026-01-31_12-00-00_{n}" for n in range(2, 41))}


def hydra(folder: Path, *words: str, mode: RunMode = RunMode.RUN, resume: str | None = None) -> Any:
    """A configuration of Hydra's, of a run or a sweep in this folder."""
    return OmegaConf.create({
        "resume": resume, "train": True, "monitor": "val/acc", "paths": {"output_dir": str(folder)},
        "hydra": {"mode": mode, "run": {"dir": str(folder)}, "sweep": {"dir": str(folder)},
                  "overrides": {"hydra": list(words), "task": ["seed=1,2", "trainer=cpu"]}},
    })  # fmt: skip


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    for name in ("run", "run_2", "run_3"):
        cfg = hydra(tmp_path / "run")
        RunFolder().on_run_start(cfg)
        assert cfg.hydra.run.dir == str(tmp_path / name)
        assert (tmp_path / name).is_dir()


def test_results_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = hydra(tmp_path, f"hydra.run.dir={tmp_path}")
    RunFolder().on_run_start(cfg)  # what a killed run left may be overwritten
    (tmp_path / "results.json").write_text('{"val/acc": 1}')
    with pytest.raises(SystemExit) as end:
        RunFolder().on_run_start(cfg)
    assert end.value.code == 1
    assert (
        f"holds the results of a run; choose another folder, or go on with it by resume={tmp_path}"
        in (capsys.readouterr().err)
    )
    RunFolder().on_run_start(hydra(tmp_path, f"hydra.run.dir={tmp_path}", resume=str(tmp_path)))


def test_a_folder_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~ is the home folder also where no shell replaces it, as in conf/local/."""
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = hydra(Path("~/runs/a"))
    RunFolder().on_run_start(cfg)
    assert cfg.hydra.run.dir == str(tmp_path / "runs" / "a")
    assert (tmp_path / "runs" / "a").is_dir()


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for words in ((), ("hydra.run.dir=x",)):
        with pytest.raises(SystemExit):
            RunFolder().on_run_start(hydra(tmp_path / "file" / "run", *words))
        said = capsys.readouterr().err
        assert f"{tmp_path}/file/run': choose another folder by paths.root_dir or hydra.run" in said


def test_a_further_rank_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    RunFolder().on_run_start(hydra(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_jobs_know_their_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = hydra(tmp_path / "it's", "hydra.verbose=true")
    SweepFolder().on_multirun_start(cfg)
    assert cfg.hydra.sweep.dir == f"{tmp_path}/it's"
    file = tmp_path / "it's" / "multirun.yaml"  # for thaw sweep resume
    assert saved_words(file) == ["seed=1,2", "trainer=cpu"]
    place = str(tmp_path / "it's").replace("'", r"\'")
    assert cfg.hydra.overrides.hydra == ["hydra.verbose=true", f"hydra.sweep.dir='{place}'"]


def test_a_job_with_other_settings_has_another_folder() -> None:
    """So that a search, which may draw others when it is resumed, finds no results of them."""
    RunFolder()
    names = [
        OmegaConf.create({"name": f"${{job_folder:{number},${{words}}}}", "words": words}).name
        for number, words in ((1, ["lr=1"]), (1, ["lr=1"]), (1, ["lr=2"]), (2, ["lr=${a}"]))
    ]
    assert names[0] == names[1] != names[2]
    assert [name.partition("_")[0] for name in names] == ["1", "1", "1", "2"]


def test_a_folder_of_another_sweep_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = hydra(tmp_path, f"hydra.sweep.dir={tmp_path}")
    OmegaConf.save(cfg, tmp_path / "multirun.yaml")
    SweepFolder().on_multirun_start(cfg)
    cfg.hydra.overrides.task = ["seed=3"]
    with pytest.raises(SystemExit):
        SweepFolder().on_multirun_start(cfg)
    assert "holds another sweep (seed=1,2 trainer=cpu)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("monitor", "direction"), [("val/acc", "maximize"), ("val/ece", "minimize")]
)
def test_a_search_goes_in_the_direction_of_its_metric(monitor: str, direction: str) -> None:
    RunFolder()
    cfg = OmegaConf.create({"monitor": monitor, "direction": "${direction:${monitor}}"})
    assert cfg.direction == direction


def test_a_job_in_the_process_of_its_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As submitit has it: a done one is passed over, another goes on from its checkpoint."""
    cfg = hydra(tmp_path, mode=RunMode.MULTIRUN)
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg.hydra)
    gone: list[str | None] = []

    def run(cfg: Any) -> dict[str, float]:
        gone.append(cfg.resume)
        return {"val/acc": 0.5}

    assert sweeps.perform(run, cfg) == 0.5
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert sweeps.perform(run, cfg) == 0.5
    (tmp_path / "results.json").write_text('{"val/acc": NaN}')
    assert sweeps.perform(run, cfg) is None
    assert gone == [None, str(tmp_path)]


def test_a_run_that_trains_on_is_not_done_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = hydra(tmp_path, resume=str(tmp_path))
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg.hydra)
    seen: list[list[str]] = []

    def run(cfg: Any) -> dict[str, float]:
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        return {"val/acc": 0.5}

    for name in ("results.json", "error.txt"):
        (tmp_path / name).write_text("{}")
    cfg.train = False
    sweeps.perform(run, cfg)
    cfg.train = True
    with monkeypatch.context() as further_rank:
        further_rank.setenv("LOCAL_RANK", "1")
        sweeps.perform(run, cfg)
    sweeps.perform(run, cfg)
    assert seen == [["error.txt", "results.json"], ["error.txt", "results.json"], []]


@pytest.mark.slow
def test_a_run_of_its_own_says_why_it_failed(tmp_path: Path) -> None:
    place = places.Place(tmp_path)
    place.scenario(seed1="config")
    refused = place.run("seed=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert (refused.returncode, refused.stderr) == (1, "\nerror: seed=1: is refused\n")
    assert (tmp_path / "run" / "error.txt").read_text() == "seed=1: is refused"


def test_a_refused_setting_loses_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = hydra(tmp_path, resume=str(tmp_path))
    cfg.train = True
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg.hydra)
    (tmp_path / "results.json").write_text('{"val/acc": 0.5}')

    def refuse(cfg: Any) -> dict[str, float]:
        raise ConfigError("optim.lr=abc: allowed is a number")

    with pytest.raises(SystemExit):
        sweeps.perform(refuse, cfg)
    assert (tmp_path / "results.json").read_text() == '{"val/acc": 0.5}'
    assert "optim.lr=abc" in (tmp_path / "error.txt").read_text()
