from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest


@dataclass
class Server:
    """A web server on the loopback interface that serves bytes by path, ranges too."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    #: Path and first byte asked for, of every request.
    asked: list[tuple[str, int]] = field(default_factory=list)
    #: Break the connection once after so many bytes of a path.
    breaks: dict[str, int] = field(default_factory=dict)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            content = made.files.get(path)
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
            made.asked.append((self.path, start))
            if content is None:
                self.send_error(404)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.end_headers()
            end = made.breaks.pop(path, None)
            self.wfile.write(content[start:end])
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Server(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield made
    httpd.shutdown()
    httpd.server_close()


def git(cwd: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]
    command = ["git", *identity, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def key_for(content: bytes) -> str:
    return f"SHA256E-s{len(content)}--{hashlib.sha256(content).hexdigest()}.nii.gz"


def content_of(name: str) -> bytes:
    return np.random.default_rng(len(name) + sum(name.encode())).bytes(3000)


#: Files of a small repository, as spine-generic names them; the last three are not for training.
WANTED = (
    "sub-a/anat/sub-a_T1w.nii.gz",
    "sub-a/anat/sub-a_T2w.nii.gz",
    "sub-b/anat/sub-b_T2star.nii.gz",
    "derivatives/labels/sub-a/anat/sub-a_T2w_label-spine_dseg.nii.gz",
    "derivatives/labels/sub-a/anat/sub-a_T2w_label-SC_seg.nii.gz",
)
OTHERS = (
    "sub-a/dwi/sub-a_dwi.nii.gz",
    "derivatives/labels/sub-a/anat/sub-a_T2w_label-rootlets_dseg.nii.gz",
    "derivatives/data_preprocessed/sub-a/anat/sub-a_T2w.nii.gz",
)
