"""Curves by epoch: of one run, and of several."""

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from thaw.report.curves import draw_curves, draw_mean, draw_rates

HISTORY = [
    {"epoch": epoch, "phase": "frozen" if epoch < 3 else "unfrozen", "train/loss": 2 - epoch / 4,
     "train/acc": epoch / 4, "val/loss": 2 - epoch / 5, "val/acc": epoch / 5}
    for epoch in range(1, 5)
]  # fmt: skip


def test_curves_have_a_line_at_each_unfreeze() -> None:
    figure = draw_curves(HISTORY, (2, 3))
    for axes, metric in zip(figure.axes, ("loss", "acc"), strict=True):
        lines: dict[Any, list] = {}
        for line in axes.lines:
            lines.setdefault(str(line.get_label()).strip("_"), []).append(line)
        # between the last frozen epoch and the first unfrozen one
        assert [set(line.get_xdata()) for line in lines["unfreeze"]] == [{2.5}, {3.5}]
        shown = [text.get_text() for text in axes.get_legend().get_texts()]
        assert shown == ["train", "val", "unfreeze"]  # each once
        for split in ("train", "val"):
            (line,) = lines[split]
            assert list(line.get_xdata()) == [1, 2, 3, 4]
            assert list(line.get_ydata()) == [row[f"{split}/{metric}"] for row in HISTORY]


def test_curves_without_validation_or_unfreeze() -> None:
    row = {name: value for name, value in HISTORY[0].items() if not name.startswith("val/")}
    figure = draw_curves([row])
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [["train"]] * 2


def test_a_run_that_diverged_has_gaps() -> None:
    """history.json holds null there."""
    rows = [{"epoch": 1, "train/loss": 2.0, "train/acc": None},
            {"epoch": 2, "train/loss": None, "train/acc": None}]  # fmt: skip
    loss, acc = draw_curves(rows).axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[2.0, None]]
    assert not acc.lines


def test_a_panel_of_its_own_for_a_metric() -> None:
    (axes,) = draw_curves(HISTORY, (2,), ["acc"]).axes
    assert axes.get_ylabel() == "accuracy"


def test_rates_of_all_groups() -> None:
    """None while a group is frozen; the legend names the first and the last that trains."""
    rates = [
        {"never": 0.0, "stem": 0.0, "deep": 0.0, "head": 0.1},
        {"never": 0.0, "stem": 0.01, "deep": 0.02, "head": 0.04},
    ]
    rows = [{"epoch": epoch, "rates": each} for epoch, each in enumerate(rates, 1)]
    (axes,) = draw_rates(rows, (1,)).axes
    drawn: dict[str, Any] = {str(line.get_label()): line.get_ydata() for line in axes.lines}
    assert set(drawn) == {"stem", "_deep", "head", "unfreeze"}
    assert list(drawn["head"]) == [0.1, 0.04]
    assert drawn["stem"].tolist() == [None, 0.01]
    assert drawn["_deep"][1] == 0.02
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "stem", "head", "unfreeze",
    ]  # fmt: skip
    assert axes.get_yscale() == "log"


def test_a_mean_with_a_band_of_one_standard_deviation() -> None:
    """Against numpy; an epoch that one run did not reach has neither its share nor a band."""
    values = np.array([[0.1, 0.3, 0.5], [0.2, 0.7, 0.6]])
    histories = [
        [{"epoch": epoch, "val/acc": float(value)} for epoch, value in enumerate(row, 1)]
        for row in values
    ]
    histories[1].pop()
    axes = Figure().subplots()
    draw_mean(axes, histories, "val/acc", "o-", "tab:blue", "val")
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1, 2, 3]
    assert list(line.get_ydata()) == pytest.approx([*values[:, :2].mean(0), 0.5])
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    for epoch in (1, 2):
        mean, std = values[:, epoch - 1].mean(), values[:, epoch - 1].std(ddof=1)
        edges = corners[corners[:, 0] == epoch][:, 1]
        assert {round(float(edge), 9) for edge in edges} == {
            round(mean - std, 9), round(mean + std, 9),
        }  # fmt: skip
    assert corners[:, 0].max() == 2


def test_epochs_without_a_finite_value_are_gaps() -> None:
    histories = [[{"epoch": 1, "val/acc": 0.5}, {"epoch": 2}, {"epoch": 3, "val/acc": math.inf},
                  {"epoch": 4, "val/acc": math.nan}]]  # fmt: skip
    axes = Figure().subplots()
    draw_mean(axes, histories, "val/acc", "o-", "tab:blue", "val")
    drawn: Any = axes.lines[0].get_ydata()
    assert drawn.mask.tolist() == [False, True, True, True]
    draw_mean(axes, histories, "train/acc", "o-", "tab:blue", "train")
    assert len(axes.lines) == 1
