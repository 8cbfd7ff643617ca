"""An S3 server on this machine that is as unreliable as real storage: busy, and cutting answers.

It is moto's server. A part of the requests is answered with 503 (busy), and of a part of the
objects only the first half is sent. It counts how often each object was sent whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

BUCKET = "fish"
_BUSY = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""
_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


class FaultyS3:
    """The server's application with faults.

    Parameters
    ----------
    busy
        Share of the requests that are answered with 503.
    cut
        Share of the objects that are sent in part.

    Attributes
    ----------
    url
        Where it listens.
    sent
        Path of an object -> how often it was sent whole.
    """

    def __init__(self, *, busy: float = 0.0, cut: float = 0.0, seed: int = 0) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self.busy, self.cut = busy, cut
        self.sent: Counter[str] = Counter()
        self.url = ""
        self._random = random.Random(seed)
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request."""
        if self._random.random() < self.busy:
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [_BUSY]
        answered: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(
            self._app(environ, lambda status, headers, *_: answered.append((status, headers)))
        )
        status, headers = answered[-1]
        is_object = environ["REQUEST_METHOD"] == "GET" and "ETag" in dict(headers)
        if is_object and self._random.random() < self.cut:
            body = body[: len(body) // 2]
        elif is_object:
            self.sent[environ["PATH_INFO"].removeprefix(f"/{BUCKET}/")] += 1
        start_response(status, headers)
        return [body]


@contextlib.contextmanager
def serve_s3(*, busy: float = 0.0, cut: float = 0.0, seed: int = 0) -> Iterator[FaultyS3]:
    """Run the server until the block ends; this process and those that it starts use it."""
    from werkzeug.serving import make_server

    faulty = FaultyS3(busy=busy, cut=cut, seed=seed)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    faulty.url = f"http://127.0.0.1:{server.server_port}"
    before = {name: os.environ.get(name) for name in (*_VARIABLES, "AWS_ENDPOINT_URL")}
    os.environ.update(_VARIABLES | {"AWS_ENDPOINT_URL": faulty.url})
    try:
        open_bucket().create_bucket(Bucket=BUCKET)
        yield faulty
    finally:
        server.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def open_bucket() -> Any:
    """A client of the server."""
    import boto3

    return boto3.client("s3")


def put(key: str, data: bytes) -> None:
    """Write an object."""
    open_bucket().put_object(Bucket=BUCKET, Key=key, Body=data)


def upload(folder: Path, target: str) -> None:
    """Copy a folder to `target` in the bucket."""
    client = open_bucket()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"{target}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
