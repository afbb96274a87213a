"""What `thaw probe` does with features: scikit-learn's classifiers, and which layers to train."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from joblib import parallel_config
from sklearn import linear_model, model_selection, neighbors, pipeline, preprocessing, svm
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from thaw.backbones import tracing
from thaw.backbones.backbone import Backbone
from thaw.errors import check
from thaw.training.metrics import Calibration

Table = tuple[Tensor, Tensor]  # features (N, D) and labels (N,)

# What cross-validation chooses from: C is the inverse strength of the regularisation. Features are
# standardised, so the same decades suit all backbones.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "logistic": {"of__C": [1e-4, 1e-3, 1e-2, 0.1, 1]},
    "svm": {"of__C": [1e-5, 1e-4, 1e-3]},
    "knn": {"of__n_neighbors": [1, 3, 5, 10, 20]},
}
# Photos a class from which fine-tuning pays. In our runs features alone were better at 2 and 5, as
# good at 8, and worse by 0 to 11 points at 10 (demo, Flowers102); see also arXiv:2205.07874.
ENOUGH = 10
# Photos are near to what the backbone knows where the last layer avoids this share of the errors of
# the best earlier one (arXiv:1411.1792). A guess from MobileNetV2 and SqueezeNet.
NEAR = 0.25


class Fitted(NamedTuple):
    """A classifier, accuracies 0-1 on held-out training photos and on validation photos."""

    model: Any  # scikit-learn's pipeline, fitted to all training photos
    cross_validated: float
    val: float | None

    @property
    def score(self) -> float:
        return self.cross_validated if self.val is None else self.val


def fit(name: str, train: Table, val: Table | None = None, *, seed: int) -> Fitted:
    """Fits a classifier of GRIDS to standardised features; its setting is chosen by three folds."""
    most = int(train[1].bincount().max())
    allowed = "3 or more; add photos, or set data.val_fraction lower or data.train_per_class higher"
    check(most >= 3, "training photos of the largest class", most, allowed)
    # One SVM a class: a finer tolerance takes minutes at 102 classes and changes no accuracy
    classifier: Any = {
        "logistic": linear_model.LogisticRegression(max_iter=300, tol=1e-3),
        "svm": svm.LinearSVC(dual="auto", tol=1e-2, max_iter=100, random_state=seed),
        "knn": neighbors.KNeighborsClassifier(weights="distance"),
    }[name]
    steps = pipeline.Pipeline([("scaler", preprocessing.StandardScaler()), ("of", classifier)])
    folds = model_selection.StratifiedKFold(3, shuffle=True, random_state=seed)
    search: Any = model_selection.GridSearchCV(steps, GRIDS[name], cv=folds)
    with warnings.catch_warnings(), parallel_config("threading", n_jobs=-1), threadpool_limits(1):
        warnings.simplefilter("ignore")  # fewer photos than folds; a weak C does not converge
        search.fit(train[0].numpy(), train[1].numpy())
    accuracy = None if val is None else float(search.score(val[0].numpy(), val[1].numpy()))
    return Fitted(search.best_estimator_, float(search.best_score_), accuracy)


def linear_head(model: Any, val: Table | None = None) -> tuple[nn.Linear, float]:
    """A linear pipeline as one layer, and the temperature of its scores (1 without validation)."""
    scaler, linear = model["scaler"], model["of"]
    weight, bias = torch.tensor(linear.coef_).double(), torch.tensor(linear.intercept_).double()
    if len(weight) == 1:  # two classes share one score, that of the second
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    weight /= torch.tensor(scaler.scale_)
    head = nn.Linear(weight.shape[1], len(weight)).requires_grad_(False)
    head.weight.copy_(weight)
    head.bias.copy_(bias - weight @ torch.tensor(scaler.mean_))
    return head, 1.0 if val is None else float(Calibration()(head(val[0]), val[1])["temperature"])


def way(counts: Tensor, accuracies: Mapping[str, float]) -> tuple[str, list[str]]:
    """Which of the four classic ways of transfer fits, in one sentence, and the settings for it.

    CS231n (https://cs231n.github.io/transfer-learning/) asks how many photos there are, and how
    near they are to what the backbone knows. Here `counts`, of each class, and `accuracies`, of
    each layer group, stem first, answer.
    """
    names, per_class = list(accuracies), int(counts.median())
    last = accuracies[names[-1]]
    best = max(names[:-1], key=lambda name: accuracies[name])
    above, half = len(names) - 1 - names.index(best), len(names) // 2
    few, near = per_class < ENOUGH, 1 - last <= (1 - NEAR) * (1 - accuracies[best])
    if few:  # features of an earlier layer must be better by two standard errors
        near = accuracies[best] - last <= 2 * (2 * last * (1 - last) / int(counts.sum())) ** 0.5
    advice, words = {
        (True, True): ("use the features as they are", ["finetune=feature_extraction"]),
        (True, False): (f"train anew what is above {best}",
                        ["finetune=partial", f"finetune.top={above}"]),
        (False, True): ("fine-tune the top", ["finetune=partial", f"finetune.top={half}"]),
        (False, False): ("fine-tune everything", ["finetune=freeze_unfreeze"]),
    }[few, near]  # fmt: skip
    return (
        f"advice    {advice}: {per_class} photos a class are {'few' if few else 'enough'} "
        f"(fine-tuning pays from about {ENOUGH}), and the last layer is right in {last:.1%}, "
        f"{best} in {accuracies[best]:.1%}."
    ), words


class LayerOutputs(nn.Module):
    """Images (N, 3, H, W) -> (N, D1 + D2 + ...), the output of each layer group, stem first.

    The output of a group is that of its last module to run for the first time, averaged over places
    or tokens; the last part is what the body gives a head.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = backbone.body
        self.group_of = {name: group.name for group in backbone.groups for name in group.modules}
        self.last = backbone.groups[-1].name
        self.layers: dict[str, int] = {}  # group -> D; a group that gives no tensor is left out
        tracing.run_without_data(self, backbone.input_spec.size)

    def forward(self, images: Tensor) -> Tensor:
        parts, ran = dict[str, Tensor](), set[str]()

        def note(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim > 1 and name not in ran:
                ran.add(name)
                parts[self.group_of[name]] = pooled(output)

        hooks = [self.body.get_submodule(name).register_forward_hook(partial(note, name))
                 for name in self.group_of]  # fmt: skip
        parts[self.last] = self.body(images)
        for hook in hooks:
            hook.remove()
        self.layers = {name: part.shape[1] for name, part in parts.items()}
        return torch.cat(list(parts.values()), 1)


def pooled(output: Tensor) -> Tensor:
    """Mean over places: (N, C, H, W) with H = W, (N, H, W, C), (N, T, C) or (N, C) -> (N, C)."""
    if output.ndim == 4:
        return output.mean((2, 3) if output.shape[2] == output.shape[3] else (1, 2))
    return output.mean(1) if output.ndim == 3 else output
