"""Sweeps of real runs: killed and resumed to the bit, each once under ddp, features shared."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from fits import difference
from runs import ROOT, SMALL, TWO_AND_TWO, command, draw_photos
from sweeps import Place, states
from test_jobs import JOBLIB

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HASH = "+callbacks.hash._target_=probes.HashWeights"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def start(root: Path, photos: Path, *words: str) -> subprocess.Popen[str]:
    """A sweep of train.py; each job counts its epochs."""
    paths = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        command("-m", *SMALL, *TWO_AND_TWO, f"data.root={photos}", f"paths.root_dir={root}",
                HASH, "+callbacks.hash.folder=${paths.output_dir}", "test=false", *words),
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return output


def folder_of(root: Path) -> Path:
    (found,) = (root / "logs" / "train" / "multiruns").iterdir()
    return found


def epochs(job: Path, rank: int = 0) -> list[int]:
    """Those that were trained, in order."""
    text = (job / f"rank{rank}.txt").read_text()
    return [int(line.split()[0]) for line in text.splitlines()]


def test_a_killed_sweep_ends_as_one_that_was_not(photos: Path, tmp_path: Path) -> None:
    words = ("seed=1,2,3", "head.dropout=0.3", "trainer.max_epochs=8", "data.num_workers=1")
    finish(start(tmp_path / "whole", photos, *words))
    process = start(tmp_path / "killed", photos, *words)
    pattern = "logs/train/multiruns/*/1_seed-2/checkpoints/last.ckpt"
    while not list((tmp_path / "killed").glob(pattern)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    whole, killed = (folder_of(tmp_path / name) for name in ("whole", "killed"))
    assert states(killed) == {0: "finished", 1: "running"}
    before = (killed / "0_seed-1" / "results.json").stat().st_mtime_ns
    place = Place(tmp_path / "place")
    resumed = place.thaw("sweep", "resume", str(killed))
    assert resumed.returncode == 0, resumed.stderr
    assert set(states(killed).values()) == {"finished"}
    assert (killed / "0_seed-1" / "results.json").stat().st_mtime_ns == before
    assert epochs(killed / "0_seed-1") == epochs(killed / "2_seed-3") == list(range(8))
    trained = epochs(killed / "1_seed-2")
    assert sorted(set(trained)) == list(range(8))
    assert len(trained) < 16, "it started anew"
    for job in ("0_seed-1", "1_seed-2", "2_seed-3"):
        one, two = (torch.load(folder / job / "checkpoints/last.ckpt", weights_only=True)
                    for folder in (whole, killed))  # fmt: skip
        assert difference(one["state_dict"], two["state_dict"]) == []
        assert difference(one["optimizer_states"], two["optimizer_states"]) == []


DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")


def test_ddp_runs_each_job_once(photos: Path, tmp_path: Path) -> None:
    finish(start(tmp_path, photos, *DDP, "seed=1,2"))
    sweep = folder_of(tmp_path)
    jobs = [sweep / "0_seed-1", sweep / "1_seed-2"]
    assert sorted(path for path in sweep.iterdir() if path.is_dir()) == jobs
    for job in jobs:
        assert epochs(job, 0) == epochs(job, 1) == list(range(4))
        hashes = [(job / f"rank{rank}.txt").read_text() for rank in (0, 1)]
        assert hashes[0] == hashes[1]
        assert json.loads((job / "status.json").read_text())["job"] == jobs.index(job)
    assert states(sweep) == {0: "finished", 1: "finished"}
    assert not (tmp_path / "logs" / "train" / "runs").exists()


def test_a_rank_that_fails_does_not_end_the_sweep(photos: Path, tmp_path: Path) -> None:
    """Lightning kills the process that started it; that is the job's, not the sweep's."""
    fail = ("+callbacks.fail._target_=probes.FailOnRank", "+callbacks.fail.rank=1",
            "+callbacks.fail.of=1", "+callbacks.fail.seed=${seed}")  # fmt: skip
    process = start(tmp_path, photos, *DDP, *fail, "seed=1,2")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert states(folder_of(tmp_path)) == {0: "failed", 1: "finished"}
    assert epochs(folder_of(tmp_path) / "1_seed-2") == list(range(4))


@pytest.mark.parametrize("launcher", [pytest.param(["launcher=joblib"], marks=JOBLIB)])
def test_jobs_at_once_compute_features_once(
    photos: Path, tmp_path: Path, launcher: list[str]
) -> None:
    said = finish(
        start(tmp_path, photos, *launcher, "finetune.cache_features=true", "seed=1",
              "finetune.frozen.lr=1e-3,1e-2")
    )  # fmt: skip
    for split in ("train", "val"):
        assert said.count(f"features: {split}, ") == 1, said
        assert said.count(f"features from cache: {split}, ") == 1, said
    assert states(folder_of(tmp_path)) == {0: "finished", 1: "finished"}


def test_jobs_one_after_another_compute_features_once(photos: Path, tmp_path: Path) -> None:
    said = finish(
        start(tmp_path, photos, "finetune.cache_features=true", "seed=1",
              "finetune.frozen.lr=1e-3,1e-2")
    )  # fmt: skip
    assert said.count("features: train, ") == said.count("features from cache: train, ") == 1
