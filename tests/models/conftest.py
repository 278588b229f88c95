import json
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.inference.samples import release
from totalspineseg_bids.models import catalog, download

NAMES = {
    "step1": "Dataset101_TotalSpineSeg_step1",
    "step2": "Dataset102_TotalSpineSeg_step2",
    "single": "Dataset103_TotalSpineSeg_full",
}
TRAINER = "nnUNetTrainer_Other__nnUNetPlans__3d_fullres"


def dataset_of(role: str) -> dict[str, Any]:
    return release(f"r20241115-{'full' if role == 'single' else role}")


def model_files(role: str, *, top: str | None = None, weights: bytes = b"weights") -> dict[str, bytes]:
    """Files of a model in the layout of the public releases; nothing here reads the checkpoint itself."""
    base = f"{top if top is not None else NAMES[role]}/{TRAINER}"
    return {
        f"{base}/dataset.json": json.dumps(dataset_of(role)).encode(),
        f"{base}/plans.json": b"{}",
        f"{base}/fold_0/checkpoint_final.pth": weights + role.encode(),
        f"{base}/fold_0/validation/summary.json": b"{}",
        f"{base}/fold_0/progress.png": b"png",
    }


def write_folder(folder: Path, *roles: str, **options: Any) -> Path:
    for role in roles:
        for name, content in model_files(role, **options).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def write_zip(path: Path, *roles: str, weights: bytes = b"weights") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for role in roles:
            for name, content in model_files(role, weights=weights).items():
                archive.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder for each test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(catalog.CACHE_VARIABLE, str(folder))
    return folder


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, *, resumable: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, folder))
        self.resumable = resumable
        #: Bytes after which each of the next answers breaks off.
        self.break_after: list[int] = []
        self.ranges: list[str | None] = []
        self.sent = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    server: Server

    def __init__(self, folder: Path, *args: object) -> None:
        self.folder = folder
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        file = self.folder / self.path.partition("?")[0].lstrip("/")
        self.server.ranges.append(self.headers.get("Range"))
        if not file.is_file():
            self.send_error(404)
            return
        content, start, tag = file.read_bytes(), 0, f'"{hash(file.read_bytes())}"'
        wanted = self.headers.get("Range")
        if wanted and self.server.resumable and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        body = content[start:]
        if self.server.break_after:
            body = body[: self.server.break_after.pop(0)]
        self.wfile.write(body)
        self.server.sent += len(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setattr(download, "_TIMEOUT", 5.0)
    (tmp_path / "served").mkdir()
    running = Server(tmp_path / "served")
    thread = Thread(target=partial(running.serve_forever, 0.02), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join(5)
