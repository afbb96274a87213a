"""Two processes: after the unfreeze both hold the weights that one process would."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from runs import ROOT, SMALL, TWO_AND_TWO, command, draw_photos

pytestmark = pytest.mark.slow


def start(photos: Path, output: Path, *settings: str) -> Path:
    """Runs train.py; gives the weights at the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    # BatchNorm in eval: in training mode each rank would count the statistics of its own images
    arguments = [
        *SMALL,
        *TWO_AND_TWO,
        "finetune.batchnorm=eval",
        f"data.root={photos}",
        f"hydra.run.dir={output}",
        f"paths.root_dir={output}",
        "+callbacks.hash._target_=probes.HashWeights",
        f"+callbacks.hash.folder={output}",
        *settings,
    ]
    subprocess.run(command(*arguments), check=True, cwd=ROOT, env=environment, timeout=300)
    return output / "checkpoints" / "last.ckpt"


def test_two_ranks_hold_the_weights_of_one_process(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos")
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")
    pair = start(photos, tmp_path / "two", *two)
    ranks = [(tmp_path / "two" / f"rank{rank}.txt").read_text() for rank in (0, 1)]
    assert len(ranks[0].splitlines()) == 4
    assert ranks[0] == ranks[1]  # to the bit, at every epoch
    single = start(photos, tmp_path / "one", "data.batch_size=4")
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in (pair, single))
    for name, value in second.items():
        assert torch.allclose(first[name], value, atol=1e-5, rtol=1e-3), name
