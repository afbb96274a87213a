"""What callbacks=early_stopping adds."""

from typing import Any

from lightning.pytorch.callbacks import EarlyStopping


class StopEarly(EarlyStopping):
    """Lightning's EarlyStopping from the last phase on: a frozen body is at its best too soon."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # with the patience that is set now; a run that goes on is not stopped any more
        super().load_state_dict({**state_dict, "patience": self.patience, "stopped_epoch": 0})

    def _run_early_stopping_check(self, trainer: Any) -> None:
        if trainer.current_epoch >= trainer.lightning_module.plan.phases[-1].start:
            super()._run_early_stopping_check(trainer)
