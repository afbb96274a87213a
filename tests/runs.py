"""Runs of train.py small enough for tests: drawn squares, the tiny net at 16 pixels, no weights."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"

SMALL = (
    "data=folder",
    "backbone=tiny",
    "backbone.weights=null",
    "backbone.image_size=16",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks=none",
    "logger=none",
    "report=none",
    "trainer.max_epochs=4",
)
PLUGINS = {  # of Hydra, in thaw's extras, and the choices that need them
    "hparams_search=optuna": "hydra_plugins.hydra_optuna_sweeper",
    "launcher=slurm": "hydra_plugins.hydra_submitit_launcher",
}
TWO_AND_TWO = ("finetune.unfreeze_epoch=2", "finetune.unfrozen.warmup_epochs=0.5")


def draw_photos(folder: Path, train: int = 8, other: int = 4) -> Path:
    """Three classes of coloured noise in train/, val/ and test/; a net can tell them apart."""
    generator = np.random.default_rng(0)
    for split, number in (("train", train), ("val", other), ("test", other)):
        for label, name in enumerate(("red", "green", "blue")):
            target = folder / split / name
            target.mkdir(parents=True)
            for index in range(number):
                pixels = generator.integers(0, 160, (24, 24, 3), dtype=np.uint8)
                pixels[..., label] += 60
                Image.fromarray(pixels).save(target / f"{index}.png")
    return folder


def configuration(output: Path, *overrides: str) -> DictConfig:
    """The composed configuration of a run into `output`, as train.py would get it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(overrides), return_hydra_config=True)
    cfg.hydra.runtime.output_dir = str(output)
    cfg.hydra.job.num = 0
    HydraConfig.instance().set_config(cfg)
    del cfg.hydra
    return cfg


def command(*arguments: str) -> list[str]:
    """The command line of a run in a process of its own; of two choices of a group the last."""
    last = {word.partition("=")[0]: place for place, word in enumerate(arguments)}
    groups = ("trainer", "callbacks", "logger", "report", "data", "backbone")
    words = [
        word for place, word in enumerate(arguments)
        if word.partition("=")[0] not in groups or last[word.partition("=")[0]] == place
    ]  # fmt: skip
    return [sys.executable, str(ROOT / "train.py"), *words]


def run_small(photos: Path, output: Path, *overrides: str) -> dict[str, Any]:
    """Runs train.py in this process: two frozen and two unfrozen epochs of six steps.

    Args:
        photos: of `draw_photos`.
        output: the run's folder.
        overrides: further settings; those of finetune replace the two and two epochs.
    """
    import train

    words = [*SMALL, f"data.root={photos}", *overrides]
    if not any(word.startswith(("finetune=", "finetune.unfreeze")) for word in overrides):
        words += TWO_AND_TWO
    return train.run(configuration(output, *words))
