"""`thaw advise`: which way of transfer suits the photos and the backbone, from one pass."""

import argparse
import shlex
from statistics import median

import torch
from torch import Tensor

from thaw import launch
from thaw.advice import Depth, advise
from thaw.backbones.taps import Taps
from thaw.errors import ConfigError
from thaw.features.scores import FOLDS, Probe, difference, probe
from thaw.verbs.subject import Subject, backbone_of, check, subject_of, table_of

WAYS = {
    "features": "train the head only, on the last layer's features",
    "earlier": "train the head only, on features from an earlier layer",
    "top": "fine-tune the top of the body",
    "all": "fine-tune everything, once the head is trained",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `thaw advise` takes."""
    parser.usage = "thaw advise [settings of train.py, like data=pets backbone=resnet50]"
    parser.add_argument("words", nargs="*", metavar="setting", help="of train.py")


def run(given: argparse.Namespace) -> None:
    """Measures and prints figures, advice and the command to run next.

    Raises:
        ConfigError: a word that cannot be understood, or that the advice is about.
    """
    for text in given.words:
        if text.lstrip("+").startswith(("finetune", "experiment=", "head.fit=")):
            raise ConfigError(f"{text}: is, or holds, what advise chooses; leave it out")
    cfg = launch.compose_run(given.words)
    check(cfg)
    epochs = cfg.trainer.max_epochs
    if epochs < 2:
        raise ConfigError(f"trainer.max_epochs={epochs}: advise weighs ways of 2 or more epochs")
    subject = subject_of(cfg, backbone_of(cfg))
    taps = Taps(subject.backbone)
    features, labels = subject.features(subject.runner(taps))
    probes = probes_by_depth(taps, features, labels)
    depths = [
        Depth(name, found.accuracy, *difference(found.right, probes[taps.names[-1]].right))
        for name, found in probes.items()
    ]
    counts = torch.tensor(subject.data.train.labels).bincount().tolist()
    print(f"\n{_facts(subject, counts)}\n\n{_table(taps, probes, depths)}\n")
    advice = advise(median(counts), depths)
    words = [*given.words, *advice.words]
    if advice.way in ("top", "all") and epochs <= cfg.finetune.unfreeze_epoch:
        words.append(f"finetune.unfreeze_epoch={epochs // 2}")
    command = shlex.join(["python", "train.py", *words])
    because = f"\n{' ' * 11}".join(advice.reasons)
    print(f"advice     {WAYS[advice.way]}\nbecause    {because}\n\nnext:\n  {command}")


def probes_by_depth(taps: Taps, features: Tensor, labels: Tensor) -> dict[str, Probe]:
    """The probe of each layer group's part of the features (N, D1 + D2 + ...)."""
    parts = features.split(taps.widths, 1)
    return {name: probe(part, labels) for name, part in zip(taps.names, parts, strict=True)}


def _facts(subject: Subject, counts: list[int]) -> str:
    data, backbone = subject.data, subject.backbone
    val = len(data.val) if data.val else 0
    return (
        f"data       {data.name}: {len(data.train):,} photos to train on, {val:,} for validation, "
        f"{len(data.classes)} classes of {median(counts):g} (median; fewest {min(counts)}, most "
        f"{max(counts)})\nbackbone   {backbone.name}, {backbone.weights}, "
        f"{backbone.input_spec.size} pixels"
    )


def _table(taps: Taps, probes: dict[str, Probe], depths: list[Depth]) -> str:
    rows = [["features after", "D", f"probe ({FOLDS}-fold)", "above the last"]]
    for depth, width in zip(depths, taps.widths, strict=True):
        shown = f"{100 * depth.accuracy:.1f} +-{100 * probes[depth.group].error:.1f}"
        gap = f"{100 * depth.gap:+.1f} +-{100 * depth.error:.1f}" if depth is not depths[-1] else ""
        rows.append([depth.group, str(width), shown, gap])
    return table_of(rows)
