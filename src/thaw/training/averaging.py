"""An exponential moving average of the weights, through Lightning's WeightAveraging."""

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class EMA(WeightAveraging):
    """Exponential moving average of the weights and of the BatchNorm statistics.

    Validation, the checkpoints and the test use the average, while training goes on from the
    current weights. Both are in every checkpoint, so a resumed run has the same bits.

    `decay` is the share 0-1 of the average that stays at each optimiser step. It is (1 + step) /
    (10 + step) while that is less, so that a short run is not ruled by its first weights
    (TensorFlow's ExponentialMovingAverage with num_updates).
    """

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        super().__init__(use_buffers=True, multi_avg_fn=self._average)

    @torch.no_grad()
    def _average(self, averages: list[Tensor], current: list[Tensor], step: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # BatchNorm's count of batches
            torch._foreach_copy_(averages, current)  # pyright: ignore[reportPrivateImportUsage]
            return
        decay = min(self.decay, (1 + int(step)) / (10 + int(step)))
        # a + w * (b - a): where a equals b, as in a frozen body, the result is a to the bit
        torch._foreach_lerp_(averages, current, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
