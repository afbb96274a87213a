"""What `thaw probe` does with features: scikit-learn's classifiers, and which layers to train."""

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from thaw.errors import ConfigError

# What cross-validation chooses from: C is the inverse strength of the regularisation, n_neighbors
# the number of neighbours. Features are standardised, so the same decades suit all backbones. A
# larger C of the SVM takes minutes to converge.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "logistic": {"C": [1e-4, 1e-3, 1e-2, 0.1, 1]},
    "svm": {"C": [1e-6, 1e-5, 1e-4, 1e-3]},
    "knn": {"n_neighbors": [1, 3, 5, 10, 20]},
}
FOLDS = 3

# Photos a class from which fine-tuning pays. In our runs features alone were better at 2 and 5, as
# good at 8, and worse by 0 to 11 points at 10 (demo, Flowers102). Few photos favour features, more
# favour fine-tuning, for near and far data alike (arXiv:2205.07874); with all photos of twelve data
# sets fine-tuning is nearly always better (arXiv:1805.08974).
ENOUGH = 10
# Share of the errors of the best earlier layer that the last one must avoid for the photos to be
# near to what the backbone knows, since deeper layers are more specific to that
# (arXiv:1411.1792). A guess from MobileNetV2 and SqueezeNet on pets (near) and flowers (far).
NEAR = 0.25


@dataclass(frozen=True)
class Fitted:
    """A classifier and how good it is.

    Attributes:
        model: scikit-learn's pipeline, fitted to all training photos.
        cross_validated: accuracy 0-1 on training photos that were held out.
        val: accuracy 0-1 on the validation photos; None without any.
        seconds: to choose and to fit it.
    """

    model: Any
    cross_validated: float
    val: float | None
    seconds: float

    @property
    def score(self) -> float:
        """What classifiers are ranked by."""
        return self.cross_validated if self.val is None else self.val


def fit(
    name: str, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor] | None, *, seed: int
) -> Fitted:
    """Fits a classifier to standardised features, its setting chosen by stratified folds.

    Args:
        name: one of GRIDS.
        train, val: features (N, D) and labels (N,).
        seed: of the folds.

    Raises:
        ConfigError: too few photos.
    """
    # Imported here: scikit-learn is an extra, and takes a second
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    counts = [count for count in train[1].bincount().tolist() if count]
    if len(counts) < 2 or max(counts) < FOLDS:
        raise ConfigError(
            f"data: {sum(counts)} training photos of {len(counts)} classes are too few to probe; "
            f"give two classes or more, and {FOLDS} photos or more of one"
        )
    grid = GRIDS[name]
    if name == "knn":
        most = sum(counts) * (FOLDS - 1) // FOLDS
        grid = {"n_neighbors": [number for number in grid["n_neighbors"] if number <= most]}
    classifier: Any = {
        "logistic": lambda: LogisticRegression(max_iter=300, tol=1e-3),
        "svm": lambda: LinearSVC(random_state=seed),
        "knn": lambda: KNeighborsClassifier(weights="distance"),
    }[name]()
    key = type(classifier).__name__.lower()
    search: Any = GridSearchCV(
        make_pipeline(StandardScaler(), classifier),
        {f"{key}__{setting}": values for setting, values in grid.items()},
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
    )
    began = time.perf_counter()
    with warnings.catch_warnings():
        # classes with fewer photos than folds; weak regularisation that does not converge and loses
        warnings.simplefilter("ignore")
        search.fit(*(part.numpy() for part in train))
    seconds = time.perf_counter() - began
    accuracy = None if val is None else float(search.score(*(part.numpy() for part in val)))
    return Fitted(search.best_estimator_, float(search.best_score_), accuracy, seconds)


def way(
    per_class: float, accuracies: Mapping[str, float], *, photos: int
) -> tuple[str, tuple[str, ...]]:
    """Which of the four classic ways of transfer fits, in one sentence, and the settings for it.

    The classic texts (CS231n, https://cs231n.github.io/transfer-learning/) ask how much data there
    is, and how near it is to what the backbone was trained on:

                      near                            far
        few photos    features as they are            features of an earlier layer
        enough        fine-tune the top               fine-tune everything

    Here both questions are asked of measurements.

    Args:
        per_class: training photos of the median class.
        accuracies: layer group -> cross-validated accuracy 0-1 of its output, stem first.
        photos: that these were measured on.
    """
    names = list(accuracies)
    last = accuracies[names[-1]]
    best = max(names[:-1] or names, key=lambda name: accuracies[name])
    errors = 1 - accuracies[best]
    avoided = 1 - (1 - last) / errors if errors else float(last == 1)
    near = len(names) == 1 or avoided >= NEAR
    noise = 2 * (2 * last * (1 - last) / photos) ** 0.5  # two standard errors of a difference
    facts = (
        f"{per_class:g} photos a class are {'few' if per_class < ENOUGH else 'enough'} "
        f"(fine-tuning pays from about {ENOUGH}), and the last layer is right in {last:.1%}, "
        f"{best} in {accuracies[best]:.1%}, so these photos are "
        f"{'near to' if near else 'far from'} what the backbone knows"
    )
    if per_class < ENOUGH and accuracies[best] - last > noise:
        above = len(names) - 1 - names.index(best)
        advice = f"the features of {best} fit best; train the {above} layer groups above it anew"
        words = ("finetune=partial", f"finetune.top={above}")
    elif per_class < ENOUGH:
        advice, words = "use the features as they are", ("finetune=feature_extraction",)
    elif near:
        top = max(1, len(names) // 2)
        advice, words = "fine-tune the top", ("finetune=partial", f"finetune.top={top}")
    else:
        advice, words = "fine-tune everything", ("finetune=freeze_unfreeze",)
    return f"advice    {advice}: {facts}.", words
