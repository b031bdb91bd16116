"""API keys from the environment and a file, which is read again when it changes, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from st_core.home import expand_home

__all__ = ["VARIABLE", "Keys", "key_of"]

VARIABLE = "ST_SERVER_API_KEY"
"""The environment variable with API keys, separated by commas."""

CHECK_S = 1.0
"""The interval at which the file is checked for a change."""


def key_of(headers: Mapping[str, str]) -> str | None:
    """Return the API key in the headers of a request, whose names are in lower case."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key") or headers.get("api-key") or None


class Keys:
    """The keys that are accepted; without keys, every request is. Safe in threads."""

    def __init__(self, path: str | None = None, environment: Mapping[str, str] = os.environ) -> None:
        """Read the keys; raises OSError for a file that cannot be read, ValueError for one without keys."""
        self._fixed = _hashed(environment.get(VARIABLE, "").split(","))
        self._path = None if path is None else Path(expand_home(path))
        self._lock = threading.Lock()
        self._checked = 0.0
        self._stamp: tuple[int, int] | None = None
        self._in_file: tuple[bytes, ...] = ()
        if self._path is not None:
            self._read(self._path)
            if not self._in_file:
                raise ValueError(f"{self._path}: expected an API key on each line, got no key")

    @property
    def are_required(self) -> bool:
        """Whether requests need a key."""
        return self._path is not None or bool(self._fixed)

    def name_of(self, key: str | None) -> str | None:
        """Return a name of the key's client, which does not reveal the key; None for a wrong or a missing key."""
        if key is None:
            return None
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._known()]
        return f"key-{digest.hex()[:8]}" if any(matches) else None

    def _known(self) -> tuple[bytes, ...]:
        """Return the hashes of all keys, after reading a file that has changed."""
        if self._path is not None:
            with self._lock:
                if time.monotonic() - self._checked > CHECK_S:
                    self._reread(self._path)
        return self._fixed + self._in_file

    def _reread(self, path: Path) -> None:
        """Read the file if it has changed; a file that cannot be read leaves the keys as they are."""
        self._checked = time.monotonic()
        try:
            status = path.stat()
            if (status.st_mtime_ns, status.st_size) != self._stamp:
                self._read(path)
        except OSError:
            return

    def _read(self, path: Path) -> None:
        status = path.stat()
        lines: Sequence[str] = path.read_text("utf-8").splitlines()
        self._in_file = _hashed([line for line in lines if not line.startswith("#")])
        self._stamp, self._checked = (status.st_mtime_ns, status.st_size), time.monotonic()


def _hashed(keys: Sequence[str]) -> tuple[bytes, ...]:
    """Return the hashes of keys, so that all comparisons take the same time."""
    return tuple(hashlib.sha256(key.strip().encode()).digest() for key in keys if key.strip())
