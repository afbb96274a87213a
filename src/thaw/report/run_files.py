"""results.json and history.json of a run, and the last lines that it prints."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, CalledProcessError, check_output
from typing import Any

import lightning
import torch
import torchvision
from lightning.pytorch.loggers import Logger, TensorBoardLogger

import thaw
from thaw.backbones.groups import HEAD
from thaw.classifier import Classifier
from thaw.data.base import PhotoDataModule
from thaw.store import write_json
from thaw.training.record import Record

ROOT = Path(thaw.__file__).resolve().parents[2]


def make_results(
    model: Classifier, record: Record, metrics: Mapping[str, float], data: PhotoDataModule,
    **facts: Any,
) -> dict[str, Any]:  # fmt: skip
    """The content of results.json; `metrics` of val/ are those of the best checkpoint."""
    total = sum(parameter.numel() for parameter in model.parameters())
    last = record.plan.phases[-1]
    trained = model.share(last.rates, last.batchnorm, last.depthwise)
    phases = [
        {
            "name": phase.name,
            "start_epoch": phase.start + 1,
            "epochs": len(rows),
            "seconds": (seconds := round(sum(row["seconds"] for row in rows), 3)),
            "images": (images := sum(row.get("images", 0) for row in rows)),
            "images_per_second": round(images / max(seconds, 1e-3), 1),
            "trains": sorted(phase.rates, key=record.plan.groups.index),
            "frozen": set(phase.rates) <= {HEAD},
        }
        for phase in record.plan.phases
        if (rows := [row for row in record.history if row["phase"] == phase.name])
    ]
    return {
        **{name: float(value) for name, value in sorted(metrics.items())},
        "phases": phases,
        "parameters": total,
        "trainable_parameters": round(trained * total),
        "classes": list(data.classes),
        "skipped": data.skipped,
        "bad_photos": data.bad_photos,
        **record.end,
        **facts,
        "versions": versions(),
    }


def write(folder: Path, results: Mapping[str, Any], record: Record, data: PhotoDataModule) -> None:
    """Writes split.csv, history.json (the metrics of every epoch) and results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("predictions.csv", "report.html", "check.json"):  # of before it was resumed
        (folder / name).unlink(missing_ok=True)
    data.splits.write(folder / "split.csv", data.folder)
    write_json(record.history, folder / "history.json")
    write_json(results, folder / "results.json")  # last: its presence says that the run is finished


def summary(results: Mapping[str, Any], folder: Path) -> str:
    """The lines that are printed last: metrics, cost of each phase, folder, the next command."""
    rows: list[tuple[str, str]] = []
    for split in ("val", "test"):
        names = ("acc", "acc_top5", "acc_macro", "f1", "ece", "loss")
        there = [name for name in names if f"{split}/{name}" in results]
        cells = [f"{name} {results[f'{split}/{name}']:.4f}" for name in there]
        rows += [(split, "   ".join(cells))] if cells else []
    for phase in results["phases"]:
        epochs = f"{phase['epochs']} epoch{'s' if phase['epochs'] > 1 else ''}"
        speed = f"{phase['seconds']:.1f} s   {phase['images_per_second']:.0f} images/s"
        rows.append((phase["name"], f"{epochs:<11}{speed}"))
    rows += [("ended", results["ended"])] if "ended" in results else []
    seconds = f"{results['seconds']:.1f} s in all"
    run = f"{seconds}   seed {results['seed']}   {results['device']}"
    rows += [("run", run), ("folder", str(folder))]
    rows += [("page", str(page))] if (page := folder / "report.html").is_file() else []
    rows.append(("next", f"thaw predict {shlex.quote(str(folder))} photo.jpg"))
    return "\n".join(["", *(f"{name:<10}{text}" for name, text in rows)])


def log_final(loggers: Sequence[Logger], config: dict[str, Any], metrics: dict[str, float]) -> None:
    """Logs the whole configuration as hyperparameters; TensorBoard gets the final metrics too."""
    for logger in loggers:
        more: Any = [metrics] if isinstance(logger, TensorBoardLogger) else []
        logger.log_hyperparams(config, *more)
        logger.finalize("success")


def versions() -> dict[str, str]:
    """The versions of everything that can change a result."""
    parts = {part.__name__: part.__version__ for part in (thaw, torch, torchvision, lightning)}
    return {"python": platform.python_version(), **parts}


def git_revision() -> str | None:
    """Gives the commit of this checkout, "+changes" when files differ; None without git."""
    try:
        commit, changes = (
            check_output(["git", "-C", str(ROOT), *words], text=True, stderr=DEVNULL)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
        return commit.strip() + ("+changes" if changes else "")
    except (OSError, CalledProcessError):
        return None
