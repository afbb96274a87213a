"""Any scheduler of torch as a table: it runs once on a stand-in, so it has no state to lose."""

import functools
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from thaw.errors import ConfigError, shown

EXAMPLE = "{_target_:torch.optim.lr_scheduler.StepLR,_partial_:true,step_size:2}"


def total_steps(make: Any, lr: float, key: str) -> int | None:
    """Gives the number of moves a scheduler of torch was made for; None where any number is right.

    Args:
        make: Optimiser -> scheduler, as `_partial_: true` makes it.
        lr: Learning rate of the head.
        key: Where it stands in the configuration, for messages.

    Raises:
        ConfigError: It is no scheduler, needs a metric, or cannot be made.
    """
    kind = getattr(make, "func", None)
    if not (isinstance(kind, type) and issubclass(kind, LRScheduler)):
        raise ConfigError(
            f"{key}={shown(make)}: allowed are constant, step, cosine, plateau, or a scheduler of "
            f"torch, like '{key}={EXAMPLE}'"
        )
    if issubclass(kind, ReduceLROnPlateau):
        raise ConfigError(f"{key}={kind.__name__}: it needs a metric; use {key}=plateau")
    try:
        return getattr(make(_stand_in(lr)), "total_steps", None)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}={kind.__name__}: {error}") from error


@functools.lru_cache(maxsize=32)
def table(make: Any, lr: float, moves: int) -> tuple[float, ...]:
    """Gives the share of `lr` before each of `moves` moves (epochs or steps) of a scheduler.

    Raises:
        ConfigError: The scheduler would move the momentum too, which thaw does not take from it.
    """
    optimizer = _stand_in(lr)
    group = optimizer.param_groups[0]
    scheduler = make(optimizer)
    shares = []
    for _ in range(moves):
        shares.append(float(group["lr"]) / lr)
        optimizer.step()
        scheduler.step()
        if group["momentum"] != 0.9:
            raise ConfigError(
                "cycle_momentum=true of a scheduler: thaw takes the learning rate from it and "
                "nothing else; set cycle_momentum=false"
            )
    return tuple(shares)


def _stand_in(lr: float) -> torch.optim.SGD:
    """An optimiser of one parameter for a scheduler to steer."""
    return torch.optim.SGD([torch.zeros(1)], lr=lr, momentum=0.9)
