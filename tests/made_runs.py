"""Run folders written by hand, as a run of train.py leaves them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

CHOICES = {"data": "folder", "backbone": "tiny", "finetune": "freeze_unfreeze", "hydra": "default"}


def history_of(values: Sequence[float], frozen: int) -> list[dict[str, Any]]:
    """Rows with these validation accuracies; the first `frozen` epochs are of the frozen phase."""
    return [
        {"epoch": epoch, "phase": "first" if epoch <= frozen else "second",
         "val/acc": value, "val/loss": 2 - value,
         "train/acc": value - 0.1, "train/loss": 1.5 - value}
        for epoch, value in enumerate(values, 1)
    ]  # fmt: skip


def write_run(
    folder: Path,
    words: Sequence[str] = (),
    *,
    seed: int = 0,
    scores: Mapping[str, float] | None = None,
    values: Sequence[float] = (),
    frozen: int = 1,
    **facts: Any,
) -> Path:
    """A run folder with the words of a command line over a small configuration.

    Args:
        folder: to make.
        words: dotted settings, and choices (names without a dot that are in CHOICES).
        seed: of the run.
        scores: metrics; None: the run left no results.json.
        values: validation accuracies by epoch.
        frozen: epochs in which the body stands still; then it trains.
        facts: further entries of results.json.
    """
    cfg = OmegaConf.create(
        {
            "seed": seed, "tags": [], "task_name": "train", "monitor": "val/acc",
            "backbone": {"_target_": "tiny_backbone", "weights": "DEFAULT"},
            "data": {"_target_": "Folder", "root": "photos", "batch_size": 4, "num_workers": 2,
                     "seed": "${seed}", "folds": None, "fold": 0, "train_per_class": None},
            "finetune": {"unfreeze_epoch": 2, "unfrozen": {"lr": 0.001}},
            "callbacks": {"checkpoint": {"dirpath": "${paths.output_dir}/checkpoints",
                                         "monitor": "${monitor}"}},
            "paths": {"output_dir": "${hydra:runtime.output_dir}"},
        }
    )  # fmt: skip
    chosen = dict(word.split("=") for word in words if word.partition("=")[0] in CHOICES)
    settings = [word.lstrip("+") for word in words if word.partition("=")[0] not in CHOICES]
    cfg.merge_with_dotlist(settings)
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    OmegaConf.save(cfg, hydra / "config.yaml")
    OmegaConf.save([*words, f"seed={seed}"], hydra / "overrides.yaml")
    OmegaConf.save({"hydra": {"runtime": {"choices": {**CHOICES, **chosen}}}}, hydra / "hydra.yaml")
    if values:
        (folder / "history.json").write_text(json.dumps(history_of(values, frozen)))
    if scores is not None:
        phases = [
            {"name": "first", "start_epoch": 1, "seconds": 1.5, "images": 120, "frozen": True},
            {"name": "second", "start_epoch": frozen + 1, "seconds": 2.5, "images": 120,
             "frozen": False},
        ]  # fmt: skip
        results = {
            **scores, "phases": phases, "trainable_parameters": 900, "seed": seed, "device": "cpu",
            "git": "a" * 40, "versions": {"thaw": "0.1.0", "torch": "2.15.0"}, **facts,
        }  # fmt: skip
        (folder / "results.json").write_text(json.dumps(results))
    return folder
