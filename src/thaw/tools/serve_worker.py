"""One thread that runs the model for all requests."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from thaw.heat_map import heat_map
from thaw.image_classifier import ImageClassifier, Prediction


class Worker:
    """Computes what waits together, so that many requests cost little more than one.

    Requests call it from threads of their own and wait for their answer. The model runs in its one
    thread only, which is also what keeps a heat map's hooks away from other requests.
    """

    def __init__(self, model: ImageClassifier, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.waiting: deque[tuple[Tensor, Future[Prediction]]] = deque()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_error: object) -> None:
        self.thread.shutdown()  # after all that waits

    def predict(self, views: Sequence[Tensor]) -> list[Prediction]:
        """What the model says of views, uint8 (3, S, S) each."""
        answers: list[Future[Prediction]] = [Future() for _ in views]
        self.waiting.extend(zip(views, answers, strict=True))
        for _ in views:  # one call each; those that find nothing waiting end at once
            self.thread.submit(self._next_batch)
        return [answer.result() for answer in answers]

    def heat_map(self, view: Tensor, label: int) -> Tensor:
        """As `thaw.heat_map.heat_map`."""
        return self.thread.submit(heat_map, self.model, view, label).result()

    def _next_batch(self) -> None:
        number = min(self.batch_size, len(self.waiting))
        batch = [self.waiting.popleft() for _ in range(number)]
        if not batch:
            return
        try:
            device = next(self.model.parameters()).device
            with torch.inference_mode():
                views = torch.stack([view for view, _ in batch])
                predictions = self.model.named(self.model(views.to(device)))
            for (_, answer), prediction in zip(batch, predictions, strict=True):
                answer.set_result(prediction)
        except Exception as error:  # each request has to hear of it; the thread goes on
            for _, answer in batch:
                answer.set_exception(error)
