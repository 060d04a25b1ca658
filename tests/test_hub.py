"""The hub and everything that goes wrong on the way, against a server in this process; no network."""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clareo import hub
from clareo.checkpoints import find
from clareo.errors import CheckpointError

huggingface_hub = pytest.importorskip("huggingface_hub")

COMMIT = "c" * 40
WEIGHTS = b"tensors" * 5000
SHA = hashlib.sha256(WEIGHTS).hexdigest()


class FakeHub(BaseHTTPRequestHandler):
    """One repository of one file, out of order in the way that the server says."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    @property
    def fault(self) -> str:
        return self.server.fault  # type: ignore[attr-defined,no-any-return]

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        codes = {"gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound")}
        if self.fault.isdigit():
            self.answer(int(self.fault), b"{}")
        elif self.fault in codes:
            self.answer(codes[self.fault][0], b"{}", {"X-Error-Code": codes[self.fault][1]})
        elif self.path.startswith("/api/"):
            entry = {"type": "file", "path": "weights.safetensors", "rfilename": "weights.safetensors", "oid": "1" * 40}
            lfs = {"size": len(WEIGHTS), "lfs": {"oid": SHA, "sha256": SHA, "size": len(WEIGHTS), "pointerSize": 1}}
            info = {"id": "owner/model", "sha": COMMIT, "siblings": [entry], "private": False, "tags": []}
            self.answer(200, json.dumps([{**entry, **lfs}] if "/tree/" in self.path else info).encode())
        else:
            self.file()

    def file(self) -> None:
        headers = {"ETag": f'"{SHA}"', "X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{SHA}"'}
        headers["X-Linked-Size"] = str(len(WEIGHTS))
        if self.fault == "half" and self.command == "GET":
            self.answer(200, WEIGHTS[:1000], headers, len(WEIGHTS))
            self.close_connection = True
        else:
            self.answer(200, WEIGHTS[:-1] + b"!" if self.fault == "altered" else WEIGHTS, headers)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    fake = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    fake.fault, fake.asked = "", []  # type: ignore[attr-defined]
    threading.Thread(target=fake.serve_forever, daemon=True).start()
    for name in (*hub.SWITCHES, hub.MODELS):
        monkeypatch.delenv(name, raising=False)
    constants = importlib.import_module("huggingface_hub.constants")
    here = f"http://127.0.0.1:{fake.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    yield fake
    fake.shutdown()
    fake.server_close()


def test_a_sound_repository(server: ThreadingHTTPServer) -> None:
    folder = find("owner/model")
    assert (folder / "weights.safetensors").read_bytes() == WEIGHTS
    asked = len(server.asked)  # type: ignore[attr-defined]
    with hub.offline():
        assert find("owner/model") == folder
    assert len(server.asked) == asked  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("gated", "wants its licence accepted first: https://huggingface.co/owner/model"),
        ("missing", "no such repository on the hub"),
        ("403", "refuses access (403)"),
        ("404", "not found on the hub (404)"),
        ("503", "out of order (503); try again later"),
        ("half", "the download broke off; run again to go on"),
        ("altered", "weights.safetensors came damaged and was deleted; run again"),
    ],
)
def test_faults_are_told_in_one_line(
    fault: str, reason: str, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the hub's library waits before it tries again
    server.fault = fault  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError) as caught:
        find("owner/model")
    said = str(caught.value)
    assert said.startswith("owner/model: ")
    assert reason in said
    assert "\n" not in said
    server.fault = ""  # type: ignore[attr-defined]
    assert (find("owner/model") / "weights.safetensors").read_bytes() == WEIGHTS  # nothing broken was left behind


def test_a_hub_that_is_not_there(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(CheckpointError, match=r"^owner/model: the hub cannot be reached; try again, or bring a bundle"):
        find("owner/model")


class ReadTimeout(Exception):  # noqa: N818 - called so by the libraries
    """What network libraries raise."""


@pytest.mark.parametrize("error", [TimeoutError("read"), ReadTimeout("read")])
def test_a_hub_that_does_not_answer(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> str:
        msg = "An error happened while trying to locate the files on the Hub.\nPlease check your connection."
        raise FileNotFoundError(msg) from error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    with pytest.raises(CheckpointError, match=r"^owner/model: the hub does not answer \(time-out\)"):
        find("owner/model")


def test_offline_asks_nobody_and_says_what_to_do(server: ThreadingHTTPServer) -> None:
    with hub.offline(), pytest.raises(CheckpointError) as caught:
        find("owner/model")
    assert "clareo models bundle owner/model -o FOLDER" in str(caught.value)
    assert hub.MODELS in str(caught.value)
    assert server.asked == []  # type: ignore[attr-defined]
    assert not hub.is_offline()
