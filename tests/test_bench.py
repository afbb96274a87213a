"""What benchmarks/ decides by itself: which rates to try, which runs stand in which table."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """Imports one of benchmarks/ by its name, as its scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def finish(tune: ModuleType, accuracy) -> dict:
    """All runs of a peer, where a place's validation accuracy is `accuracy(place)`."""
    runs: dict = {}
    while places := tune.missing(runs):
        runs[places[0]] = accuracy(places[0])
    return runs


def test_the_grid_is_three_by_three_around_the_page_s_values(module):
    tune = module("tune")
    runs = finish(tune, lambda place: 1.0 if place == (0, 0) else 0.5)
    assert next(iter(runs)) == (0, 0)
    assert set(runs) == {(head, body) for head in (-1, 0, 1) for body in (-1, 0, 1)}
    assert tune.rates("plain", (1, -1)) == (3e-3, 3.33e-5)


def test_the_grid_follows_the_best_until_it_is_in_the_middle(module):
    tune = module("tune")
    runs = finish(tune, lambda place: -((place[0] - 1) ** 2) - (place[1] - 2) ** 2)
    assert tune.best(runs) == (1, 2)
    assert set(tune.around((1, 2))) <= set(runs)
    assert tune.summary("plain", runs)["whole"]


def test_the_grid_ends_three_steps_away(module):
    tune = module("tune")
    runs = finish(tune, sum)
    assert tune.best(runs) == (3, 3)
    assert max(max(map(abs, place)) for place in runs) == 3


def test_a_run_that_failed_is_never_the_best(module):
    tune = module("tune")
    runs = finish(tune, lambda place: None if place[0] == 1 else float(place[1] == 0))
    assert tune.best(runs)[0] != 1
    assert tune.best({(0, 0): None}) is None


def test_what_ran_is_read_back_and_what_failed_runs_again(module, tmp_path):
    tune, file = module("tune"), tmp_path / "runs.jsonl"
    lines = [
        {"peer": "timm", "backbone": "lite0", "place": [0, 1], "val": 0.8},
        {"peer": "timm", "backbone": "lite0", "place": [1, 1], "error": "out of memory"},
        {"peer": "timm", "backbone": "mobilenet_v2", "place": [0, 0], "val": 0.7},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tune.read(file, "lite0") == {"timm": {(0, 1): 0.8}}
    assert (1, 1) in tune.missing(tune.read(file, "lite0")["timm"])


def run_of(system: str, table: str, trained: float) -> dict:
    """A run as bench.py keeps it."""
    seconds = {"frozen": 1.0, "unfrozen": 2.0, "trained": trained, "startup": 0.5}
    return {"system": system, "table": table, "backbone": "lite0", "seed": 0, "val": 0.9,
            "test": 0.8, "seconds": seconds, "others": 0.0, "date": "2026-11-27"}  # fmt: skip


def test_thaw_stands_in_both_tables_and_a_failed_system_in_none(module):
    page = module("bench_page")
    results = {"systems": [
        run_of("thaw", "both", 10), run_of("timm", "page", 25), run_of("timm", "tuned", 35),
        {**run_of("plain", "tuned", 30), "error": "out of memory"},
    ]}  # fmt: skip
    assert set(page.rows_of(results, "lite0", "page")) == {"thaw", "timm"}
    rows = page.rows_of(results, "lite0", "tuned")
    assert set(rows) == {"thaw", "timm"}
    assert "3.5" in page.row("timm", rows["timm"], rows["thaw"])
    assert "out of memory" in page.systems(results, "tuned")
    assert "out of memory" not in page.systems(results, "page")
    ratios = [target.value for target in page.of_systems(results)[::2]]
    assert ratios == [10 / 25, 10 / 35]


def test_a_tuned_body_keeps_its_statistics(module):
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).train()
    module("job").keep_statistics(body)
    before = body[1].running_mean.clone()
    body(torch.rand(2, 3, 4, 4))
    assert torch.equal(body[1].running_mean, before)
    assert body[2].training  # only BatchNorm is in eval mode


def test_peers_without_tuned_rates_are_named(module, monkeypatch, tmp_path):
    runs = module("bench_runs")
    monkeypatch.setattr(runs, "HERE", tmp_path)
    (tmp_path / "tuned.json").write_text(
        '{"lite0": {"timm": {"head_rate": 0.002, "body_rate": 0.003}}}'
    )
    assert runs.tuned_rates("lite0", "timm") == (0.002, 0.003)
    assert runs.lacking_rates(["lite0"], ["timm"]) == ""
    said = runs.lacking_rates(["lite0", "mobilenet_v2"], ["timm"])
    assert "timm for mobilenet_v2" in said
    assert "tune.py" in said
    assert "timm for lite0" not in said
