"""Lightning's EarlyStopping, for runs with a frozen phase."""

from typing import cast

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping

from thaw.training.module import TransferModule


class StopEarly(EarlyStopping):
    """Lightning's EarlyStopping from the last phase on: a frozen body is at its best too soon."""

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        module = cast(TransferModule, trainer.lightning_module)
        if trainer.current_epoch >= module.plan.phases[-1].start:
            super()._run_early_stopping_check(trainer)
