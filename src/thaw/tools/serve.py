"""`thaw serve`: a trained model as a page in the browser and as an HTTP service on this machine."""

import contextlib
import os
import re
import signal
import socket
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, JSONResponse
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from thaw.data.decode import decode_bytes
from thaw.errors import ConfigError, PhotoError, check
from thaw.heat_map import heat_map, overlay
from thaw.image_classifier import ImageClassifier, load
from thaw.tools.predict import choose_device

PATIENCE = 10  # seconds that the requests in progress have when the server is stopped
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MAX_BYTES = 32 << 20  # of a photo
MAX_PIXELS = 64_000_000  # of a photo; with transparency they take 1 GB while they are decoded
MAX_REQUEST = 256 << 20  # bytes of a request
MAX_PHOTOS = 64  # in a request
TOP = 5  # classes in an answer
PAGE = Path(__file__).with_name("serve.html").read_text("utf-8")

# Requests are answered in up to 40 threads; few decode, because a decoded photo is large and each
# thread that had one keeps memory for the next.
decoders = ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode")


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Serves until Ctrl-C or SIGTERM; requests in progress are answered before it ends."""
    add = parser.add_argument
    add("model", type=Path, help="folder of a run, or the model folder in it")
    add("--port", type=int, default=8000, help="8000; 0 takes any free one")
    about = "address to listen at (127.0.0.1: this machine alone; 0.0.0.0: all that reach it)"
    add("--host", default="127.0.0.1", help=about)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    given = parser.parse_args(words)
    check(0 <= given.port <= 65535, "--port", given.port, "0 to 65535")
    device = choose_device(given.device)
    model = load(given.model).to(device)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both are a KeyboardInterrupt
    family, host = socket.AF_INET, given.host
    if ":" in host:
        family, host = socket.AF_INET6, f"[{host}]"
    try:
        listener = socket.create_server((given.host, given.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {given.host} --port {given.port}: cannot listen there ({error}); another "
            "--port may be free, and 0 takes any that is"
        ) from error
    with contextlib.suppress(KeyboardInterrupt), listener:  # uvicorn raises it again at its end
        app = make_app(model, hosts=LOOPBACK if host in LOOPBACK else None)
        settings = uvicorn.Config(app, log_level="warning", access_log=False,
                                  timeout_graceful_shutdown=PATIENCE)  # fmt: skip
        address = f"http://{host}:{listener.getsockname()[1]}"
        print(f"{given.model} answers at {address} (Ctrl-C stops it)", flush=True)
        uvicorn.Server(settings).run(sockets=[listener])


def make_app(model: ImageClassifier, hosts: Sequence[str] | None) -> FastAPI:
    """The service, for requests with one of these `hosts` (None: any), each in a thread."""
    # Its pages of documentation load scripts from elsewhere; /openapi.json describes the service.
    app = FastAPI(title="thaw serve", docs_url=None, redoc_url=None)
    app.middleware("http")(partial(_guard, hosts))
    device, lock = next(model.parameters()).device, Lock()  # one at a time: a heat map adds hooks

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
        whole = [view for view in views if isinstance(view, Tensor)]
        if not whole:
            raise HTTPException(422, "\n".join(map(str, views)))
        with lock, torch.inference_mode():
            found = iter(model.named(model(torch.stack(whole).to(device))))
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
            with lock:
                heat = heat_map(model, view, model.classes.index(label))
        except ValueError as error:  # a body without places
            raise HTTPException(422, str(error)) from error
        to_pil_image(overlay(view, heat)).save(file := BytesIO(), "png")
        return Response(file.getvalue(), media_type="image/png")

    return app


async def _guard(
    hosts: Sequence[str] | None, request: Request, answer: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Refuses requests that must not be answered or even read.

    Other web pages in the same browser can send requests to this machine too, and can give it their
    own name (DNS rebinding). So the name in `Host` has to be this machine's, and `Origin`, which a
    browser adds to each POST, has to be the page that is served here.
    """
    sent = request.headers
    host, origin, length = sent.get("host", ""), sent.get("origin"), sent.get("content-length")
    for status, is_wrong, why in (
        (403, hosts is not None and re.sub(r":\d+$", "", host) not in hosts,
         f"Host {host}: served are {', '.join(hosts or ())}"),
        (403, origin is not None and origin.partition("://")[2] != host,
         f"Origin {origin}: other web pages are not answered"),
        (411, "transfer-encoding" in sent,  # it would outweigh a Content-Length
         "Transfer-Encoding: only a request with a Content-Length alone is read"),
        (411, request.method == "POST" and length is None, "Content-Length is missing"),
        (413, int(length or 0) > MAX_REQUEST,
         f"{length} bytes: allowed are {MAX_REQUEST} in a request"),
    ):  # fmt: skip
        if is_wrong:
            return JSONResponse({"detail": why}, status)
    return await answer(request)


def _view_or_error(model: ImageClassifier, photo: UploadFile) -> Tensor | str:
    """The model's view of a photo, uint8 (3, S, S), or what is wrong with it."""
    name = photo.filename or "photo"
    if (photo.size or 0) > MAX_BYTES:
        return f"{name}: has {photo.size} bytes; allowed are {MAX_BYTES}"
    try:
        return model.transform(decode_bytes(photo.file.read(), name, MAX_PIXELS))
    except PhotoError as error:
        return str(error)
