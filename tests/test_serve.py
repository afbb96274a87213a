"""`thaw serve` over HTTP: what it answers, what it refuses, and how it ends."""

import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from test_model_folder import photo, tiny

import thaw
from thaw import cli
from thaw.data.decode import decode, decode_bytes
from thaw.heat_map import heat_map, overlay
from thaw.image_classifier import ImageClassifier

uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
from thaw.tools import serve  # noqa: E402  below, since it imports the extra

CHROMIUM = Path("/usr/bin/chromium")
THAW = [sys.executable, "-c", "from thaw.cli import main; raise SystemExit(main())"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and the photos 0.png to 6.png."""
    folder = tiny(tmp_path_factory.mktemp("served"))
    for number in range(7):
        photo(folder / f"{number}.png", number)
    return folder


@contextmanager
def serving(model: ImageClassifier) -> Iterator[str]:
    """The address of a server in a thread of this process, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = serve.make_app(model, serve.LOOPBACK)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serving(thaw.load(folder)) as address:
        yield address


def post(address: str, *photos: tuple[str, bytes], **options: Any) -> requests.Response:
    files = [("photos", each) for each in photos]
    return requests.post(f"{address}/predict", files=files, timeout=60, **options)


def predictions(address: str, *photos: tuple[str, bytes]) -> list[dict[str, Any]]:
    answer = post(address, *photos)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_answer_is_that_of_thaw_predict(address: str, folder: Path, tmp_path: Path) -> None:
    """The same keys, labels and probabilities; more photos than a batch."""
    paths = [folder / f"{number}.png" for number in range(7)]
    words = ["predict", str(folder), *map(str, paths), "--device", "cpu", "--json"]
    assert cli.main([*words, str(tmp_path / "found.json")]) == 0
    expected = json.loads((tmp_path / "found.json").read_text())
    found = predictions(address, *((str(path), path.read_bytes()) for path in paths))
    assert len(expected) == len(found) == 7
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert [ours[key] for key in ("path", "label")] == [
            theirs[key] for key in ("path", "label")
        ]
        assert [top["label"] for top in ours["top"]] == [top["label"] for top in theirs["top"]]
        for mine, other in zip(ours["top"], theirs["top"], strict=True):
            assert mine["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_a_name_is_only_a_name(address: str, folder: Path) -> None:
    """The server reads what was sent, not the file of that name, and gives the name back."""
    names = [str(folder / "1.png"), "../../etc/passwd", "<img src=x>"]
    sent = (folder / "0.png").read_bytes()
    found = predictions(address, *((name, sent) for name in names))
    assert [each["path"] for each in found] == names
    assert len({each["probability"] for each in found}) == 1
    assert found[0]["probability"] != pytest.approx(
        predictions(address, ("x", (folder / "1.png").read_bytes()))[0]["probability"], abs=1e-6
    )


def bomb(width: int, height: int) -> bytes:
    """A black PNG of one bit a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width // 8 + 1) * height))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_a_bad_photo_leaves_the_others_alone(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture, an empty one, half of one, decompression bombs, one with too many bytes.

    One pixel by a million is no bomb until its short side is resized to that of the input.
    """
    good = (folder / "0.png").read_bytes()
    bad = {
        "a.jpg": (b"no picture", "in none of the formats"),
        "b.png": (b"", "it is empty"),
        "c.png": (good[: len(good) // 2], "truncated"),
        "d.png": (bomb(30_000, 30_000), "decompression bomb"),
        "e.png": (bomb(9000, 9000), "9000 x 9000 pixels; allowed are 64,000,000"),
        "f.png": (bomb(1, 1_000_000), "1 x 1000000 pixels are no photo"),
        "g.bmp": (bytes(200_001), "200001 bytes; allowed are 200000"),
    }
    monkeypatch.setattr(serve, "MAX_BYTES", 200_000)
    sent = [(name, data) for name, (data, _) in bad.items()]
    found = predictions(address, ("0.png", good), *sent, ("1.png", good))
    assert [each["path"] for each in found] == ["0.png", *bad, "1.png"]
    assert found[0] == found[-1] | {"path": "0.png"}
    for answer, (_, words) in zip(found[1:-1], bad.values(), strict=True):
        assert words in answer["error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "none of the"),
        (b"<html><script>alert(1)</script></html>", "in none of the formats"),
        (bomb(30_000, 1), "30000 x 1 pixels are no photo"),
        (bomb(30_000, 30_000), "decompression bomb"),
        (bytes(100 << 20), "has 104857600 bytes; allowed are 33554432"),
    ],
    ids=["empty", "svg", "html", "long", "bomb", "large"],
)
def test_a_hostile_photo_is_refused_and_the_server_lives_on(
    address: str, folder: Path, content: bytes, words: str
) -> None:
    answer = post(address, ("a.jpg", content))
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert answer.headers["content-type"] == "application/json"  # no page for a browser to run
    assert len(predictions(address, ("0.png", (folder / "0.png").read_bytes()))) == 1


def test_too_much_at_once_is_refused(
    address: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = ("a.png", (folder / "0.png").read_bytes())
    monkeypatch.setattr(serve, "MAX_PHOTOS", 2)
    answer = post(address, sent, sent, sent)
    assert answer.status_code == 413
    assert answer.json()["detail"] == "3 photos: allowed are 2 at a time"
    monkeypatch.setattr(serve, "MAX_REQUEST", 1000)
    answer = post(address, sent)
    assert answer.status_code == 413
    assert "allowed are 1000 in a request" in answer.json()["detail"]
    stream = iter([b"x"])  # of unknown length
    assert requests.post(f"{address}/predict", data=stream, timeout=60).status_code == 411


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_length_does_not_hide_chunks(address: str, method: str) -> None:
    """Which the server would follow past any limit, whatever the length says."""
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "100"}
    with closing(HTTPConnection(address.removeprefix("http://"), timeout=60)) as connection:
        connection.request(method, "/predict", iter([b"x" * 1000]), headers, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 411
        assert json.load(answer)["detail"].startswith("Transfer-Encoding: ")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:9000"}, 200),  # through an ssh tunnel
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({"Host": "evil.example"}, 403),  # DNS rebinding: that name leads here
        ({"Host": "localhost.evil.example:8000"}, 403),
        ({"Host": "evil.example:80", "Origin": "http://evil.example:80"}, 403),
        ({"Host": "[", "Origin": "http://["}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),  # another program's page on this machine
        ({"Origin": "null"}, 403),  # a page in a sandbox
    ],
)
def test_other_web_pages_are_not_answered(
    address: str, folder: Path, headers: dict[str, str], status: int
) -> None:
    photo = ("a.png", (folder / "0.png").read_bytes())
    assert post(address, photo, headers=headers).status_code == status


def test_a_heat_map_is_a_png(address: str, folder: Path) -> None:
    model = thaw.load(folder)
    view = model.transform(decode(folder / "3.png"))
    sent = (folder / "3.png").read_bytes()

    def answer(photo: bytes, label: str) -> requests.Response:
        files, data = {"photo": ("3.png", photo)}, {"label": label}
        return requests.post(f"{address}/heatmap", files=files, data=data, timeout=60)

    for place, label in enumerate(model.classes):
        found = decode_bytes(answer(sent, label).content, "answer")
        assert torch.equal(found, overlay(view, heat_map(model, view, place)))
    wrong = answer(sent, "dog")
    assert wrong.status_code == 422
    assert wrong.json()["detail"] == "label dog: no such class; /healthz lists them"
    assert "none of the formats" in answer(b"no picture", "cat").json()["detail"]


def test_the_page_needs_nothing_else(address: str) -> None:
    health = requests.get(f"{address}/healthz", timeout=60).json()
    assert health == {"status": "ok", "backbone": "tiny", "classes": ["cat", "ant", "bee"]}
    page = requests.get(address, timeout=60)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?://|innerHTML", page.text)


def test_many_requests_at_once_get_their_own_answers(address: str, folder: Path) -> None:
    """Heat maps between them: their hooks stay away from the others."""
    sent = [(f"{number}.png", (folder / f"{number}.png").read_bytes()) for number in range(7)]
    (*expected,) = predictions(address, *sent)

    def heat(photo: tuple[str, bytes]) -> bytes:
        files, data = {"photo": photo}, {"label": "cat"}
        return requests.post(f"{address}/heatmap", files=files, data=data, timeout=60).content

    maps = [heat(photo) for photo in sent]
    with ThreadPoolExecutor(8) as pool:
        found = [(pool.submit(predictions, address, photo), pool.submit(heat, photo))
                 for photo in sent * 3]  # fmt: skip
        for place, (answer, drawn) in enumerate(found):
            (only,) = answer.result()
            one = expected[place % 7]
            assert (only["path"], only["label"]) == (one["path"], one["label"])
            assert only["probability"] == pytest.approx(one["probability"], abs=1e-6)
            assert drawn.result() == maps[place % 7]


def test_what_cannot_be_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port in use, an address that is not ours, a missing extra."""

    def error(*words: object) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main(["serve", str(folder), *map(str, words)])
        assert stop.value.code == 1
        return capsys.readouterr().err

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--host 127.0.0.1 --port {port}: cannot listen there" in error("--port", port)
    assert "--port=99999: allowed is 0 to 65535" in error("--port", 99999)
    assert "--host 192.0.2.1 --port 8000: cannot listen" in error("--host", "192.0.2.1")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "thaw.tools.serve")
    assert re.search(r"uvicorn is missing; pip install -e '\.\[serve\]'", error())


@pytest.mark.slow
def test_a_stop_lets_the_running_request_end(folder: Path) -> None:
    """By SIGTERM; test_tour.py ends the server by Ctrl-C."""
    words = [*THAW, "serve", str(folder), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout.readline())[1])
        sent = (folder / "0.png").read_bytes()
        request = requests.Request(
            "POST", f"http://127.0.0.1:{port}/predict", files=[("photos", ("a.png", sent))]
        ).prepare()
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{head}\r\n".encode()
        with (
            socket.create_connection(("127.0.0.1", port)) as idle,
            socket.create_connection(("127.0.0.1", port)) as running,
        ):
            running.sendall(head + request.body[:100])
            requests.get(f"http://127.0.0.1:{port}/healthz", timeout=60)  # so it has been read
            server.send_signal(signal.SIGTERM)
            assert idle.recv(1) == b""
            running.sendall(request.body[100:])
            answer = b"".join(iter(lambda: running.recv(1 << 16), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])[0]["path"] == "a.png"
        assert server.wait(20) == 0
        assert server.stderr
        assert server.stderr.read() == ""


DROP = """([name, bytes]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([Uint8Array.from(bytes)], name));
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}));
}"""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing")
def test_a_person_drops_a_photo(folder: Path) -> None:
    """Reads the answer and asks by keyboard for a heat map; names are shown as they are."""
    reason = "playwright is not installed"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    model = thaw.load(folder)
    model.classes = ("<b>cat</b>", "ant & bee", "bee")
    (expected,) = model.predict(folder / "3.png")
    said: list[str] = []
    asked: list[str] = []
    with serving(model) as address, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_text("tiny, 3 classes").wait_for()
        page.evaluate(DROP, ["<i>3</i>.png", list((folder / "3.png").read_bytes())])
        page.locator("li").nth(2).wait_for()
        assert page.locator("h2").inner_text() == "<i>3</i>.png"
        assert page.locator("li span").all_inner_texts() == list(expected.probabilities)
        shown = [float(text.removesuffix(" %")) for text in page.locator("li b").all_inner_texts()]
        percents = [100 * value for value in expected.probabilities.values()]
        assert shown == pytest.approx(percents, abs=0.051)
        page.keyboard.press("Tab")  # to the choice of a file
        page.keyboard.press("Tab")  # to the most probable class
        width = "image => image.decode().then(() => image.naturalWidth)"
        assert page.locator("img").evaluate(width) == 60  # the photo
        page.keyboard.press("Enter")
        while page.locator("img").evaluate(width) != 32:  # the model's view
            page.wait_for_timeout(50)
        page.keyboard.press("Enter")
        assert page.locator("img").evaluate(width) == 60
        page.evaluate(DROP, ["notes.txt", [110, 111]])
        page.get_by_text("Cannot read the picture notes.txt").wait_for()
        browser.close()
    assert [text.partition(" (")[0].rpartition(" ")[2] for text in said] == ["422"]  # notes.txt
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
