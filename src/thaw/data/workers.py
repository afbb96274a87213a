"""How many worker processes to load photos with."""

import os

MAX_WORKERS = 8  # they decode some 4,000 photos of 500 x 375 a second: enough for one GPU
FEW_PHOTOS = 512  # decoded in about a second: starting processes would take longer


def usable_cpus() -> int:
    """CPUs this process may run on; containers are often allowed fewer than the machine has."""
    on_linux = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1


def choose_workers(photos: int, devices: int, *, on_cpu: bool) -> int:
    """Workers for each of `devices` training processes: one per CPU, half where the CPU trains."""
    if photos < FEW_PHOTOS:
        return 0
    cpus = usable_cpus() // max(1, devices) // (2 if on_cpu else 1)
    return max(1, min(MAX_WORKERS, cpus))
