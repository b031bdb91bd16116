"""A server in this process, and requests to it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """The answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A running server."""

    address: str
    service: Any
    headers: dict[str, str] = field(default_factory=dict)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Send a value as JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", path, content, {"content-type": "application/json", **headers})

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, None, headers)

    def send(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        all_headers = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        request = urllib.request.Request(self.address + path, content, all_headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Answer(response.status, dict(response.headers.items()), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


@contextmanager
def running(settings: Any, **keys: Any) -> Iterator[Running]:
    """Serve on a free port in a thread of this process until the end of the block."""
    import uvicorn

    from st_connectors.server.app import build_app
    from st_connectors.server.keys import Keys
    from st_connectors.server.running import _config, _listen
    from st_connectors.server.service import Service

    service = Service(settings)
    loaded = threading.Event()
    app = build_app(service, Keys(settings.key_file, keys.get("environment", {})), loaded=loaded.set)
    server = uvicorn.Server(_config(settings, app))
    with _listen("127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert loaded.wait(300)
            if service.error is not None:
                raise service.error
            yield Running(address, service)
        finally:
            server.should_exit = True
            thread.join()
            service.close()
