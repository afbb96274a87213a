"""`thaw probe`: which backbone, and which layers of it, suit the photos, before training any.

    thaw probe data=pets backbones=resnet18,convnext_tiny
    thaw probe data=pets backbones=mobilenet_v2:weights/mobilenet_v2.pth layers=all
    thaw probe data=dogs_vs_cats backbone=vgg16 classifier=svm      VGG16's codes and an SVM

Each frozen backbone runs once over the photos; training finds these features in its cache. Then
scikit-learn fits classifiers to the features of the training photos, chooses their strength by
cross-validation among them, and measures them on the validation photos. The test split is not read.
"""

import argparse
import logging
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from thaw import config, launch
from thaw.errors import ConfigError, ThawError, near, reason
from thaw.text_table import text_table
from thaw.tools.probe_classifiers import GRIDS, Fitted, fit, way
from thaw.tools.probe_features import Subject, measure
from thaw.training import device

CHOICES = {"layers": ("last", "all"), "classifier": tuple(GRIDS)}


@dataclass(frozen=True)
class Request:
    """The command line, understood.

    Attributes:
        backbones: for each the words that choose it, as (backbone=resnet18,).
        layers: "last" or "all".
        classifiers: names.
        others: all other words, settings of train.py.
    """

    backbones: tuple[tuple[str, ...], ...]
    layers: str
    classifiers: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One classifier on the features of one layer."""

    subject: Subject
    layer: str
    classifier: str
    fitted: Fitted


def main(words: Sequence[str]) -> int:
    """Runs `thaw probe` with the words that follow it on the command line."""
    parser = argparse.ArgumentParser("thaw probe", description=__doc__)
    _add_arguments(parser)
    _run(parser.parse_args(words))
    return 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `thaw probe` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument(
        "words", nargs="*", metavar="setting",
        help="backbones=NAME,NAME:WEIGHTS_FILE,... layers=last|all "
        f"classifier={','.join(GRIDS)} and settings of train.py, like data=pets or "
        "backbone.image_size=128",
    )  # fmt: skip


def _run(given: argparse.Namespace) -> None:
    """Measures, and prints the table and the command that trains the best.

    Raises:
        ConfigError: a word that cannot be understood, or no backbone that can be measured.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        message = "thaw probe: needs scikit-learn, an extra: pip install '.[probe]'"
        raise ConfigError(message) from error
    request = read(given.words)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    cfgs = [launch.compose_run([*request.others, *words]) for words in request.backbones]
    for cfg in cfgs:  # all of them before the first one is measured
        config.check_keys(cfg)
        device.check_trainer(config.plain(cfg)["trainer"])
    rows: list[Row] = []
    for words, cfg in zip(request.backbones, cfgs, strict=True):
        try:
            subject = measure(words, cfg, every_layer=request.layers == "all")
        except (ThawError, torch.OutOfMemoryError) as error:  # the others are still worth having
            print(f"left out: {' '.join(words)}: {reason(error)}")
            continue
        print(f"features  {subject.backbone.name}: {subject.seconds:.1f} s")
        rows += classify(subject, request.classifiers, seed=cfg.seed)
    if not rows:
        raise ConfigError("backbones: none of them can be measured, see above")
    print(f"\n{report(rows)}\n\n{next_step(request, rows)}")


def read(words: Sequence[str]) -> Request:
    """The command line, understood.

    Raises:
        ConfigError: names the word that cannot be.
    """
    own: dict[str, str] = {"layers": "last", "classifier": "logistic"}
    others: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if key in ("backbones", *CHOICES):
            own[key] = value.strip("[]'\" ")
        else:
            others.append(word)
    for key, allowed in CHOICES.items():
        for name in own[key].split(","):
            if name not in allowed or (key == "layers" and "," in own[key]):
                raise ConfigError(
                    f"{key}={own[key]}: allowed are {', '.join(allowed)}{near(name, allowed)}"
                )
    single = any(word.startswith("backbone=") for word in others)
    if single == ("backbones" in own):
        raise ConfigError(
            "backbones: name what to measure, either as backbones=resnet18,resnet50:WEIGHTS_FILE "
            "or one as backbone=resnet18 backbone.weights=FILE"
        )
    backbones: list[tuple[str, ...]] = [()] if single else []
    for part in own.get("backbones", "").split(","):
        name, _, file = part.strip().partition(":")
        plain = re.fullmatch(r"[\w./+-]*", file)  # all else needs quotes on Hydra's command line
        weights = f"backbone.weights={file if plain else launch.quoted(file)}"
        chosen = (f"backbone={name}", *([weights] if file else []))
        if name and chosen in backbones:
            raise ConfigError(f"backbones={own['backbones']}: names {part} twice")
        if name:
            backbones.append(chosen)
    classifiers = tuple(dict.fromkeys(own["classifier"].split(",")))
    return Request(tuple(backbones), own["layers"], classifiers, tuple(others))


def classify(subject: Subject, classifiers: Sequence[str], *, seed: int) -> list[Row]:
    """Each classifier on the features of each layer."""
    rows: list[Row] = []
    start = 0
    for layer, width in subject.layers.items():
        part = slice(start, start + width)
        start += width
        train = subject.train[0][:, part], subject.train[1]
        val = subject.val and (subject.val[0][:, part], subject.val[1])
        rows += [
            Row(subject, layer, name, fit(name, train, val, seed=seed)) for name in classifiers
        ]
    return rows


def report(rows: Sequence[Row]) -> str:
    """The table, the best row first, and how large a difference must be to mean something."""
    head = ["backbone", "layer", "D", "classifier", "val acc", "cross-val", "features s", "fit s",
            "parameters", "px"]  # fmt: skip
    table = [head]
    for row in sorted(rows, key=lambda row: -row.fitted.score):
        subject, fitted = row.subject, row.fitted
        parameters = sum(weight.numel() for weight in subject.backbone.body.parameters())
        table.append([
            subject.backbone.name, row.layer, str(subject.layers[row.layer]), row.classifier,
            "" if fitted.val is None else f"{fitted.val:.4f}", f"{fitted.cross_validated:.4f}",
            f"{subject.seconds:.1f}", f"{fitted.seconds:.1f}", f"{parameters / 1e6:.1f} M",
            str(subject.backbone.input_spec.size),
        ])  # fmt: skip
    best = max(rows, key=lambda row: row.fitted.score)
    split, photos = ("validation", best.subject.val) if best.subject.val else ("training", None)
    number = len((photos or best.subject.train)[1])
    error = (best.fitted.score * (1 - best.fitted.score) / number) ** 0.5
    return (
        f"{text_table(table, right=(2, *range(4, len(head))))}\n\n"
        f"Ranked on {number:,} {split} photos: a difference below {2 * error:.3f} may be chance."
    )


def next_step(request: Request, rows: Sequence[Row]) -> str:
    """The command that trains the best backbone; with all layers, what to train of it and why."""
    best = max(rows, key=lambda row: row.fitted.score)
    words, text = [*request.others, *best.subject.words], ""
    if request.layers == "all":
        depths = {row.layer: row.fitted.cross_validated for row in rows
                  if (row.subject, row.classifier) == (best.subject, best.classifier)}  # fmt: skip
        labels = best.subject.train[1]
        per_class = median(labels.bincount().tolist())
        sentence, chosen = way(per_class, depths, photos=len(labels))
        text = f"{sentence}\n"
        if not any(word.startswith(("finetune", "experiment=")) for word in words):
            words += chosen
    return f"{text}next      {shlex.join(['python', 'train.py', *words])}"
