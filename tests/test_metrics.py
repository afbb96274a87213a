"""Every metric against its definition, written out in a line or two of numpy."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from thaw.errors import ConfigError
from thaw.report.curves import TITLES
from thaw.training.measures import MODES
from thaw.training.metrics import Scores, monitor_modes

CHECKPOINT = {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "monitor": "val/acc"}
STOP = {"_target_": "thaw.training.early_stopping.StopEarly", "monitor": "val/loss", "patience": 3}


def draw(
    classes: int, photos: int = 60, absent: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) that know something of their labels (N,); no photo of `absent`."""
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, photos)
    if absent is not None:
        labels[labels == absent] = absent - 1
    scores = generator.normal(size=(photos, classes))
    scores[np.arange(photos), labels] += 1
    weights = np.exp(scores)
    return weights / weights.sum(1, keepdims=True), labels


def measured(probabilities: np.ndarray, labels: np.ndarray, batch: int = 7) -> dict[str, float]:
    """By `Scores`, in uneven batches."""
    metrics = Scores(probabilities.shape[1], "val").metrics
    for start in range(0, len(labels), batch):
        metrics.update(
            torch.tensor(probabilities[start : start + batch], dtype=torch.float32),
            torch.tensor(labels[start : start + batch]),
        )
    return {name: float(value) for name, value in metrics.compute().items()}


def test_names_are_those_that_can_be_monitored() -> None:
    names = {name.removeprefix("val/") for name in measured(*draw(6))}
    assert names - {"temperature"} == set(MODES) == set(TITLES)


def of_each_class(best: np.ndarray, labels: np.ndarray) -> float:
    """A class without photos in the split does not count, neither as 0 nor as 1."""
    return np.mean([(best == labels)[labels == label].mean() for label in np.unique(labels)])


def f1(best: np.ndarray, labels: np.ndarray) -> float:
    """Of the classes that have photos or are predicted."""
    return np.mean([
        2 * ((best == label) & (labels == label)).sum()
        / ((best == label).sum() + (labels == label).sum())
        for label in np.union1d(best, labels)
    ])  # fmt: skip


@pytest.mark.parametrize(("classes", "absent"), [(2, None), (5, None), (5, 3), (8, None)])
def test_metrics_are_their_definitions(classes: int, absent: int | None) -> None:
    probabilities, labels = draw(classes, absent=absent)
    found, best = measured(probabilities, labels), probabilities.argmax(1)
    top = np.argsort(-probabilities, axis=1)[:, :5]
    expected = {
        "acc": (best == labels).mean(),
        "acc_top5": (top == labels[:, None]).any(1).mean(),
        "acc_macro": of_each_class(best, labels),
        "f1": f1(best, labels),
        "loss": -np.log(softmax(probabilities, axis=1)[np.arange(len(labels)), labels]).mean(),
    }
    assert {name: found[f"val/{name}"] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_mixed_precision_changes_no_metric() -> None:
    probabilities, labels = draw(5, photos=600)
    plain = measured(probabilities, labels, batch=600)
    with torch.autocast("cpu", torch.bfloat16):
        assert measured(probabilities, labels, batch=600) == plain


@pytest.mark.parametrize(
    ("metric", "mode"), [("loss", "min"), ("ece", "min"), ("acc", "max"), ("f1", "max")]
)
def test_the_mode_follows_from_the_metric(metric: str, mode: str) -> None:
    nodes = {"checkpoint": {**CHECKPOINT, "monitor": f"val/{metric}"}, "rates": {"_target_": "x"}}
    filled = monitor_modes(nodes, monitor=f"val/{metric}", validates=True)
    assert filled["checkpoint"]["mode"] == mode
    assert filled["checkpoint"]["monitor"] == f"val/{metric}"
    assert filled["rates"] == {"_target_": "x"}
    assert "mode" not in nodes["checkpoint"]


def test_an_average_that_replaces_the_rates_is_refused() -> None:
    node = {"_target_": "lightning.pytorch.callbacks.StochasticWeightAveraging", "swa_lrs": 0.1}
    with pytest.raises(
        ConfigError, match=r"callbacks\.mine\._target_=.*StochasticWeightAveraging: .*=ema"
    ):
        monitor_modes({"mine": node}, monitor="val/acc", validates=True)


def test_without_validation_photos_checkpoints_go_by_nothing() -> None:
    nodes = monitor_modes({"checkpoint": CHECKPOINT}, monitor="val/acc", validates=False)
    assert nodes["checkpoint"] == {**CHECKPOINT, "monitor": None}


def test_without_validation_photos_nothing_stops_early() -> None:
    with pytest.raises(ConfigError, match=r"early_stopping\.monitor=val/loss: .*val_fraction=0\.2"):
        monitor_modes({"early_stopping": STOP}, monitor="val/acc", validates=False)


def test_the_best_checkpoint_goes_by_the_metric_of_the_run() -> None:
    other = {"checkpoint": {**CHECKPOINT, "monitor": "val/loss"}}
    with pytest.raises(
        ConfigError, match=r"checkpoint\.monitor=val/loss: .*; set monitor=val/loss"
    ):
        monitor_modes(other, monitor="val/acc", validates=True)
    with pytest.raises(ConfigError, match=r"^monitor=val/temperature: allowed is val/loss"):
        monitor_modes({}, monitor="val/temperature", validates=True)


def test_a_first_batch_that_is_all_right_joins_no_metrics() -> None:
    """torchmetrics would make acc_top5 one with acc from then on, as their counts agree so far."""
    metrics = Scores(3, "val").metrics
    scores = torch.eye(3)
    metrics.update(scores, torch.tensor([0, 1, 2]))
    metrics.update(scores, torch.tensor([1, 2, 0]))
    values = metrics.compute()
    assert (values["val/acc"], values["val/acc_top5"]) == (0.5, 1.0)
