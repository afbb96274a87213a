"""What `thaw serve` answers: the page, photos -> predictions, a photo -> its heat map.

Other web pages in the same browser can send requests to this machine too, and can give it their own
name (DNS rebinding). So the name in `Host` has to be this machine's, and `Origin`, which a browser
adds to each POST, has to be the page that is served here.
"""

import os
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from thaw.data.decode import decode_bytes
from thaw.errors import PhotoError
from thaw.heat_map import heat_map, overlay
from thaw.image_classifier import ImageClassifier, Prediction

MAX_BYTES = 32 << 20  # of a photo
MAX_PIXELS = 64_000_000  # of a photo; with transparency they take 1 GB while they are decoded
MAX_REQUEST = 256 << 20  # bytes of a request
MAX_PHOTOS = 64  # in a request
TOP = 5  # classes in an answer
PAGE = Path(__file__).with_name("serve.html").read_text("utf-8")

# Requests are answered in up to 40 threads; few decode, because a decoded photo is large and each
# thread that had one keeps memory for the next.
decoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")


class Worker:
    """Computes what waits together, so that many requests cost little more than one.

    Requests call it from threads of their own and wait for their answer. The model runs in its one
    thread only, which is also what keeps a heat map's hooks away from other requests.
    """

    def __init__(self, model: ImageClassifier, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.waiting: deque[tuple[Tensor, Future[Prediction]]] = deque()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")

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


def make_app(worker: Worker, hosts: Sequence[str] | None) -> FastAPI:
    """The service; plain functions in it run in threads of their own, where they may wait.

    Args:
        worker: runs the model.
        hosts: names in `Host` that are answered; None: all.
    """
    # Its pages of documentation load scripts from elsewhere; /openapi.json describes the service.
    app = FastAPI(title="thaw serve", docs_url=None, redoc_url=None)
    model = worker.model

    @app.middleware("http")
    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if refused := refusal(request, hosts):
            return JSONResponse({"detail": refused[1]}, refused[0])
        return await answer(request)

    @app.get("/", response_class=HTMLResponse)
    def page() -> str:
        return PAGE

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        name = model.facts["backbone"]["name"]
        return {"status": "ok", "backbone": name, "classes": list(model.classes)}

    @app.post("/predict")
    def predict(photos: list[UploadFile]) -> list[dict[str, Any]]:
        """As `thaw predict --json` writes them; a photo that cannot be read has "error" instead."""
        if len(photos) > MAX_PHOTOS:
            raise HTTPException(413, f"{len(photos)} photos: allowed are {MAX_PHOTOS} at a time")
        views = list(decoders.map(partial(_view_or_error, model), photos))
        errors = [view for view in views if isinstance(view, str)]
        if len(errors) == len(photos):
            raise HTTPException(422, "\n".join(errors))
        found = iter(worker.predict([view for view in views if isinstance(view, Tensor)]))
        answers = [{"error": view} if isinstance(view, str) else next(found).record(TOP)
                   for view in views]  # fmt: skip
        return [{"path": photo.filename, **answer}
                for photo, answer in zip(photos, answers, strict=True)]  # fmt: skip

    @app.post("/heatmap", response_class=Response)
    def heatmap(photo: UploadFile, label: Annotated[str, Form()]) -> Response:
        if label not in model.classes:
            raise HTTPException(422, f"label {label}: no such class; /healthz lists them")
        view = decoders.submit(_view_or_error, model, photo).result()
        if isinstance(view, str):
            raise HTTPException(422, view)
        try:
            heat = worker.heat_map(view, model.classes.index(label))
        except ValueError as error:  # a body without places
            raise HTTPException(422, str(error)) from error
        file = BytesIO()
        to_pil_image(overlay(view, heat)).save(file, "png")
        return Response(file.getvalue(), media_type="image/png")

    return app


def refusal(request: Request, hosts: Sequence[str] | None) -> tuple[int, str] | None:
    """Status and reason, if a request must not be answered or even read."""
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if hosts is not None and re.sub(r":\d+$", "", host) not in hosts:
        return 403, f"Host {host}: served are {', '.join(hosts)}"
    if origin is not None and origin.partition("://")[2] != host:
        return 403, f"Origin {origin}: other web pages are not answered"
    if "transfer-encoding" in request.headers:  # it would outweigh a Content-Length
        return 411, "Transfer-Encoding: only a request with a Content-Length alone is read"
    if request.method == "POST":
        length = request.headers.get("content-length")
        if length is None:
            return 411, "Content-Length is missing"
        if int(length) > MAX_REQUEST:
            return 413, f"{length} bytes: allowed are {MAX_REQUEST} in a request"
    return None


def _view_or_error(model: ImageClassifier, photo: UploadFile) -> Tensor | str:
    """The model's view of a photo, uint8 (3, S, S), or what is wrong with it."""
    name = photo.filename or "photo"
    if (photo.size or 0) > MAX_BYTES:
        return f"{name}: has {photo.size} bytes; allowed are {MAX_BYTES}"
    try:
        return model.transform(decode_bytes(photo.file.read(), name, MAX_PIXELS))
    except PhotoError as error:
        return str(error)
