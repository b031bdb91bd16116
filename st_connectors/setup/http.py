"""Requests with JSON to stores whose client is not needed to set them up."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from st_connectors.errors import NotFound, Permanent, StoreError, Unavailable
from st_connectors.plugin import Address

__all__ = ["HttpStore", "url_of"]

_TIMEOUT_S = 60.0
_UNAVAILABLE = (429, 502, 503, 504)


def url_of(address: Address, port: int) -> str:
    """Return the HTTP address of a server."""
    scheme = "https" if "https" in address.variants else "http"
    host = f"[{address.host}]" if address.host and ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port or port}{address.path.rstrip('/')}"


@dataclass(frozen=True, slots=True)
class HttpStore:
    """A store by its HTTP address; ``headers`` contain its key."""

    name: str
    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return its parsed answer; raise a store error for any failure."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", "accept": "application/json", **self.headers}
        request = urllib.request.Request(self.url + path, content, headers, method=method)  # noqa: S310  # the scheme is http or https by construction
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self.error_of(error.code, error.read()) from error
        except ValueError as error:
            message = f"{self.url} answered with something other than JSON: is this the right address?"
            raise Permanent(message, store=self.name, operation="setup") from error
        except (OSError, http.client.HTTPException) as error:
            message = f"{self.url} cannot be reached ({error}): is it running?"
            raise Unavailable(message, store=self.name, operation="setup") from error

    def error_of(self, status: int, content: bytes) -> StoreError:
        """Return the store error for the status and the body of an answer."""
        kind = NotFound if status == 404 else Unavailable if status in _UNAVAILABLE else Permanent
        text = content.decode("utf-8", "replace").strip()
        try:
            text = _reason(json.loads(text)) or text
        except ValueError:
            text = text[:200]
        return kind(f"the server answered {status}: {text}", store=self.name, operation="setup", status=status)


def _reason(body: Any) -> str:
    """Return the message in the body of an error."""
    for name in ("status", "error", "message"):
        if isinstance(body, dict) and name in body:
            body = body[name]
    return body if isinstance(body, str) else ""
