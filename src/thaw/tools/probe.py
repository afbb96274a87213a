"""`thaw probe`: which backbone, and which layers of it, suit the photos, before training any.

    thaw probe data=pets backbones=resnet18,mobilenet_v2:weights/mobilenet_v2.pth
    thaw probe data=pets backbones=resnet18 layers=all
    thaw probe data=dogs_vs_cats backbones=vgg16 classifier=svm --save my/model

Each frozen backbone runs once over the photos; training finds the features in its cache (with
finetune.cached_views=1 those of the training photos too). Then scikit-learn fits classifiers to the
features of the training photos, chooses their strength by cross-validation among them, and measures
them on the validation photos. The test split is not read.
"""

import shlex
import time
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

from thaw import config, model_folder, transforms
from thaw.backbones.backbone import Backbone
from thaw.classifier import Classifier
from thaw.compose import compose_run
from thaw.data.photos import Splits
from thaw.errors import check
from thaw.features.key import feature_key
from thaw.features.table import load_or_compute
from thaw.report import run_files
from thaw.text_table import text_table
from thaw.tools.probe_fit import GRIDS, Fitted, LayerOutputs, Table, fit, linear_head, way
from thaw.training import device


class Subject(NamedTuple):
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
    cfgs = [compose_run([*given.words, *chosen]) for chosen in given.backbones]
    rows: list[Row] = []
    for chosen, cfg in zip(given.backbones, cfgs, strict=True):
        subject = measure(
            chosen, cfg, every_layer=given.layers == "all",
            splits=rows[0][0].data.splits if rows else None,  # the photos are looked at once
        )  # fmt: skip
        end = 0
        for layer, width in subject.layers.items():
            part = slice(end, end := end + width)
            tables = [(features[:, part], labels) for features, labels in subject.tables]
            for name in given.classifier:
                rows.append((subject, layer, name, fit(name, *tables, seed=cfg.seed)))
    ranked = sorted(rows, key=lambda row: -row[3].score)
    subject, _, kind, fitted = ranked[0]
    command = ["python", "train.py", *given.words, *subject.words]
    print(f"\n{table(ranked)}\n")
    if len(subject.layers) > 1:
        depths = {layer: each.cross_validated for other, layer, name, each in rows
                  if other is subject and name == kind}  # fmt: skip
        advice, chosen = way(subject.tables[0][1].bincount(), depths)
        print(advice)
        if not any(word.startswith(("finetune", "experiment=")) for word in given.words):
            command += chosen
    print(f"next      {shlex.join(command)}")
    if given.save:
        backbone, data = subject.backbone, subject.data
        head, temperature = linear_head(fitted.model, *subject.tables[1:])
        targets = {"backbone": subject.cfg.backbone, "head": {"_target_": "thaw.head.linear"}}
        facts = model_folder.describe(backbone, targets, data.classes, data.licence)
        model_folder.save_model(
            given.save, Classifier(backbone, head), facts, temperature=temperature,
            metrics={"val/acc": fitted.val}, versions=run_files.versions(),
        )  # fmt: skip
        print(f"saved     thaw predict {shlex.quote(str(given.save))} photo.jpg")


def read(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The command line; `backbones` has for each the words that choose it."""
    parser.usage = (
        "thaw probe backbones=NAME,NAME:WEIGHTS_FILE,... [layers=last|all] "
        f"[classifier={','.join(GRIDS)}] [--save DIR] [settings of train.py, like data=pets]"
    )
    add = parser.add_argument
    add("words", nargs="*", help=SUPPRESS)
    add("--backbones", required=True, help=SUPPRESS)
    add("--layers", default="last", choices=("last", "all"), help=SUPPRESS)
    add("--classifier", default="logistic", help=SUPPRESS)
    add("--save", type=Path, metavar="DIR", help="write the best as a model folder")
    own = ("backbones=", "layers=", "classifier=")  # all other words are settings of train.py
    given = parser.parse_intermixed_args([f"--{w}" if w.startswith(own) else w for w in words])
    kinds, given.classifier = given.classifier, given.classifier.split(",")
    check({*given.classifier} <= {*GRIDS}, "classifier", kinds, f"one or more of {','.join(GRIDS)}")
    linear = given.layers == "last" and "knn" not in given.classifier
    allowed = "a folder for a linear head: with layers=last, classifier=logistic or svm"
    check(linear or not given.save, "--save", given.save, allowed)
    if given.save:  # its two files are replaced
        given.save = given.save.expanduser().absolute()
        fits = not given.save.exists() or (given.save / "model.json").is_file()
        check(fits, "--save", given.save, "a folder that is not there yet, or a model folder")
    parts = (part.replace(":", "|backbone.weights=", 1) for part in given.backbones.split(","))
    given.backbones = [f"backbone={part}".split("|") for part in parts]
    return given


def measure(
    words: list[str], cfg: DictConfig, *, every_layer: bool = False, splits: Splits | None = None
) -> Subject:
    """Builds a backbone and its data as train.py would (of other `splits`); computes features."""
    config.check_keys(cfg)
    device.quiet_lightning()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    backbone = config.build(cfg.backbone, "backbone").cropped(cfg.data.get("crop", "center"))
    spec = backbone.input_spec
    view, normalise = transforms.eval_transform(spec), transforms.normalise(spec)
    views = {"train_transform": view, "eval_transform": view, "shrink": transforms.Shrink(spec)}
    data = config.build(cfg.data, "data", **views)
    if splits:
        data.splits = splits
    settings = device.trainer_settings(config.plain(cfg)["trainer"])
    trainer = config.build({**settings, "devices": 1, "strategy": "auto"}, "trainer", logger=False)
    place, precision = trainer.strategy.root_device, trainer.precision_plugin
    order = torch.channels_last if backbone.is_convolutional else torch.contiguous_format
    body = LayerOutputs(backbone) if every_layer else backbone.body
    layers = getattr(body, "layers", {backbone.groups[-1].name: backbone.out_features})
    body = body.eval().requires_grad_(False).to(place, memory_format=order)  # pyright: ignore
    body = precision.convert_module(body)
    features_of = body if every_layer else Classifier(backbone, torch.nn.Identity()).features
    dtype = next(body.parameters()).dtype

    def run(images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> (N, D), as a training step would."""
        with torch.no_grad(), precision.forward_context():
            images = images.to(place).contiguous(memory_format=order)
            return features_of(normalise(images).to(dtype))

    began, tables = time.perf_counter(), []
    folder = Path(cfg.paths.cache_dir).expanduser() / "features"
    for loader in filter(None, (data.train_dataloader(), data.val_dataloader())):
        print(f"features  {backbone.name}: {len(loader.dataset):,} photos", flush=True)
        key = partial(feature_key, [body, backbone.fold], loader.dataset, normalise, views=1,
                      precision=str(trainer.precision), device=place)  # fmt: skip
        features, _ = load_or_compute(folder, key, loader, run, views=1)
        tables.append((features.table[:, 0].float(), features.labels))
    return Subject(words, cfg, backbone, data, layers, tables, time.perf_counter() - began)


def table(ranked: Sequence[Row]) -> str:
    """The table, and how large a difference must be to mean something."""
    lines = [["backbone", "layer", "D", "classifier", "val acc", "cross-val", "features s",
              "parameters", "px"]]  # fmt: skip
    for subject, layer, classifier, fitted in ranked:
        parameters = sum(weight.numel() for weight in subject.backbone.body.parameters())
        lines.append([
            subject.backbone.name, layer, str(subject.layers[layer]), classifier,
            "" if fitted.val is None else f"{fitted.val:.4f}", f"{fitted.cross_validated:.4f}",
            f"{subject.seconds:.1f}", f"{parameters / 1e6:.1f} M",
            str(subject.backbone.input_spec.size),
        ])  # fmt: skip
    number, score = len(ranked[0][0].tables[-1][1]), ranked[0][3].score
    noise = 2 * (score * (1 - score) / number) ** 0.5  # two standard errors
    sentence = f"Ranked on {number:,} photos: a difference below {noise:.3f} may be chance."
    return f"{text_table(lines, right=(2, 4, 5, 6, 7, 8))}\n\n{sentence}"
