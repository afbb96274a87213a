"""How many workers prepare photos: what suits the machine."""

import os
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # `thaw predict` reads this module, and does without Lightning
    from lightning import Trainer

# 8 workers decode and crop some 4,000 photos of 500 x 375 a second (500 each, measured here), more
# than one GPU trains on (assumption). Each holds a few hundred MB; and a container on a machine of
# 64 cores is often allowed fewer than it sees.
MAX_WORKERS = 8

# Below this many photos an epoch decodes in about a second: starting processes costs more,
# most of all where they are spawned and import torch anew (macOS, Windows: seconds each).
FEW_PHOTOS = 512


def usable_cpus() -> int:
    """CPUs this process may run on: affinity where the system knows it (not on macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def computes_on_cpu(trainer: "Trainer | None") -> bool:
    """Whether the network trains on the CPU; without a trainer, whether it would."""
    if trainer is None:
        return not (torch.cuda.is_available() or torch.backends.mps.is_available())
    return trainer.strategy.root_device.type == "cpu"


def choose_workers(photos: int, devices: int, *, on_cpu: bool) -> int:
    """Workers for each of `devices` training processes on this machine.

    One per usable CPU where a GPU computes. Without one, half of them: decoding takes about a
    tenth of a step then, and more workers take the cores from the network's own threads
    (MobileNetV2 at 128 pixels, 2 cores, frozen: 73 images/s with two workers, 91 with one; one run
    each on a noisy machine).
    """
    if photos < FEW_PHOTOS:
        return 0
    cpus = usable_cpus() // max(1, devices)
    if on_cpu:
        cpus //= 2
    return max(1, min(MAX_WORKERS, cpus))
