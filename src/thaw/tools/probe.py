"""`thaw probe`: which backbone, and which layers of it, suit the photos, before training any.

    thaw probe data=pets backbones=resnet18,mobilenet_v2:weights/mobilenet_v2.pth
    thaw probe data=pets backbones=resnet18 layers=all
    thaw probe data=dogs_vs_cats backbones=vgg16 classifier=svm --save my/model

Each frozen backbone runs once over the photos; training finds these features in its cache. Then
scikit-learn fits classifiers to the features of the training photos, chooses their strength by
cross-validation among them, and measures them on the validation photos. The test split is not read.
"""

import importlib
import logging
import shlex
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

from thaw import config, launch, model_folder, transforms
from thaw.backbones.backbone import Backbone
from thaw.classifier import Classifier
from thaw.errors import ConfigError
from thaw.features.key import feature_key
from thaw.features.table import load_or_compute
from thaw.report import run_files
from thaw.text_table import text_table
from thaw.tools.probe_fit import GRIDS, Fitted, LayerOutputs, Table, fit, linear_head, way
from thaw.training import device


@dataclass(frozen=True)
class Subject:
    """A backbone on the photos that it would be trained and validated on."""

    words: list[str]  # that choose the backbone
    cfg: DictConfig
    backbone: Backbone
    data: Any
    layers: dict[str, int]  # layer group -> D of its output
    tables: list[Table]  # of all layers side by side, for training and validation photos
    seconds: float  # to compute or to read them


Row = tuple[Subject, str, str, Fitted]  # with the names of the layer and of the classifier


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Measures, and prints the table and the command that trains the best."""
    given = read(parser, words)
    importlib.import_module("sklearn")  # an extra: told before features are computed
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    cfgs = [launch.compose_run([*given.words, *chosen]) for chosen in given.backbones]
    rows: list[Row] = []
    for chosen, cfg in zip(given.backbones, cfgs, strict=True):
        subject = measure(chosen, cfg, every_layer=given.layers == "all")
        end = 0
        for layer, width in subject.layers.items():
            part = slice(end, end := end + width)
            tables = [(features[:, part], labels) for features, labels in subject.tables]
            for name in given.classifier:
                rows.append((subject, layer, name, fit(name, *tables, seed=cfg.seed)))
    ranked = sorted(rows, key=lambda row: -row[3].score)
    print(f"\n{table(ranked)}\n\n{next_step(given.words, rows, ranked[0])}")
    if given.save:
        save(given.save, ranked[0][0], ranked[0][3])
        print(f"saved     thaw predict {given.save} photo.jpg")


def read(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The command line; `backbones` has for each the words that choose it."""
    parser.usage = (
        "thaw probe backbones=NAME,NAME:WEIGHTS_FILE,... [layers=last|all] "
        f"[classifier={','.join(GRIDS)}] [--save DIR] [settings of train.py, like data=pets]"
    )
    parser.add_argument("words", nargs="*", help=SUPPRESS)
    parser.add_argument("--backbones", required=True, help=SUPPRESS)
    parser.add_argument("--layers", default="last", choices=("last", "all"), help=SUPPRESS)
    parser.add_argument("--classifier", default="logistic", help=SUPPRESS)
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the best as a model folder")
    own = ("backbones=", "layers=", "classifier=")  # all other words are settings of train.py
    given = parser.parse_intermixed_args([f"--{w}" if w.startswith(own) else w for w in words])
    given.classifier = given.classifier.split(",")
    if unknown := set(given.classifier) - set(GRIDS):
        raise ConfigError(f"classifier={','.join(unknown)}: allowed are {', '.join(GRIDS)}")
    if given.save and (given.layers != "last" or "knn" in given.classifier):
        raise ConfigError("--save: needs a linear head: layers=last, classifier=logistic or svm")
    if any(word.startswith(("backbone=", "backbone.weights=")) for word in given.words):
        raise ConfigError("backbones: name them as backbones=resnet18,resnet50:WEIGHTS_FILE alone")
    parts = (part.replace(":", "|backbone.weights=", 1) for part in given.backbones.split(","))
    given.backbones = [f"backbone={part}".split("|") for part in parts]
    return given


def measure(
    words: list[str],
    cfg: DictConfig,
    *,
    every_layer: bool,
    source: Callable[..., Any] | None = None,
) -> Subject:
    """Builds a backbone and its data (or `source`'s) as train.py would; computes the features."""
    config.check_keys(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    backbone = config.build(cfg.backbone, "backbone").cropped(cfg.data.get("crop", "center"))
    spec = backbone.input_spec
    view, normalise = transforms.eval_transform(spec), transforms.normalise(spec)
    views = {"train_transform": view, "eval_transform": view, "shrink": transforms.Shrink(spec)}
    data = source(**views) if source else config.build(cfg.data, "data", **views)
    settings = device.trainer_settings(config.plain(cfg)["trainer"])
    trainer = config.build({**settings, "devices": 1, "strategy": "auto"}, "trainer", logger=False)
    place, precision = trainer.strategy.root_device, trainer.precision_plugin
    order = torch.channels_last if backbone.is_convolutional else torch.contiguous_format
    body = LayerOutputs(backbone) if every_layer else backbone.body
    layers = getattr(body, "layers", {backbone.groups[-1].name: backbone.out_features})
    body = body.eval().requires_grad_(False).to(place, memory_format=order)  # pyright: ignore
    body = precision.convert_module(body)
    dtype = next(body.parameters()).dtype

    def run(images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, D), as a training step would."""
        with torch.no_grad(), precision.forward_context():
            return body(normalise(images.to(place).contiguous(memory_format=order)).to(dtype))

    began, tables, folder = time.perf_counter(), [], Path(cfg.paths.cache_dir) / "features"
    for loader in filter(None, (data.train_dataloader(), data.val_dataloader())):
        print(f"features  {backbone.name}: {len(loader.dataset):,} photos", flush=True)
        key = partial(feature_key, body, loader.dataset, normalise, views=1,
                      precision=str(trainer.precision), device=place)  # fmt: skip
        features, _ = load_or_compute(folder, key, loader, run, views=1)
        tables.append((features.table[:, 0].float(), features.labels))
    return Subject(words, cfg, backbone, data, layers, tables, time.perf_counter() - began)


def table(ranked: Sequence[Row]) -> str:
    """The table, and how large a difference must be to mean something."""
    lines = [["backbone", "layer", "D", "classifier", "val acc", "cross-val", "features s",
              "fit s", "parameters", "px"]]  # fmt: skip
    for subject, layer, classifier, fitted in ranked:
        parameters = sum(weight.numel() for weight in subject.backbone.body.parameters())
        lines.append([
            subject.backbone.name, layer, str(subject.layers[layer]), classifier,
            "" if fitted.val is None else f"{fitted.val:.4f}", f"{fitted.cross_validated:.4f}",
            f"{subject.seconds:.1f}", f"{fitted.seconds:.1f}", f"{parameters / 1e6:.1f} M",
            str(subject.backbone.input_spec.size),
        ])  # fmt: skip
    number, score = len(ranked[0][0].tables[-1][1]), ranked[0][3].score
    noise = 2 * (score * (1 - score) / number) ** 0.5  # two standard errors
    sentence = f"Ranked on {number:,} photos: a difference below {noise:.3f} may be chance."
    return f"{text_table(lines, right=(2, 4, 5, 6, 7, 8, 9))}\n\n{sentence}"


def next_step(others: Sequence[str], rows: Sequence[Row], best: Row) -> str:
    """The command that trains the best backbone; with all layers, what to train of it and why."""
    subject, _, classifier, _ = best
    words, text = [*others, *subject.words], ""
    if len(subject.layers) > 1:
        depths = {layer: fitted.cross_validated for row, layer, name, fitted in rows
                  if row is subject and name == classifier}  # fmt: skip
        text, chosen = way(subject.tables[0][1].bincount(), depths)
        if not any(word.startswith(("finetune", "experiment=")) for word in words):
            words += chosen
    return f"{text}next      {shlex.join(['python', 'train.py', *words])}"


def save(folder: Path, subject: Subject, fitted: Fitted) -> None:
    """Writes the model folder of a linear classifier on a backbone's last layer."""
    backbone, data = subject.backbone, subject.data
    head, temperature = linear_head(fitted.model, *subject.tables[1:])
    targets = {"backbone": subject.cfg.backbone, "head": {"_target_": "thaw.head.linear"}}
    model_folder.save_model(
        folder, Classifier(backbone, head),
        model_folder.describe(backbone, targets, data.classes, data.licence),
        temperature=temperature, metrics={"val/acc": fitted.val}, versions=run_files.versions(),
    )  # fmt: skip
