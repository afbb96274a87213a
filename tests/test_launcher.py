"""Sweeps from the command line: folders, failures, stops, kills, resumes, launchers, search."""

import importlib.util
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sweeps
from omegaconf import OmegaConf
from runs import PLUGINS
from sweeps import Place

from hydra_plugins.thaw_launcher import ThawLauncher, visible_gpus
from thaw import cli
from thaw.errors import ConfigError
from thaw.sweeps import results_of


def needs(choice: str) -> pytest.MarkDecorator:
    """Skips where the plugin of Hydra that a choice needs is not installed."""
    package, _, _ = PLUGINS[choice].partition(".")
    found = importlib.util.find_spec(package) and importlib.util.find_spec(PLUGINS[choice])
    return pytest.mark.skipif(not found, reason=f"{PLUGINS[choice]} is not installed")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "a place")


def wait_for(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 100
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_sweep_ends_failed_jobs_alone_and_is_resumed(place: Place) -> None:
    """Done jobs are not run again, a killed one goes on from its checkpoint, others start anew."""
    place.scenario(seed2="config", seed3="kill")
    ended = place.run("-m", "seed=1,2,3,4", "trainer=cpu", "backbone=resnet18")
    folder = place.sweep()
    assert ended.returncode == 1
    assert place.resumed() == {job: [None] for job in range(4)}
    killed = "its process was killed"
    assert place.states() == {0: "done", 1: "seed=2: is refused", 2: killed, 3: "done"}
    assert f"failed: {place.job(1)}: seed=2: is refused" in ended.stderr
    assert f"failed: {place.job(2)}: {killed}" in ended.stderr
    assert "2 of 4 jobs done\n" in ended.stdout
    assert f"run the others again with: thaw sweep resume '{folder}'" in ended.stdout
    assert not (place.root / "logs" / "train" / "runs").exists()

    place.scenario()
    ended = place.thaw("sweep", "resume", str(folder))
    assert ended.returncode == 0, ended.stderr
    assert place.resumed() == {0: [None], 1: [None, None], 2: [None, str(place.job(2))],
                               3: [None]}  # fmt: skip
    assert set(place.states().values()) == {"done"}
    assert "4 of 4 jobs done\n" in ended.stdout


SWEEP = """hydra:
  overrides: {hydra: [], task: []}
  job: {config_name: train}
  runtime: {cwd: /, config_sources: []}
"""


@pytest.mark.parametrize(
    "text",
    [
        None, "", "5", "[1]", "hydra: {over", "[" * 400, "\0", "hydra: null",
        *(SWEEP.replace(*change) for change in (
            ("hydra: []", "hydra: [5]"), ("task: []", "task: null"),
            ("cwd: /", "cwd: [1]"), ("task: []", r'task: ["seed=\0"]'), ("job: {", "work: {"),
            ("sources: []", "sources: 3"))),
    ],
)  # fmt: skip
def test_damaged_sweeps_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "multirun.yaml").write_text(text)
    with pytest.raises(SystemExit):
        cli.main(["sweep", "resume", str(tmp_path)])
    said = capsys.readouterr().err
    damaged = f"{tmp_path}/multirun.yaml: is not as Hydra writes it ("
    missing = f"{tmp_path}: holds no sweep to go on with; give the folder of one"
    assert said.startswith(f"\nerror: {missing if text is None else damaged}")
    assert said.count("\n") == 2


@pytest.mark.parametrize("text", ["", "5", '{"val/acc": 0.'])
def test_damaged_results_are_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/results\.json: is damaged"):
        results_of(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_jobs_with_a_checkpoint(place: Place, number: signal.Signals) -> None:
    place.scenario(seed1="sleep", seed2="sleep")
    process = place.start("-m", "seed=1,2,3", "hydra.launcher.n_jobs=2")
    wait_for(lambda: len(list(place.root.glob("logs/train/multiruns/*/*/ready"))) == 2)
    refused = place.thaw("sweep", "resume", str(place.sweep()))
    assert refused.returncode == 1
    assert "This sweep is still running" in refused.stderr
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"\nstopped; go on with: thaw sweep resume '{place.sweep()}'\n" in errors
    assert "Traceback" not in errors
    assert list(place.states()) == [0, 1]
    assert len(list(place.sweep().glob("*/checkpoints/last.ckpt"))) == 2


@pytest.mark.slow
def test_jobs_at_once_share_out_cores_and_gpus(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,GPU-a")
    monkeypatch.setattr(sweeps, "THREADS", {})
    ended = place.run("-m", "seed=1,2", "hydra.launcher.n_jobs=2")
    assert ended.returncode == 0, ended.stderr
    (first,), (second,) = place.ran().values()
    assert (first[1], second[1]) == ("3,GPU-a", "5")
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        cores = sorted(os.sched_getaffinity(0))
        assert (first[3], second[3]) == (cores[::2], cores[1::2])
    assert (place.job(0) / "output.txt").is_file()


def test_the_share_of_a_slot() -> None:
    for slots, shares in ((1, ["abc"]), (2, ["ac", "b"]), (5, ["a", "b", "c", "a", "b"])):
        launcher = ThawLauncher(slots)
        assert ["".join(launcher._share("abc", slot)) for slot in range(slots)] == shares


def test_no_gpus_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.mark.parametrize("number", [0, -1, 1.5, "two"])
def test_jobs_at_once_are_a_whole_number(number: Any) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.n_jobs={number}: allowed is a whole"):
        ThawLauncher(number)


def test_the_command_of_a_job(tmp_path: Path) -> None:
    """A run of its own with the sweep's other settings; one that goes on has its own."""
    launcher = ThawLauncher()
    given = ["hydra.mode=MULTIRUN", "hydra.verbose=true", "hydra.sweeper.n_trials=2",
             "hydra/launcher=thaw", "hydra.launcher.n_jobs=2", "hydra.sweep.dir='x'"]  # fmt: skip
    sources = [{"path": "/c", "provider": "main"}, {"path": "/my conf", "provider": "command-line"}]
    launcher.config = OmegaConf.create({"hydra": {
        "overrides": {"hydra": given}, "job": {"config_name": "mine"},
        "runtime": {"config_sources": sources},
    }})  # fmt: skip
    flags = ["--config-dir=/my conf", "--config-name=mine", "hydra.verbose=true"]
    job, words = tmp_path / "3_it's", ["ckpt_path=a.ckpt", "seed=1"]
    place = f"'{tmp_path}/3_it\\'s'"
    assert launcher.arguments(job, words) == [
        *flags, *words, f"hydra.run.dir={place}", "hydra.mode=RUN",
    ]  # fmt: skip
    (job / "checkpoints").mkdir(parents=True)
    (job / "checkpoints" / "last.ckpt").touch()
    assert launcher.arguments(job, words) == [*flags, f"resume={place}"]


@pytest.mark.slow
@needs("launcher=slurm")
def test_launchers_of_hydra_work_as_well(place: Place) -> None:
    """They run jobs in processes of their own, through main() itself."""
    words = ("-m", "backbone=resnet18,timm/resnet18", "seed=1", "hydra/launcher=submitit_local")
    place.scenario(seed1="memory")
    failed = place.run(*words)
    assert failed.returncode == 1
    assert set(place.states().values()) == {"MemoryError: no room"}
    place.scenario()
    ended = place.thaw("sweep", "resume", str(place.sweep()))
    assert ended.returncode == 0, ended.stderr
    assert place.states() == {0: "done", 1: "done"}
    assert "2 of 2 jobs done\n" in ended.stdout
    assert place.thaw("sweep", "resume", str(place.sweep())).returncode == 0
    assert place.resumed() == {0: [None, None], 1: [None, None]}


SEARCH = ("hparams_search=optuna", "hydra.sweeper.n_trials=6", "seed=choice(1,2,3,4)")


@pytest.mark.slow
@needs("hparams_search=optuna")
def test_a_search_bears_failures_and_maximises(place: Place) -> None:
    place.scenario(seed2="config", seed3="nan")
    ended = place.run(*SEARCH)
    assert ended.returncode == 1, ended.stderr
    states = place.states()
    assert sorted(states) == list(range(6))
    assert {"done", "seed=2: is refused"} == set(states.values())
    best = OmegaConf.load(place.sweep() / "optimization_results.yaml").best_params
    names = [path.name for path in place.sweep().glob("?_*")]
    seeds = [OmegaConf.load(file).seed for file in place.sweep().glob("*/.hydra/config.yaml")]
    assert best.seed == max(seed for seed in seeds if seed in (1, 4))
    assert "6 jobs done" in place.thaw("sweep", "resume", str(place.sweep())).stdout
    assert {path.name for path in place.sweep().glob("?_*")} == set(names)
    assert {job: len(goes) for job, goes in place.ran().items()} == {
        job: 1 if state == "done" else 2 for job, state in states.items()
    }
