"""Proof 1: two processes hold equal weights, to the bit, and those that one process would hold.

The small network in forked processes, which start at once and are the same DDPStrategy as `ddp`;
train.py itself under `ddp`, which takes half a minute.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from fits import (
    EPOCHS,
    STEPS,
    Save,
    difference,
    fit,
    module_of,
    plan_of,
)
from lightning.pytorch.strategies import DDPStrategy
from models import small_classifier
from probes import HashWeights
from runs import ROOT, SMALL, TWO_AND_TWO, command, draw_photos, run_small
from torch import nn

from thaw.finetune.plan import Plan
from thaw.report.predictions import Predictions
from thaw.sweeps import results_of
from thaw.training.averaging import EMA
from thaw.training.module import TransferModule

# train.py refuses forks, since the trained weights stay in the children.
TWO: dict[str, Any] = {"strategy": "ddp_fork", "devices": 2}


def kept(mode: str) -> Plan:
    """BatchNorm in eval: in training mode each rank normalises by its own half of the batch."""
    plan = plan_of(mode)
    phases = tuple(replace(phase, batchnorm="eval") for phase in plan.phases)
    return replace(plan, phases=phases)


def module(plan: Plan) -> TransferModule:
    """Without dropout: the ranks draw masks of their own."""
    model = small_classifier()
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return module_of(plan, model)


def hashes(folder: Path) -> list[str]:
    """One an epoch, after making sure that both ranks have the same."""
    first, second = ((folder / f"rank{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    return first.splitlines()


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / f"epoch{EPOCHS - 1}.ckpt", weights_only=True)


def close(one: dict[str, Any], two: dict[str, Any]) -> None:
    for name, value in one["state_dict"].items():
        assert torch.allclose(value, two["state_dict"][name], atol=1e-5, rtol=1e-3), name


@pytest.mark.parametrize(
    ("mode", "steps"),  # batches in an optimiser step; an epoch has 3
    [
        ("freeze_unfreeze", 2),
        *(pytest.param(mode, steps, marks=pytest.mark.slow)
          for mode in ("gradual", "partial", "phases", "on_plateau")
          for steps in (1, 2)),
    ],
)  # fmt: skip
def test_two_ranks_hold_the_weights_of_one_process(tmp_path: Path, mode: str, steps: int) -> None:
    """The unfrozen body too, at every epoch, also with gradient accumulation."""
    every = {"accumulate_grad_batches": steps}
    two, one = tmp_path / "two", tmp_path / "one"
    fit(module(kept(mode)), two, HashWeights(str(two)), **TWO, **every)
    assert len(hashes(two)) == EPOCHS
    fit(module(kept(mode)), one, **every)
    for epoch in range(EPOCHS):
        close(*(torch.load(folder / f"epoch{epoch}.ckpt", weights_only=True)
                for folder in (one, two)))  # fmt: skip
    body = "classifier.body.deep.0.weight"
    fresh = module(kept(mode)).state_dict()[body]
    assert not torch.equal(last(two)["state_dict"][body], fresh)


@pytest.mark.parametrize(
    "mode", ["freeze_unfreeze", pytest.param("gradual", marks=pytest.mark.slow)]
)
def test_two_ranks_resume_to_the_bit(tmp_path: Path, mode: str) -> None:
    """From a frozen epoch, from the last one before an unfreeze, from an unfrozen one."""
    whole = tmp_path / "whole"
    fit(module(kept(mode)), whole, HashWeights(str(whole)), **TWO)
    for epoch in (0, 2, 4):
        again = tmp_path / str(epoch)
        fit(module(kept(mode)), again, HashWeights(str(again)),
            resume=whole / f"epoch{epoch}.ckpt", **TWO)  # fmt: skip
        assert hashes(again) == hashes(whole)[epoch + 1 :]
        assert difference(last(whole), last(again)) == []


@pytest.mark.slow
def test_two_ranks_resume_to_the_bit_with_the_defaults(tmp_path: Path) -> None:
    """BatchNorm in training mode, dropout, and a stop in the middle of an unfrozen epoch."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    plan = plan_of("freeze_unfreeze")
    fit(module_of(plan), whole, HashWeights(str(whole)), Save(whole, [4 * STEPS + 1]), **TWO)
    start = whole / f"step{4 * STEPS + 1}.ckpt"
    fit(module_of(plan), again, HashWeights(str(again)), resume=start, **TWO)
    assert hashes(again) == hashes(whole)[4:]
    assert difference(last(whole), last(again)) == []
    for one, two in zip(*(last(f)["record"]["history"] for f in (whole, again)), strict=True):
        for name in ("train/loss", "train/acc", "images"):  # of the whole epoch, over both ranks
            assert one[name] == pytest.approx(two[name])


def test_ranks_agree_on_batchnorm_statistics_and_averages(tmp_path: Path) -> None:
    """In training mode too, where each sees other images."""
    plan = plan_of("freeze_unfreeze")
    assert plan.phases[1].batchnorm == "train"
    fit(module(plan), tmp_path, EMA(0.9), HashWeights(str(tmp_path)), **TWO)
    assert len(hashes(tmp_path)) == EPOCHS
    counted = last(tmp_path)["state_dict"]["classifier.body.norm.running_mean"]
    assert not torch.equal(counted, torch.zeros_like(counted))


def test_without_wrapping_again_the_ranks_would_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the proofs above can fail. PL 20340: each rank trains a body of its own, without error."""
    setup = DDPStrategy._setup_model
    calls: list[Any] = []  # the strategy's own, the frozen phase's, the unfrozen one's

    def once(self: DDPStrategy, model: nn.Module) -> Any:
        calls.append(model)
        return setup(self, model) if len(calls) < 3 else self.model

    monkeypatch.setattr(DDPStrategy, "_setup_model", once)
    fit(module(kept("freeze_unfreeze")), tmp_path, HashWeights(str(tmp_path)), **TWO)
    first, second = ((tmp_path / f"rank{r}.txt").read_text().splitlines() for r in (0, 1))
    assert [a == b for a, b in zip(first, second, strict=True)] == [True] * 3 + [False] * 3


def start(photos: Path, output: Path, *changes: str) -> Path:
    """Runs train.py; gives its last checkpoint."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    arguments = [
        *SMALL,
        *TWO_AND_TWO,
        f"data.root={photos}",
        f"hydra.run.dir={output}",
        f"paths.root_dir={output}",
        "+callbacks.hash._target_=probes.HashWeights",
        f"+callbacks.hash.folder={output}",
        *changes,
    ]
    subprocess.run(command(*arguments), check=True, cwd=ROOT, env=environment, timeout=300)
    return output / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_train_py_on_two_ranks(tmp_path: Path) -> None:
    """Of the single process the body runs each epoch; the two train on cached features."""
    photos = draw_photos(tmp_path / "photos")
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2",
           "finetune.cache_features=true", "report=fast")  # fmt: skip
    one = ("report=fast", "data.batch_size=4", "finetune.cache_features=false")
    pair = start(photos, tmp_path / "two", "finetune.frozen.augment=false", *two)
    assert len(hashes(tmp_path / "two")) == 4
    single = start(photos, tmp_path / "one", "finetune.frozen.augment=false", *one)
    first, second = (torch.load(path, weights_only=True) for path in (single, pair))
    close(first, second)
    for name in ("results.json", "history.json", "curves.png", "plan.txt", "report.html"):
        assert (tmp_path / "two" / name).stat().st_size > 100, name
    tables = [Predictions.read(tmp_path / name / "predictions.csv") for name in ("one", "two")]
    assert len(tables[0]) == 12
    assert tables[0].paths == tables[1].paths
    assert tables[0].predicted.tolist() == tables[1].predicted.tolist()
    assert np.allclose(tables[0].probability, tables[1].probability, atol=1e-3)


PAIR = ("trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=2", *TWO_AND_TWO)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_measures_uneven_photos_exactly(tmp_path: Path, nodes: int) -> None:
    """On one machine, and on two that have a cache folder each: they do without a cache."""
    photos = draw_photos(tmp_path / "photos", 9, 5)  # 15 photos to test, of which one rank gets 8
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    processes = []
    for node in range(nodes):
        words = (*SMALL, *PAIR, f"data.root={photos}", f"hydra.run.dir={tmp_path / 'run'}",
                 f"trainer.devices={2 // nodes}", f"+trainer.num_nodes={nodes}",
                 f"paths.cache_dir={tmp_path / str(node)}", "finetune.cache_features=true",
                 )  # fmt: skip
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}",
                    f"--node-rank={node}", f"--nproc-per-node={2 // nodes}",
                    "--master-addr=127.0.0.1", f"--master-port={port}"]  # fmt: skip
        processes.append(subprocess.Popen([*torchrun, *command(*words)[1:]], cwd=ROOT))
    assert [process.wait(300) for process in processes] == [0] * nodes
    pair = results_of(tmp_path / "run") or {}
    one = run_small(photos, tmp_path / "one", "train=false", f"ckpt_path={pair['best_checkpoint']}")
    measured = {name: value for name, value in one.items() if name.startswith("test/")}
    assert len(measured) == 7
    assert measured == pytest.approx({name: pair[name] for name in measured}, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_other(tmp_path: Path, rank: int) -> None:
    photos, run = draw_photos(tmp_path / "photos"), tmp_path / "run"
    words = (*SMALL, *PAIR, f"data.root={photos}", f"hydra.run.dir={run}", "trainer.devices=2",
             "trainer.max_epochs=9999")  # fmt: skip
    main = subprocess.Popen(command(*words), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (run / "checkpoints" / "last.ckpt").is_file():
        assert main.poll() is None
        time.sleep(0.1)
    (child,) = psutil.Process(main.pid).children()
    os.kill((main.pid, child.pid)[rank], signal.SIGKILL)
    _, errors = main.communicate(timeout=60)  # the child writes to the same pipe
    child.wait(timeout=60)
    # thaw's own word, or Lightning's where its watch over rank 1 is faster
    assert re.search(r"another process of this run has ended|Child process with PID", errors)
    assert main.returncode != 0
