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
        {"epoch": epoch, "phase": "frozen" if epoch < frozen else "unfrozen",
         "val/acc": value, "val/loss": 2 - value,
         "train/acc": value - 0.1, "train/loss": 1.5 - value}
        for epoch, value in enumerate(values)
    ]  # fmt: skip


def write_run(
    folder: Path,
    words: Sequence[str] = (),
    *,
    seed: int = 0,
    scores: Mapping[str, float] | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    choices: Mapping[str, str] | None = None,
    **facts: Any,
) -> Path:
    """A run folder with the settings `words` (dotted name=value) over a small configuration.

    Args:
        folder: to make.
        words: as on the command line.
        seed: of the run.
        scores: metrics; None: the run left no results.json.
        history: rows; None: no history.json.
        choices: other than CHOICES.
        facts: further entries of results.json.
    """
    cfg = OmegaConf.create(
        {
            "seed": seed, "tags": [], "task_name": "train", "monitor": "val/acc", "mix": None,
            "backbone": {
                "_target_": "thaw.backbones.own_backbones.tiny_backbone", "weights": "DEFAULT"
            },
            "data": {"_target_": "thaw.data.folder.Folder", "root": "photos", "batch_size": 4,
                     "seed": "${seed}", "folds": None, "fold": 0, "train_per_class": None},
            "finetune": {"unfreeze_epoch": 2, "unfrozen": {"lr": 0.001}},
            "callbacks": {"checkpoint": {"dirpath": "${paths.output_dir}/checkpoints",
                                         "monitor": "${monitor}"}},
            "paths": {"output_dir": "${hydra:runtime.output_dir}"},
        }
    )  # fmt: skip
    cfg.merge_with_dotlist([word for word in words if word.partition("=")[0] not in CHOICES])
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    OmegaConf.save(cfg, hydra / "config.yaml")
    OmegaConf.save([*words, f"seed={seed}"], hydra / "overrides.yaml")
    chosen = {**CHOICES, **(choices or {})}
    OmegaConf.save({"hydra": {"runtime": {"choices": chosen}}}, hydra / "hydra.yaml")
    if history is not None:
        (folder / "history.json").write_text(json.dumps(list(history)))
    if scores is not None:
        phases = [
            {"name": "frozen", "epochs": 2, "seconds": 1.5, "images": 120,
             "images_per_second": 80.0},
            {"name": "unfrozen", "epochs": 2, "seconds": 2.5, "images": 120,
             "images_per_second": 48.0},
        ]  # fmt: skip
        results = {
            **scores, "phases": phases, "parameters": 1000, "trainable_parameters": 900,
            "seconds": 6.5, "seed": seed, "device": "cpu", "tags": [], "git": "a" * 40,
            "best_checkpoint": f"/elsewhere/{folder.name}/checkpoints/best.ckpt",
            "versions": {"thaw": "0.1.0", "torch": "2.15.0"}, **facts,
        }  # fmt: skip
        (folder / "results.json").write_text(json.dumps(results))
    return folder
