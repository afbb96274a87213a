"""`thaw serve`: a trained model as a page in the browser, and as an HTTP service on this machine.

`serve_app` answers the requests.
"""

import contextlib
import signal
import socket
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from thaw.errors import ConfigError, check
from thaw.image_classifier import load
from thaw.tools.predict import choose_device

BATCH = 32  # photos that the model computes at once
PATIENCE = 10  # seconds that the requests in progress have when the server is stopped
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Serves until Ctrl-C or SIGTERM; requests in progress are answered before it ends."""
    parser.add_argument("model", type=Path, help="folder of a run, or the model folder in it")
    parser.add_argument("--port", type=int, default=8000, help="8000; 0 takes any free one")
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen at (127.0.0.1: this machine alone; 0.0.0.0: all that reach it)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    given = parser.parse_args(words)
    check(0 <= given.port <= 65535, "--port", given.port, "0 to 65535")
    import uvicorn

    from thaw.tools.serve_app import Worker, make_app

    device = choose_device(given.device)
    model = load(given.model).to(device)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both are a KeyboardInterrupt
    with (
        contextlib.suppress(KeyboardInterrupt),  # which uvicorn raises again at its end
        _listening(given.host, given.port) as listener,
    ):
        host = f"[{given.host}]" if ":" in given.host else given.host
        app = make_app(Worker(model, BATCH), hosts=LOOPBACK if host in LOOPBACK else None)
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE
        )
        address = f"http://{host}:{listener.getsockname()[1]}"
        print(f"{given.model} answers at {address} (Ctrl-C stops it)", flush=True)
        uvicorn.Server(settings).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error}); another --port may be "
            "free, and 0 takes any that is"
        ) from error
