"""How fast a body runs here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from thaw.features.extraction import Runner, autocast

SECONDS = 1.0  # that each measurement takes at least, after a first round that does not count
ROUNDS = 3  # at least
CPU_BATCH = 16  # images at most on a CPU, where larger batches are no faster


@dataclass(frozen=True)
class Speed:
    """Images a second; medians.

    Attributes:
        forward: of a forward pass of the frozen body, as for features, validation, prediction.
        training: of a whole training step of body and head: forward, backward, AdamW.
    """

    forward: float
    training: float


def speed(run: Runner, *, size: int, width: int, classes: int, batch_size: int) -> Speed:
    """Measures a body on drawn noise: decoding is not in it. Changes its BatchNorm statistics.

    Args:
        run: the body.
        size: of the input, pixels.
        width: D.
        classes: K of a linear head.
        batch_size: images at once.
    """
    number = min(batch_size, CPU_BATCH) if run.device.type == "cpu" else batch_size
    number = max(number, 2)  # BatchNorm
    generator = torch.Generator().manual_seed(0)
    shape = (number, 3, size, size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(classes, (number,), generator=generator).to(run.device)
    forward = number / _seconds(lambda: run(images), run.device)
    head = nn.Linear(width, classes).to(run.device)
    for parameter in run.body.parameters():
        parameter.requires_grad_(True)
    # one kernel for all, as train.py has it; at rate 0 nothing runs away
    weights = [*run.body.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=0.0, fused=run.device.type != "mps")

    def step() -> None:
        with autocast(run.precision, run.device):
            scores: Tensor = head(run.body(run.prepare(images)))
            loss = functional.cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    run.body.train()
    try:
        training = number / _seconds(step, run.device)
    finally:
        run.body.eval()
    return Speed(forward, training)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one call, median."""

    def once() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - began

    once()
    taken: list[float] = []
    while len(taken) < ROUNDS or sum(taken) < SECONDS:
        taken.append(once())
    return median(taken)
