"""Seconds of an unfrozen training step: BatchNorm as it is, folded, and depthwise filters frozen.

    OMP_NUM_THREADS=1 python benchmarks/folding.py
    python benchmarks/folding.py --device cuda --batch 256 --size 224 resnet50

Of timm's models with random weights, BatchNorm in eval mode, all ways in turn: forward, backward
and thaw's optimiser; bf16 on a GPU. "folded" computes BatchNorm inside the convolutions
(backbones/folding.py), "default" does so too and freezes the depthwise ones
(finetune.depthwise=frozen).
With one thread on a CPU it is the seconds that the process computes, so that other work on the
machine counts little. Prints a table.
"""

import argparse
import os
import time
from statistics import median

import torch
from torch import nn
from torch.nn import functional

from thaw.backbones.timm_backbone import timm_backbone
from thaw.classifier import Classifier
from thaw.finetune.muon import Muon
from thaw.finetune.rates import parameter_groups
from thaw.training.device import keep_freed_memory

NAMES = ("tf_efficientnet_lite0", "mobilenetv2_100", "resnet18", "resnet50", "efficientnet_b0",
         "mobilenetv3_large_100", "regnety_004", "mnasnet_100", "densenet121")  # fmt: skip
WARM_UP, COUNTED, CLASSES = 2, 7, 102
WAYS = ((False, "train"), (True, "train"), (True, "frozen"))  # folds, finetune.depthwise


def measure(name: str, given: argparse.Namespace) -> list[float]:
    """Seconds of a step in each way."""
    backbone = timm_backbone(name, None, given.size)
    head = nn.Linear(backbone.out_features, CLASSES)
    model = Classifier(backbone, head).to(given.device)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.rand(given.batch, 3, given.size, given.size, device=given.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (given.batch,), device=given.device)
    rates = dict.fromkeys(model.group_names, 1e-6)
    groups = parameter_groups(model, [rates])
    optimiser = Muon([{**group, "lr": 1e-6} for group in groups])
    on_gpu = given.device == "cuda"
    one_thread = not on_gpu and os.environ.get("OMP_NUM_THREADS") == "1"
    clock = time.process_time if one_thread else time.perf_counter
    seconds: list[list[float]] = [[] for _ in WAYS]
    for _ in range(WARM_UP + COUNTED):
        for (folds, depthwise), times in zip(WAYS, seconds, strict=True):
            model.fold = backbone.fold if folds else None
            model.set_trainable(model.group_names, "eval", depthwise)
            began = clock()
            optimiser.zero_grad()
            with torch.autocast(given.device, torch.bfloat16, enabled=on_gpu):
                loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()
            if on_gpu:
                torch.cuda.synchronize()
            times.append(clock() - began)
    return [median(times[WARM_UP:]) for times in seconds]


def main() -> None:
    """Prints a row for each model."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128, help="pixels")
    given = parser.parse_args()
    keep_freed_memory()  # as train.py does
    print("| model | plain, s a step | folded | default | folded / plain | default / plain |")
    print("|---|---|---|---|---|---|")
    for name in given.names:
        plain, folded, default = measure(name, given)
        shares = f"{folded / plain:.2f} | {default / plain:.2f}"
        print(f"| {name} | {plain:.3f} | {folded:.3f} | {default:.3f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
