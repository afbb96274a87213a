"""Averages of the weights over training, through Lightning's WeightAveraging.

Validation, checkpoints and the test then use the average; training goes on from the current
weights. Both are in every checkpoint, so a resumed run has the same bits.

Lightning's own EMAWeightAveraging computes decay * a + (1 - decay) * a, which moves the frozen body
by rounding; and its StochasticWeightAveraging replaces the plan's layer-wise rates by one rate.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging, WeightAveraging
from torch import Tensor

from thaw.errors import ConfigError, shown
from thaw.finetune.plan import Plan


class EMA(WeightAveraging):
    """Exponential moving average of the weights and of the BatchNorm statistics.

    Attributes:
        decay: share 0-1 of the average that stays at each step, once 10 / (1 - decay) steps are
            done; before, (1 + step) / (10 + step), so that a short run is not ruled by the random
            weights it began with (as in TensorFlow's ExponentialMovingAverage with num_updates).
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 < decay < 1:
            raise ConfigError(
                f"decay={decay} of an EMA (as callbacks.ema.decay): allowed is above 0 to below 1"
            )
        self.decay = decay
        super().__init__(use_buffers=True, multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(
        self, averages: list[Tensor], current: list[Tensor], averaged: Tensor | int
    ) -> None:
        done = int(averaged)
        decay = min(self.decay, (1 + done) / (10 + done))
        if not averages[0].is_floating_point():  # BatchNorm's count of batches
            torch._foreach_copy_(averages, current)  # pyright: ignore[reportPrivateImportUsage]
            return
        # a + w * (b - a): with equal a and b, as in a frozen body, a to the bit
        torch._foreach_lerp_(averages, current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


class SWA(WeightAveraging):
    """Mean of the weights at the end of each epoch from `start_epoch` on (arXiv:1803.05407).

    BatchNorm statistics are averaged too, instead of counted anew in a pass over the photos.

    Attributes:
        start_epoch: first epoch whose end counts; None: the last phase's second half, two epochs
            at least.
    """

    def __init__(self, start_epoch: int | None = None) -> None:
        self.start_epoch = start_epoch
        super().__init__(use_buffers=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any,
        batch: Any, batch_idx: int,
    ) -> None:  # fmt: skip
        """At an epoch's last step, so before it is validated."""
        if not trainer.is_last_batch:
            return
        assert self._average_model is not None
        plan = pl_module.plan
        assert isinstance(plan, Plan)
        if trainer.current_epoch <= self.start(plan):
            self._average_model.n_averaged.zero_()  # the next one is taken as it is
        self._average_model.update_parameters(pl_module)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Never: `on_train_batch_end` does it."""
        return False

    def start(self, plan: Plan) -> int:
        """First epoch whose end counts."""
        if self.start_epoch is not None:
            return self.start_epoch
        last = plan.phases[-1]
        return min(last.start + last.epochs // 2, last.end - 2)


def check_averaging(name: str, callback: Callback, plan: Plan) -> None:
    """Refuses averages that do nothing or break the plan.

    Raises:
        ConfigError: names the setting.
    """
    if isinstance(callback, StochasticWeightAveraging):
        raise ConfigError(
            f"callbacks.{name}=StochasticWeightAveraging: it replaces the rates of all layer "
            "groups by one; use callbacks=swa"
        )
    first, end = plan.phases[-1].start, plan.phases[-1].end
    if isinstance(callback, SWA) and not first <= callback.start(plan) <= end - 2:
        raise ConfigError(
            f"callbacks.{name}.start_epoch={shown(callback.start_epoch)}: the mean is of two or "
            f"more epochs of the last phase, which has epochs {first} to {end - 1}; allowed is "
            f"{first} to {end - 2}"
        )
