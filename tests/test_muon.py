"""Muon: convolutions take torch.optim.Muon's steps, all else AdamW's."""

from typing import Any

import pytest
import torch
from torch import nn

from thaw.finetune.muon import Muon, orthogonal

SETTINGS = {"lr": 0.01, "weight_decay": 0.1}


def steps(optimizer: torch.optim.Optimizer, weight: nn.Parameter, number: int = 4) -> torch.Tensor:
    for seed in range(number):
        generator = torch.Generator().manual_seed(seed)
        weight.grad = torch.randn(weight.numel(), generator=generator).view_as(weight)
        optimizer.step()
    return weight.detach().flatten(min(1, weight.ndim - 1))


@pytest.mark.parametrize("shape", [(24, 16, 1, 1), (6, 4, 3, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_goes_as_a_matrix_by_torchs_muon(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    """Which computes in bfloat16, so the last digits differ."""
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (
        nn.Parameter(start.clone(memory_format=layout)),
        nn.Parameter(start.flatten(1).clone()),
    )
    made = Muon([{"params": [ours], "lr": 0.01}], weight_decay=0.1)
    known = torch.optim.Muon([theirs], **SETTINGS, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    moved = (steps(made, ours) - start.flatten(1)).abs().mean()
    assert moved > 0.003
    assert (ours.detach().flatten(1) - steps(known, theirs)).abs().mean() < 0.02 * moved
    assert ours.grad is None


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (8, 5), (8,)], ids=["depthwise", "linear", "bias"])
def test_all_else_goes_by_adamw(shape: tuple[int, ...]) -> None:
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    group: dict[str, Any] = {"params": [ours], "lr": 0.01}
    steps(Muon([group], weight_decay=0.1), ours)
    steps(torch.optim.AdamW([theirs], **SETTINGS), theirs)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(40, 10), (10, 40), (9, 9)])
def test_singular_values_become_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.6
    assert values.max() < 1.3
    rotated = left.T @ orthogonal(matrix) @ right.T  # diagonal: the vectors are the same
    assert (rotated - rotated.diagonal().diag()).abs().max() < 1e-3
