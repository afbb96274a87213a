"""Random numbers as a pure function of (seed, place in the run), so a resumed run repeats them.

Order and views of the photos go by (seed, epoch), dropout and mixing by (seed, step, rank).
"""

import numpy as np
import torch

Key = tuple[int, int | None]  # (index of the photo, seed of its view; None: the evaluation view)


def derive(seed: int, *position: int) -> int:
    """A 32-bit seed for one place in the run; near positions give unrelated seeds.

    32 bits because torch's CPU generator (mt19937) reads no more of its seed than that.
    """
    return int(np.random.SeedSequence((seed, *position)).generate_state(1)[0])


def seed_generators(seed: int) -> None:
    """Sets torch's generators, of the CPU and of the GPUs that are in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # else torch would queue calls that are never freed
        torch.cuda.manual_seed_all(seed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
