"""How many worker processes to load photos with."""

import os

# 8 workers decode and crop some 4,000 photos of 500 x 375 a second (500 each, measured), more than
# one GPU trains on (assumption). Each takes a few hundred MB.
MAX_WORKERS = 8
# An epoch of fewer photos decodes in about a second; starting processes costs more, most of all
# where they are spawned and import torch again (macOS, Windows: seconds each).
FEW_PHOTOS = 512


def usable_cpus() -> int:
    """CPUs this process may run on; containers are often allowed fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_workers(photos: int, devices: int, *, on_cpu: bool) -> int:
    """Workers for each of `devices` training processes on this machine.

    One per usable CPU if a GPU trains. If the CPU trains, half of that: decoding takes about a
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
