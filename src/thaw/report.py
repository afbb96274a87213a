"""What a run leaves behind: results.json, history.json, curves.png and the last lines printed."""

import math
import platform
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

import thaw
from thaw.backbones.groups import HEAD
from thaw.classifier import Classifier
from thaw.curves import draw_curves
from thaw.store import write_json
from thaw.training.progress import Record

ROOT = Path(thaw.__file__).resolve().parents[2]


def make_results(
    model: Classifier,
    record: Record,
    metrics: Mapping[str, float],
    **facts: Any,
) -> dict[str, Any]:
    """The flat object of results.json.

    Args:
        model: for the numbers of parameters.
        record: of the training.
        metrics: final ones under their logged names; `val/` of the best checkpoint.
        facts: further entries (seconds, seed, device, ...), plain values.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    last = record.plan.phases[-1]
    phases = [
        {
            "name": phase.name,
            "start_epoch": phase.start + 1,
            "epochs": int(done["epochs"]),
            "seconds": round(done["seconds"], 3),
            "images": int(done["images"]),
            "images_per_second": round(done["images"] / done["seconds"], 1),
            "trains": [group for group in record.plan.groups if group in phase.rates],
            "frozen": set(phase.rates) <= {HEAD},
        }
        for phase in record.plan.phases
        if (done := record.phases.get(phase.name))
    ]
    return {
        **{name: float(value) for name, value in sorted(metrics.items())},
        "phases": phases,
        "parameters": total,
        "trainable_parameters": round(model.share(last.rates, last.batchnorm) * total),
        **facts,
        **({"pruned": record.pruned} if record.pruned else {}),
        "versions": versions(),
        "git": git_revision(),
    }


def write(folder: Path, results: Mapping[str, Any], record: Record) -> None:
    """Writes results.json, history.json (metrics of every epoch) and curves.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(results, folder / "results.json")
    write_json(record.history, folder / "history.json")
    if record.history:
        figure = draw_curves(record.history, record.plan.unfreeze_epochs)
        figure.savefig(folder / "curves.png", dpi=120)


def save_body(model: Classifier, path: Path) -> None:
    """Writes the body's weights, in float16, for `backbone.weights=PATH` in another run."""
    state = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in model.body.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


def summary(results: Mapping[str, Any]) -> str:
    """The small table that is printed last."""
    lines = []
    for split in ("val", "test"):
        cells = [
            f"{name} {results[f'{split}/{name}']:.4f}"
            for name in ("acc", "acc_top5", "acc_macro", "f1", "ece", "loss")
            if f"{split}/{name}" in results
        ]
        if cells:
            lines.append(f"{split:<10}" + "   ".join(cells))
    for phase in results["phases"]:
        epochs = f"{phase['epochs']} epoch{'s' if phase['epochs'] > 1 else ''}"
        lines.append(
            f"{phase['name']:<10}{epochs:<11}{phase['seconds']:.1f} s   "
            f"{phase['images_per_second']:.0f} images/s"
        )
    lines.append(f"{'run':<10}{results['seconds']:.1f} s in all   seed {results['seed']}   "
                 f"{results['device']}")  # fmt: skip
    return "\n".join(lines)


def draw_pictures(
    images: Tensor, titles: Sequence[str], *, wrong: Collection[int] = (), columns: int = 6
) -> Figure:
    """Pictures in rows, each under its title.

    Args:
        images: (N, 3, H, W), uint8 or values 0-1.
        titles: N of them; a line break makes two lines.
        wrong: numbers of the pictures whose titles are red.
        columns: pictures in a row.
    """
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows), layout="constrained")
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in places:
        axes.set_axis_off()
    for number, (axes, image, title) in enumerate(zip(places, images, titles, strict=False)):
        axes.imshow(image.permute(1, 2, 0).cpu().numpy())  # H W C
        axes.set_title(title, fontsize=9, color="tab:red" if number in wrong else "black")
    return figure


def log_config(loggers: Sequence[Logger], text: str) -> None:
    """The configuration, as YAML, among TensorBoard's texts."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            indented = text.replace("\n", "\n    ")  # Markdown for: as it stands
            logger.experiment.add_text("config", f"    {indented}")


def log_final(
    loggers: Sequence[Logger], config: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """The whole configuration as hyperparameters; TensorBoard gets the final metrics with it."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(config), dict(metrics))
        else:
            logger.log_hyperparams(dict(config))
        logger.finalize("success")


def versions() -> dict[str, str]:
    """Of everything that can change a result."""
    return {
        "thaw": thaw.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
    }


def git_revision() -> str | None:
    """Commit of the checkout this runs from, "+changes" when it is not clean; None without git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
