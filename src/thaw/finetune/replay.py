"""Any scheduler of torch as a table: run once on a stand-in, so that it has no state to lose."""

import functools
from typing import Any

import torch

from thaw.errors import ConfigError


def stand_in(lr: float) -> torch.optim.SGD:
    """An optimiser of one parameter for a scheduler to steer; its rate is `lr`."""
    return torch.optim.SGD([torch.zeros(1)], lr=lr, momentum=0.9)


@functools.lru_cache(maxsize=32)
def replay(make: Any, lr: float, moves: int) -> tuple[float, ...]:
    """Share of `lr` before each of `moves` moves of a torch scheduler.

    Args:
        make: optimiser -> scheduler.
        lr: of the stand-in.
        moves: how many.

    Raises:
        ConfigError: it would move the momentum too.
    """
    optimizer = stand_in(lr)
    group = optimizer.param_groups[0]
    scheduler = make(optimizer)
    shares = []
    for _ in range(moves):
        shares.append(float(group["lr"]) / lr)
        optimizer.step()
        scheduler.step()
        if group["momentum"] != 0.9:
            raise ConfigError(
                "scheduler.cycle_momentum=true: has no effect, since thaw takes the rate from the "
                "scheduler and nothing else; set cycle_momentum=false"
            )
    return tuple(shares)
