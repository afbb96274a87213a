"""Every metric against its definition, written out in a line or two of numpy."""

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_accuracy(classes: int) -> None:
    probabilities, labels = draw(classes)
    assert measured(probabilities, labels)["val/acc"] == pytest.approx(
        (probabilities.argmax(1) == labels).mean()
    )


@pytest.mark.parametrize("classes", [2, 5, 8])
def test_accuracy_among_the_best_five(classes: int) -> None:
    """All are, where there are no more classes than that."""
    probabilities, labels = draw(classes)
    best = np.argsort(-probabilities, axis=1)[:, :5]
    expected = (best == labels[:, None]).any(1).mean()
    assert measured(probabilities, labels)["val/acc_top5"] == pytest.approx(expected)
    assert (expected == 1) == (classes <= 5)


@pytest.mark.parametrize("absent", [None, 3])
def test_mean_accuracy_of_the_classes(absent: int | None) -> None:
    """A class without photos in the split does not count, neither as 0 nor as 1."""
    probabilities, labels = draw(5, absent=absent)
    right = probabilities.argmax(1) == labels
    expected = np.mean([right[labels == label].mean() for label in np.unique(labels)])
    assert measured(probabilities, labels)["val/acc_macro"] == pytest.approx(expected)
    assert (probabilities.argmax(1) == 3).any()  # so an absent class is predicted too


def test_f1() -> None:
    probabilities, labels = draw(5)
    best = probabilities.argmax(1)
    expected = [
        2 * ((best == label) & (labels == label)).sum()
        / ((best == label).sum() + (labels == label).sum())
        for label in range(5)
    ]  # fmt: skip
    assert measured(probabilities, labels)["val/f1"] == pytest.approx(np.mean(expected))


def test_loss_and_calibration_error_by_hand() -> None:
    """Three photos at 0.9, two right; one at 0.6, right: 3/4 |2/3 - 0.9| + 1/4 |1 - 0.6|."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    expected = 0.75 * (0.9 - 2 / 3) + 0.25 * 0.4
    values = measured(np.log(probabilities), labels, batch=3)  # a softmax gives these again
    assert values["val/ece_uncalibrated"] == pytest.approx(expected)
    assert values["val/loss"] == pytest.approx(-np.log([0.9, 0.1, 0.9, 0.6]).mean())


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


def test_callbacks_that_are_off_stay_off() -> None:
    assert monitor_modes(None, monitor="val/acc", validates=True) == {}
    assert monitor_modes({"progress": None}, monitor="val/acc", validates=True) == {
        "progress": None
    }


def test_without_validation_photos_checkpoints_go_by_nothing() -> None:
    nodes = monitor_modes({"checkpoint": CHECKPOINT}, monitor="val/acc", validates=False)
    assert nodes["checkpoint"] == {**CHECKPOINT, "monitor": None}


def test_without_validation_photos_nothing_stops_early() -> None:
    with pytest.raises(ConfigError, match=r"early_stopping\.monitor=val/loss: .*val_fraction=0\.2"):
        monitor_modes({"early_stopping": STOP}, monitor="val/acc", validates=False)


@pytest.mark.parametrize(
    "monitor", ["val/accuracy", "test/acc", "train/loss", "acc", "val/", "val/temperature"]
)
@pytest.mark.parametrize("validates", [True, False])
def test_a_metric_that_is_not_there(monitor: str, validates: bool) -> None:
    with pytest.raises(ConfigError) as error:
        monitor_modes(
            {"checkpoint": {**CHECKPOINT, "monitor": monitor}}, monitor="val/acc",
            validates=validates,
        )  # fmt: skip
    assert str(error.value).startswith(f"callbacks.checkpoint.monitor={monitor}: allowed is val/")
    assert str(error.value).endswith(
        "val/loss, val/acc, val/acc_top5, val/acc_macro, val/f1, val/ece, val/ece_uncalibrated"
    )


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
