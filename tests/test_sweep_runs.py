"""Sweeps of real runs: killed and resumed to the bit, each once under ddp, features shared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from fits import difference
from runs import ROOT, SMALL, TWO_AND_TWO, command, draw_photos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HASH = "+callbacks.hash._target_=probes.HashWeights"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def process_of(words: list[str]) -> subprocess.Popen[str]:
    paths = [str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip


def start(root: Path, photos: Path, *words: str) -> subprocess.Popen[str]:
    """A sweep of train.py; each job counts its epochs."""
    small = [word for word in SMALL if not (word == "trainer=cpu" and "trainer=ddp" in words)]
    return process_of(
        command("-m", *small, *TWO_AND_TWO, f"data.root={photos}", f"paths.root_dir={root}",
                HASH, "+callbacks.hash.folder=${paths.output_dir}", "test=false", *words),
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


def done(sweep: Path) -> list[str]:
    """Names of the jobs that have results."""
    return sorted(path.parent.name.partition("_")[0] for path in sweep.glob("*/results.json"))


def job_of(sweep: Path, number: int) -> Path:
    (found,) = sweep.glob(f"{number}_*/")
    return found


def test_a_killed_sweep_ends_as_one_that_was_not(photos: Path, tmp_path: Path) -> None:
    words = ("seed=1,2", "head.dropout=0.3", "trainer.max_epochs=8")
    whole = tmp_path / "whole"  # of one seed, beside the sweep
    alone = process_of(
        command(*SMALL, *TWO_AND_TWO, f"data.root={photos}", f"hydra.run.dir={whole}",
                "test=false", *words[1:], "seed=2"),
    )  # fmt: skip
    process = start(tmp_path / "killed", photos, *words)
    pattern = "logs/train/multiruns/*/1_*/checkpoints/last.ckpt"
    while not list((tmp_path / "killed").glob(pattern)):
        assert process.poll() is None
        time.sleep(0.01)
    for one in [process, *psutil.Process(process.pid).children(recursive=True)]:
        one.send_signal(signal.SIGKILL)  # as a machine that goes down
    process.communicate()
    finish(alone)
    killed = folder_of(tmp_path / "killed")
    assert done(killed) == ["0"]
    before = (job_of(killed, 0) / "results.json").stat().st_mtime_ns
    words = ("-c", "import thaw.cli; thaw.cli.main()", "sweep", "resume", "--trust", str(killed))
    finish(process_of([sys.executable, *words]))
    assert done(killed) == ["0", "1"]
    assert (job_of(killed, 0) / "results.json").stat().st_mtime_ns == before
    assert epochs(job_of(killed, 0)) == list(range(8))
    trained = epochs(job_of(killed, 1))
    assert sorted(set(trained)) == list(range(8))
    assert len(trained) < 16, "it started anew"
    one, two = (torch.load(job / "checkpoints/last.ckpt", weights_only=True)
                for job in (whole, job_of(killed, 1)))  # fmt: skip
    assert difference(one["state_dict"], two["state_dict"]) == []
    assert difference(one["optimizer_states"], two["optimizer_states"]) == []


DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")


def test_ddp_runs_each_job_once_and_a_rank_fails_alone(photos: Path, tmp_path: Path) -> None:
    """Lightning kills the process that started the ranks; that is the job's, not the sweep's."""
    fail = ("+callbacks.fail._target_=probes.FailOnRank", "+callbacks.fail.rank=1",
            "+callbacks.fail.of=1", "+callbacks.fail.seed=${seed}")  # fmt: skip
    process = start(tmp_path, photos, *DDP, *fail, "seed=1,2")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    sweep = folder_of(tmp_path)
    job = job_of(sweep, 1)
    assert sorted(path for path in sweep.iterdir() if path.is_dir()) == [job_of(sweep, 0), job]
    assert done(sweep) == ["1"]
    assert epochs(job, 0) == epochs(job, 1) == list(range(4))
    assert (job / "rank0.txt").read_text() == (job / "rank1.txt").read_text()
    assert not (tmp_path / "logs" / "train" / "runs").exists()


def test_jobs_at_once_compute_features_once(photos: Path, tmp_path: Path) -> None:
    finish(
        start(tmp_path, photos, "hydra.launcher.n_jobs=2", "finetune.cache_features=true", "seed=1",
              "finetune.frozen.lr=1e-3,1e-2")
    )  # fmt: skip
    said = "".join(file.read_text() for file in folder_of(tmp_path).glob("*/output.txt"))
    for split in ("train", "val"):
        lines = [line for line in said.splitlines() if line.startswith(f"features  {split}: ")]
        assert sorted("from cache" in line for line in lines) == [False, True], said
    assert len(done(folder_of(tmp_path))) == 2


def test_two_ranks_go_on_with_a_setting_of_their_own(photos: Path, tmp_path: Path) -> None:
    """The further rank reads the words that `resume=` became once more; the folder was moved."""
    place = tmp_path / "moved"
    small = [word for word in SMALL if word != "trainer=cpu"]
    words = (*small, *DDP, f"data.root={photos}", "test=false", "trainer.max_epochs=2",
             "finetune=feature_extraction", "+trainer.val_check_interval=1.0", HASH,
             "+callbacks.hash.folder=${paths.output_dir}",
             f"hydra.run.dir={tmp_path / 'run'}")  # fmt: skip
    finish(process_of(command(*words)))
    (tmp_path / "run").rename(place)
    finish(process_of(command(f"resume={place}", "trust=true", "trainer.max_epochs=3")))
    assert epochs(place, 0) == epochs(place, 1) == [0, 1, 2]
