"""`thaw rank`: which backbone suits the photos, from one pass of each and without training any."""

import argparse
import shlex
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import torch
from omegaconf import DictConfig

from thaw import launch
from thaw.backbones.backbone import Backbone
from thaw.backbones.pretrained import SUFFIXES
from thaw.errors import ConfigError, ThawError, near
from thaw.features.scores import Probe, logme, nearest, probe
from thaw.features.speed import speed
from thaw.store import write_json
from thaw.verbs.ranking import Scored, draw, report
from thaw.verbs.subject import backbone_of, check, subject_of, word

EXAMPLE = "thaw rank data=pets backbones=resnet18,resnet50,convnext_tiny"


@dataclass(frozen=True)
class Wish:
    """The command line: backbone names -> the words that choose each, and all other words."""

    chosen: dict[str, list[str]]
    others: list[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `thaw rank` takes."""
    parser.usage = f"{EXAMPLE} [weights.NAME=FILE] [weights_dir=FOLDER] [settings of train.py]"
    parser.add_argument(
        "words", nargs="*", metavar="setting",
        help="backbones=NAME,NAME,...; weights.NAME=FILE for one of them, or weights_dir=FOLDER "
        "with <NAME>.pth in it; and settings of train.py, like data=pets, "
        "data.train_per_class=20 or backbone.image_size=128",
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Measures, prints the table and writes it, its picture and all figures into a folder.

    Raises:
        ConfigError: a word that cannot be understood, or no backbone that can be built.
    """
    wish = read(given.words)
    cfgs = {name: launch.compose_run([*wish.others, *words])
            for name, words in wish.chosen.items()}  # fmt: skip
    for cfg in cfgs.values():  # all of them before the first one is measured
        check(cfg)
    found: list[tuple[Scored, Probe]] = []
    failed: dict[str, str] = {}
    for name, cfg in cfgs.items():
        try:
            backbone = backbone_of(cfg)
        except ThawError as error:
            failed[name] = str(error)
            print(f"{name}: left out, {error}")
            continue
        try:
            found.append(measure(name, cfg, backbone))
        except torch.OutOfMemoryError as error:  # the others' scores are still worth having
            size = cfg.data.batch_size
            failed[name] = f"does not fit at data.batch_size={size} ({str(error).splitlines()[0]})"
            print(f"{name}: left out, {failed[name]}")
    if not found:
        raise ConfigError(f"backbones={','.join(failed)}: none of them can be built, see above")
    found.sort(key=lambda pair: -pair[0].probe)
    ranked = [scored for scored, _ in found]
    text = report(found, failed)
    best = command(wish, ranked[0].name)
    print(f"\n{text}\n\nnext:\n  {best}")
    log_dir = Path(next(iter(cfgs.values())).paths.log_dir)
    folder = log_dir / "rank" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rank.txt").write_text(f"{text}\n\n{best}\n", encoding="utf-8")
    content = {"ranked": [asdict(scored) for scored in ranked], "failed": failed, "command": best}
    write_json(content, folder / "rank.json")
    draw(ranked).savefig(folder / "rank.png", dpi=120)
    print(f"folder  {folder}")


def read(words: list[str]) -> Wish:
    """The command line, understood.

    Raises:
        ConfigError: no backbones, words that no backbone has a use for.
    """
    names: list[str] = []
    files: dict[str, str] = {}
    folder: Path | None = None
    others: list[str] = []
    for text in words:
        key, _, value = text.partition("=")
        if key == "backbones":
            names += [name.strip() for name in value.strip("[]'\" ").split(",") if name.strip()]
        elif key == "weights_dir":
            folder = Path(value.strip("'\"")).expanduser()
        elif key.startswith("weights."):
            files[key.removeprefix("weights.")] = value.strip("'\"")
        elif key == "backbone":
            raise ConfigError(f"{text}: rank takes several, as backbones={value},...")
        else:
            others.append(text)
    if not names:
        raise ConfigError(f"backbones: names none. Give some: {EXAMPLE}")
    for name in files:
        if name not in names:
            raise ConfigError(
                f"weights.{name}={files[name]}: is none of backbones={','.join(names)}"
                f"{near(name, names)}"
            )
    if folder is not None:
        files = {**_files_in(folder, names), **files}
    chosen = {}
    for name in names:
        weights = [word("backbone.weights", files[name])] if name in files else []
        chosen[name] = [f"backbone={name}", *weights]
    return Wish(chosen, others)


def _files_in(folder: Path, names: list[str]) -> dict[str, str]:
    """Weight files named after backbones."""
    if not folder.is_dir():
        raise ConfigError(f"weights_dir={folder}: is no folder (looked at {folder.resolve()})")
    found = {
        name: str(folder / f"{name}{suffix}")
        for name in names
        for suffix in SUFFIXES
        if (folder / f"{name}{suffix}").is_file()
    }
    if not found:
        raise ConfigError(
            f"weights_dir={folder}: has no file for any of the backbones; they are called like "
            f"{names[0]}{SUFFIXES[0]} ({', '.join(SUFFIXES)})"
        )
    return found


def command(wish: Wish, name: str) -> str:
    """What trains one of them with the settings that were given."""
    return shlex.join(["python", "train.py", *wish.others, *wish.chosen[name]])


def measure(name: str, cfg: DictConfig, backbone: Backbone) -> tuple[Scored, Probe]:
    """One pass over the photos, then all scores."""
    subject = subject_of(cfg, backbone)
    run = subject.runner()
    features, labels = subject.features(run)  # (N, D)
    probed = probe(features, labels)
    knn, neighbours = nearest(features, labels)
    size = backbone.input_spec.size
    fast = speed(run, size=size, width=backbone.out_features,
                 classes=len(subject.data.classes), batch_size=cfg.data.batch_size)  # fmt: skip
    parameters = sum(parameter.numel() for parameter in backbone.body.parameters())
    scored = Scored(
        name, backbone.weights, size, parameters, backbone.out_features, probed.accuracy,
        probed.error, knn, neighbours, logme(features, labels), fast.forward, fast.training,
    )  # fmt: skip
    return scored, probed
