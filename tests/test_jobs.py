"""Sweeps from the command line: folders, failures, stops, kills, resumes, launchers, search."""

import importlib.util
import json
import math
import os
import re
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from runs import PLUGINS
from sweeps import Place, number, states
from thaw.jobs import job, own_process, status
from thaw.jobs.status import Status


def needs(choice: str) -> pytest.MarkDecorator:
    """Skips where the plugin of Hydra that a choice needs is not installed."""
    package, _, _ = PLUGINS[choice].partition(".")
    found = importlib.util.find_spec(package) and importlib.util.find_spec(PLUGINS[choice])
    return pytest.mark.skipif(not found, reason=f"{PLUGINS[choice]} is not installed")


JOBLIB = needs("launcher=joblib")
SUBMITIT = needs("launcher=slurm")
OPTUNA = needs("hparams_search=optuna")
LAUNCHERS = [
    pytest.param(["launcher=joblib", "hydra.launcher.n_jobs=2"], marks=JOBLIB, id="joblib"),
    pytest.param(["hydra/launcher=submitit_local"], marks=SUBMITIT, id="submitit"),
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "a place")


def wait_for(folder: Path, pattern: str) -> Path:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = next(folder.glob(pattern), None)
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(pattern)


@pytest.mark.parametrize("launcher", [pytest.param([], id="basic"), *LAUNCHERS])
def test_a_failed_job_does_not_stop_the_rest(place: Place, launcher: list[str]) -> None:
    place.scenario(seed2="config", seed3="memory")
    ended = place.run("-m", "seed=1,2,3,4", "trainer=cpu", "backbone=resnet18", *launcher)
    assert ended.returncode == 1
    folder = place.sweep()
    assert sorted(path.parent.name for path in folder.glob("*/status.json")) == [
        "0_seed-1", "1_seed-2", "2_seed-3", "3_seed-4",
    ]  # fmt: skip
    assert place.ran() == {job: ["None"] for job in range(4)}
    assert states(folder) == {0: "finished", 1: "failed", 2: "failed", 3: "finished"}
    listed = ended.stderr[ended.stderr.rindex("1_seed-2: ") :]
    assert "1_seed-2: failed, seed=2: is refused" in listed
    assert f"{folder / '2_seed-3'}: failed, MemoryError: no room" in listed
    assert "2 of 4 jobs done, 2 failed" in ended.stdout
    assert not (place.root / "logs" / "train" / "runs").exists()


def test_status_is_a_table(place: Place) -> None:
    place.scenario(seed2="config", seed3="interrupted")
    place.run("-m", "seed=1,2,3,4", "trainer.max_epochs=6")
    shown = place.thaw("sweep", "status", str(place.sweep()))
    assert shown.returncode == 0
    lines = [re.split(r"\s{2,}", line.strip()) for line in shown.stdout.splitlines()]
    assert lines[0] == ["job", "what differs", "state", "val/acc", "seconds", "error"]
    assert lines[2][:4] == ["0", "seed=1", "finished", "0.1000"]
    assert lines[3][:3] == ["1", "seed=2", "failed"]
    assert lines[3][-1] == "seed=2: is refused"
    assert lines[4][:3] == ["2", "seed=3", "stopped"]
    assert lines[5] == ["3", "seed=4", "waiting"]
    assert lines[-1] == ["1 of 4 jobs done, 1 failed, 1 stopped, 1 waiting"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_whole_sweep(place: Place, number: signal.Signals) -> None:
    place.scenario(seed2="sleep")
    process = place.start("-m", "seed=1,2,3")
    wait_for(place.root, "logs/train/multiruns/*/1_seed-2/ready")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert states(place.sweep()) == {0: "finished", 1: "stopped"}


def test_a_run_that_was_asked_to_stop_stops_the_sweep(place: Place) -> None:
    place.scenario(seed1="interrupted")
    ended = place.run("-m", "seed=1,2")
    assert ended.returncode == 130
    assert f"thaw sweep resume {place.sweep()}" in ended.stderr
    assert states(place.sweep()) == {0: "stopped"}


def test_a_killed_sweep_is_resumed(place: Place) -> None:
    """Finished jobs are not run again; a killed one goes on from its checkpoint; others start."""
    place.scenario(seed2="config", seed3="kill")
    ended = place.run("-m", "trainer=cpu", "seed=1,2,3,4", "tags=['a b']")
    assert ended.returncode == -signal.SIGKILL
    folder = place.sweep()
    settings = folder / "0_seed-1" / ".hydra" / "config.yaml"
    settings.write_text("as it was")
    place.scenario()
    ended = place.thaw("sweep", "resume", str(folder))
    assert ended.returncode == 0, ended.stderr
    assert "job 0 is done" in ended.stdout
    assert place.ran() == {
        0: ["None"], 1: ["None", "None"], 2: ["None", str(folder / "2_seed-3")], 3: ["None"],
    }  # fmt: skip
    assert set(states(folder).values()) == {"finished"}
    assert settings.read_text() == "as it was"
    again = place.thaw("sweep", "resume", str(folder))
    assert (again.returncode, place.ran()[3]) == (0, ["None"])
    assert "4 of 4 jobs done: nothing to run" in again.stdout


def test_a_job_killed_before_its_first_checkpoint_starts_anew(place: Place) -> None:
    place.scenario(seed1="bare_kill")
    place.run("-m", "seed=1,2")
    best = place.sweep() / "0_seed-1" / "checkpoints" / "best-epoch_000.ckpt"
    best.parent.mkdir()
    best.touch()
    place.scenario()
    assert place.thaw("sweep", "resume", str(place.sweep())).returncode == 0
    assert place.ran() == {0: ["None", "None"], 1: ["None"]}
    assert not best.exists()


def test_a_job_that_was_resumed_by_itself_stays_in_its_sweep(place: Place) -> None:
    place.scenario(seed1="kill")
    place.run("-m", "seed=1,2")
    place.scenario()
    job = place.sweep() / "0_seed-1"
    assert place.run(f"resume={job}").returncode == 0
    shown = place.thaw("sweep", "resume", str(place.sweep()))
    assert shown.returncode == 0, shown.stderr
    assert place.ran() == {0: ["None", str(job)], 1: ["None"]}


def test_a_sweep_that_is_at_work_is_not_started_twice(place: Place) -> None:
    place.scenario(seed1="sleep")
    process = place.start("-m", "seed=1,2")
    wait_for(place.root, "logs/train/multiruns/*/0_seed-1/ready")
    refused = place.thaw("sweep", "resume", str(place.sweep()))
    assert refused.returncode == 1
    assert f"job 0 is still running (process {process.pid} on " in refused.stderr
    process.kill()
    process.communicate()
    shown = place.thaw("sweep", "status", str(place.sweep()))
    assert "killed" in shown.stdout


def test_a_sweep_is_not_run_by_two_at_once(place: Place) -> None:
    """Between two jobs none of them is running, so their status does not tell."""
    place.scenario(seed1="bare_kill")
    place.run("-m", "seed=1,2")
    with status.hold(place.sweep() / "sweep.lock", ""):
        refused = place.thaw("sweep", "resume", str(place.sweep()))
    assert refused.returncode == 1
    assert "another process is at work on this sweep; wait until it ends" in refused.stderr
    assert place.ran() == {0: ["None"]}


def test_a_sweep_of_several_ranks_needs_a_folder(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    refused = place.run("-m", "seed=1")
    assert refused.returncode == 1
    assert "give hydra.sweep.dir=FOLDER; or start it once, with launcher=slurm" in refused.stderr
    folder = place.root / "ours"
    folder.mkdir()
    with status.hold(folder / "sweep.lock", ""):  # the first rank's
        ended = place.run("-m", "seed=1", f"hydra.sweep.dir='{folder}'")
    assert ended.returncode == 0, ended.stderr
    assert len(list(folder.glob("*/ran.txt"))) == 1


def test_starts_in_the_same_second_get_folders_of_their_own(place: Place) -> None:
    """The folders of this minute's seconds are there already."""
    names = [f"{datetime.now() + timedelta(seconds=n):%Y-%m-%d_%H-%M-%S}" for n in range(60)]
    for kind in ("runs", "multiruns"):
        for name in names:
            (place.root / "logs" / "train" / kind / name).mkdir(parents=True)
    ended = place.run("seed=1")
    assert ended.returncode == 0, ended.stderr
    ended = place.run("-m", "seed=1,2")
    assert ended.returncode == 0, ended.stderr
    new = [path for path in place.root.glob("logs/train/*/*") if path.name not in names]
    assert sorted((path.parent.name, path.name[-2:]) for path in new) == [
        ("multiruns", "_2"), ("runs", "_2"),
    ]  # fmt: skip
    run = next(path for path in new if path.parent.name == "runs")
    assert (run / "ran.txt").is_file()
    assert json.loads((run / "status.json").read_text())["state"] == "finished"


def test_a_run_of_its_own_ends_as_ever(place: Place) -> None:
    place.scenario(seed1="config", seed2="interrupted", seed3="memory")
    refused, stopped, failed = (place.run(f"seed={seed}") for seed in (1, 2, 3))
    assert (refused.returncode, refused.stderr) == (1, "\nerror: seed=1: is refused\n")
    assert stopped.returncode == 130
    assert "stopped; go on with: python train.py resume=" in stopped.stderr
    assert failed.returncode == 1
    assert "MemoryError: no room" in failed.stderr


def test_the_command_of_a_job_in_its_own_process() -> None:
    """It has the weights that the sweep was given; a job that goes on has its own."""
    words = {"hydra": ["hydra.mode=MULTIRUN", "hydra.verbose=true"],
             "task": ["ckpt_path=a.ckpt", "seed=1", "resume=null"]}  # fmt: skip
    hydra, folder = OmegaConf.create({"overrides": words}), Path("a job")
    started = own_process.arguments(hydra, folder, 3, resumes=False)
    assert started == ["hydra.verbose=true", "ckpt_path=a.ckpt", "seed=1",
                       "hydra.run.dir='a job'", "hydra.mode=RUN", "hydra.job.num=3"]  # fmt: skip
    resumed = own_process.arguments(hydra, folder, 3, resumes=True)
    assert resumed == ["hydra.verbose=true", "resume=a job", "hydra.job.num=3"]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DictConfig:
    """A job whose process ends with code 1 at once."""
    node = {"runtime": {"cwd": "."}, "overrides": {"hydra": [], "task": []}}
    monkeypatch.setattr(own_process.HydraConfig, "get", lambda: OmegaConf.create(node))
    monkeypatch.setattr(own_process.subprocess, "Popen", lambda *_, **__: None)
    monkeypatch.setattr(own_process, "_wait", lambda process: 1)
    return OmegaConf.create({"resume": None, "paths": {"output_dir": str(tmp_path)}})


def test_a_job_whose_process_told_nothing_has_failed(own: DictConfig, tmp_path: Path) -> None:
    with pytest.raises(own_process.JobError, match="ended with code 1"):
        own_process.perform("train.py", own, Status(job=0))
    after = status.read(tmp_path)
    assert after is not None
    assert after.state == "failed"


def test_a_job_that_is_refused_leaves_the_living_one_its_status(
    own: DictConfig, tmp_path: Path
) -> None:
    with status.hold(tmp_path / "status.lock", ""):
        status.write(tmp_path, Status(job=0))
        with pytest.raises(own_process.JobError, match="ended with code 1"):
            own_process.perform("train.py", own, Status(job=0))
        after = status.read(tmp_path)
    assert after is not None
    assert after.state == "running"


def test_a_sweep_from_given_weights_is_resumed(place: Place) -> None:
    """Also after one of its jobs was resumed by itself, which leaves ckpt_path out."""
    place.scenario(seed1="kill")
    place.run("-m", "seed=1,2", "ckpt_path=a.ckpt")
    place.scenario()
    assert place.run(f"resume={place.sweep() / '0_seed-1'}").returncode == 0
    ended = place.thaw("sweep", "resume", str(place.sweep()))
    assert ended.returncode == 0, ended.stderr
    assert set(states(place.sweep()).values()) == {"finished"}


@pytest.mark.parametrize("processes", [False, True])
def test_a_value_that_is_not_finite_is_none_for_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: bool
) -> None:
    """The first time, of its own process too, and when the job is done already."""
    node = {"mode": RunMode.MULTIRUN, "job": {"num": 0}, "overrides": {"task": []}}
    monkeypatch.setattr(job.HydraConfig, "get", lambda: OmegaConf.create(node))
    monkeypatch.setattr(own_process, "is_needed", lambda trainer: processes)

    def perform(script: str, cfg: DictConfig, about: Status) -> float | None:
        return status.keep(tmp_path, about, lambda: {"val/acc": math.nan}, "val/acc")

    monkeypatch.setattr(own_process, "perform", perform)
    cfg = OmegaConf.create({"resume": None, "monitor": "val/acc", "trainer": {},
                            "paths": {"output_dir": str(tmp_path)}})  # fmt: skip
    for _ in range(2):
        assert job.perform(lambda cfg: {"val/acc": math.nan}, cfg) is None
    after = status.read(tmp_path)
    assert after is not None
    assert after.state == "finished"


def test_a_further_rank_decides_as_the_first_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM starts every rank of a job: one that went its own way would wait for the others."""
    node = {"mode": RunMode.MULTIRUN, "job": {"num": 0}, "overrides": {"task": []}}
    monkeypatch.setattr(job.HydraConfig, "get", lambda: OmegaConf.create(node))
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    cfg = OmegaConf.create({"resume": None, "monitor": "val/acc", "trainer": {},
                            "paths": {"output_dir": str(tmp_path)}})  # fmt: skip
    resumed: list[str | None] = []

    def run(cfg: DictConfig) -> dict[str, float]:
        resumed.append(cfg.resume)
        return {"val/acc": 0.5}

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "part").touch()
    assert job.perform(run, cfg) == 0.5
    # the status is the first rank's to write, and what a killed epoch left is its to delete
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "part"]
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert job.perform(run, cfg) == 0.5
    status.write(tmp_path, Status(state="finished", job=0, value=0.7))
    assert job.perform(run, cfg) == 0.7
    assert resumed == [None, str(tmp_path)]


def test_a_folder_of_another_sweep_is_refused(place: Place) -> None:
    place.run("-m", "seed=1")
    folder = place.sweep()
    refused = place.run("-m", "seed=2", f"hydra.sweep.dir='{folder}'")
    assert refused.returncode == 1
    assert "holds another sweep (seed=1)" in refused.stderr
    refused = place.run("-m", "seed=2,3", "hydra.sweep.subdir=same")
    assert refused.returncode == 1
    assert "same: holds a run with other settings (seed=2) than job 1 (seed=3)" in refused.stderr


def test_what_cannot_be_resumed(place: Place) -> None:
    nothing = place.thaw("sweep", "status", str(place.root))
    assert nothing.returncode == 1
    assert "multirun.yaml is missing" in nothing.stderr
    place.scenario(seed1="bare_kill", seed2="bare_kill")
    place.run("-m", "seed=shuffle(1,2)")
    refused = place.thaw("sweep", "resume", str(place.sweep()))
    assert refused.returncode == 1
    assert "shuffle(...)" in refused.stderr


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_know_every_backbone_and_stop_together(place: Place, launcher: list[str]) -> None:
    ended = place.run("-m", "backbone=glob(resnet1?)", "seed=1,2", *launcher)
    assert ended.returncode == 0, ended.stderr
    assert place.ran() == {0: ["None"], 1: ["None"]}
    settings = OmegaConf.load(place.sweep() / "0_backbone-resnet18_seed-1/.hydra/config.yaml")
    assert settings.backbone.name == "resnet18"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ctrl_c_stops_every_process_of_a_launcher(place: Place, launcher: list[str]) -> None:
    place.scenario(seed1="sleep", seed2="sleep")
    process = place.start("-m", "seed=1,2,3", *launcher)
    wait_for(place.root, "logs/train/multiruns/*/0_seed-1/ready")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    deadline = time.monotonic() + 30
    while "running" in place.thaw("sweep", "status", str(place.sweep())).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    place.scenario()
    resumed = place.thaw("sweep", "resume", str(place.sweep()))
    assert resumed.returncode == 0, resumed.stderr
    assert set(states(place.sweep()).values()) == {"finished"}
    assert sorted(states(place.sweep())) == [0, 1, 2]


SEARCH = ("hparams_search=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=1")


@pytest.mark.slow
@OPTUNA
def test_a_search_bears_failures_and_maximises(place: Place) -> None:
    place.scenario(seed2="config", seed3="nan")
    ended = place.run(*SEARCH, "seed=choice(1,2,3,4)")
    assert ended.returncode == 1
    found = states(place.sweep())
    assert sorted(found) == list(range(6))
    assert {"finished", "failed"} <= set(found.values())
    results = OmegaConf.load(place.sweep() / "optimization_results.yaml")
    seeds = [int(re.findall(r"seed-(\d)", path.name)[0]) for path in place.sweep().glob("?_*")]
    assert results.best_params.seed == max(seed for seed in seeds if seed in (1, 4))
    refused = place.run(*SEARCH, "hydra.sweeper.direction=minimize")
    assert refused.returncode == 1
    assert "direction=minimize: monitor=val/acc is to be maximized; set auto" in refused.stderr
    assert place.run(*SEARCH, "hydra.sweeper.n_trials=1", "monitor=val/loss").returncode == 0


@pytest.mark.slow
@OPTUNA
def test_a_killed_search_draws_the_same_jobs_again(place: Place) -> None:
    whole, killed = Place(place.root / "whole"), Place(place.root / "killed")
    words = (*SEARCH, "seed=choice(1,2,3,4)", "hydra.sweeper.n_trials=8",
             "hydra.sweeper.sampler.n_startup_trials=2")  # fmt: skip
    whole.scenario(seed2="config")
    whole.run(*words)
    killed.scenario(seed2="config", seed4="kill")
    assert killed.run(*words).returncode == -signal.SIGKILL
    killed.scenario(seed2="config")
    before = sorted(killed.ran())
    killed.thaw("sweep", "resume", str(killed.sweep()))
    names = [sorted(path.name for path in place.sweep().glob("?_*")) for place in (whole, killed)]
    assert names[0] == names[1]
    assert len(names[0]) == 8 > len(before)
    twice = [job for job, times in killed.ran().items() if len(times) > 1]
    assert twice == before[-1:]  # the killed one only, not those that failed before
    shown = killed.thaw("sweep", "status", str(killed.sweep())).stdout
    assert shown.count("finished") + shown.count("failed  ") == 8
    assert number(killed.sweep() / names[0][0]) == 0
