"""An optimiser: AdamW, with orthogonal steps for the weights of convolutions (Muon)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW


class Muon(AdamW):
    """AdamW in which the weights of convolutions, (O, I, H, W) with I > 1, go by Muon.

    Their running mean of gradients, of which `momentum` (0-1) stays at each step, is made an
    orthogonal matrix (O, I x H x W), so that all directions in it are learned alike (Jordan 2024,
    kellerjordan.github.io/posts/muon). Times 0.2 x sqrt(longer side) it is as large as a step of
    AdamW, so that its rates fit (arXiv:2502.16982, section 2.2). torch.optim.Muon takes matrices.
    """

    def __init__(
        self, params: list[dict[str, Any]], *, momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.05, fused: bool = False,
    ) -> None:  # fmt: skip
        params = [{"momentum": momentum, **group} for group in params]
        super().__init__(params, betas=betas, weight_decay=weight_decay, fused=fused)
        self._step_supports_amp_scaling = False  # or a GradScaler would leave gradients scaled

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.enable_grad():
            loss = closure and closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.ndim == 4 and weight.shape[1] > 1:
                    self._turn(weight, group)
        super().step()
        return loss

    def _turn(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        """A step of one weight; takes its gradient, so that AdamW leaves it alone."""
        gradient: Any = weight.grad
        state, weight.grad = self.state[weight], None
        if not state:  # AdamW looks for a step in it when it is loaded
            state |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(weight)}
        mean = state["exp_avg"].lerp_(gradient, 1 - group["momentum"])
        step = orthogonal(gradient.lerp(mean, group["momentum"]).flatten(1).float())  # Nesterov's
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        size = 0.2 * max(step.shape) ** 0.5 * group["lr"]
        weight.sub_(step.view(weight.shape), alpha=size)


def orthogonal(matrix: Tensor) -> Tensor:
    """(P, Q) -> a matrix of the same singular vectors, with singular values near 1.

    Jordan's five Newton-Schulz iterations, of the smaller square X X^T alone: half the time.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    square, product = wide @ wide.T, torch.eye(len(wide), device=wide.device)
    for _ in range(5):
        factor = -4.7750 * square + 2.0315 * square @ square
        factor.diagonal().add_(3.4445)
        square, product = factor @ square @ factor, factor @ product
    wide = product @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
