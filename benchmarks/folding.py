"""Seconds of a training step with BatchNorm as it is and inside the convolutions (folding.py).

    OMP_NUM_THREADS=1 python benchmarks/folding.py
    python benchmarks/folding.py --device cuda --batch 256 --size 224 resnet50

Of timm's models with random weights, BatchNorm in eval mode, both ways in turn: forward, backward
and AdamW; bf16 on a GPU. On a CPU it is the seconds that the process computes, so that other work
on the machine counts little. Prints a table.
"""

import argparse
import time
from contextlib import nullcontext
from statistics import median
from typing import Any

import timm
import torch
from torch import nn, optim
from torch.nn import functional

from thaw.backbones.folding import fold
from thaw.training.device import keep_freed_memory

NAMES = ("tf_efficientnet_lite0", "mobilenetv2_100", "resnet18", "resnet50", "efficientnet_b0",
         "mobilenetv3_large_100", "regnety_004", "mnasnet_100", "densenet121")  # fmt: skip
WARM_UP, COUNTED, CLASSES = 2, 7, 102


def measure(name: str, given: argparse.Namespace) -> list[float]:
    """Seconds of a step, plain and folded."""
    model: Any = timm.create_model(name, num_classes=CLASSES).to(given.device).train()
    model = model.to(memory_format=torch.channels_last)
    for layer in model.modules():
        layer.train(not isinstance(layer, nn.BatchNorm2d))
    images = torch.rand(given.batch, 3, given.size, given.size, device=given.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (given.batch,), device=given.device)
    optimiser = optim.AdamW(model.parameters(), 1e-6)
    on_gpu = given.device == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    contexts, seconds = (nullcontext, fold(model, images)), ([], [])
    for _ in range(WARM_UP + COUNTED):
        for context, times in zip(contexts, seconds, strict=True):
            began = clock()
            optimiser.zero_grad()
            with torch.autocast(given.device, torch.bfloat16, enabled=on_gpu), context():
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
    print("| model | s a step | folded | ratio |\n|---|---|---|---|")
    for name in given.names:
        plain, folded = measure(name, given)
        print(f"| {name} | {plain:.3f} | {folded:.3f} | {folded / plain:.2f} |", flush=True)


if __name__ == "__main__":
    main()
