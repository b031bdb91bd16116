"""The lines of a bulk request, read as they arrive."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from st_connectors.gateway.answers import Problem

__all__ = ["Inflater", "Item", "Lines", "parts_of"]

GZIP = 31
"""The parameter of zlib for gzip."""
ACTIONS = frozenset({"index", "create", "update", "delete"})


@dataclass(frozen=True, slots=True)
class Item:
    """One action of a bulk request with its lines, each with its line feed; an unread one has no ``action``.

    ``metadata`` is the object of the action. ``source`` is empty for deletions.
    """

    line: bytes
    source: bytes = b""
    action: str | None = None
    index: str | None = None
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of bytes of the lines."""
        return len(self.line) + len(self.source)

    @property
    def stores(self) -> bool:
        """Whether the item contains a document."""
        return self.action not in (None, "delete")


class Lines:
    """Reads the items of a bulk request from pieces of its body.

    From a malformed action on, lines are returned unread: only the engine knows what to answer.
    """

    def __init__(self, index: str | None) -> None:
        """Begin; ``index`` is that of the path, for actions that name none."""
        self._index = index
        self._rest = b""
        self._action: Item | None = None
        self._is_malformed = False

    def feed(self, data: bytes) -> list[Item]:
        """Return the items that are complete with further bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [item for line in lines for item in self._read(line + b"\n")]

    def finish(self) -> list[Item]:
        """Return what is left at the end of the body, unread."""
        left = (self._action.line if self._action else b"") + self._rest
        self._action, self._rest = None, b""
        return [Item(left)] if left else []

    def _read(self, line: bytes) -> Iterator[Item]:
        if self._action is not None:
            action, self._action = self._action, None
            yield Item(action.line, line, action.action, action.index, action.id, action.metadata)
            return
        item = None if self._is_malformed else self._action_of(line)
        if item is None:
            self._is_malformed |= bool(line.strip())
            yield Item(line)
        elif item.action == "delete":
            yield item
        else:
            self._action = item

    def _action_of(self, line: bytes) -> Item | None:
        """Return the action of a line; None if it is none."""
        try:
            [(action, metadata)] = json.loads(line).items()
        except (ValueError, AttributeError, RecursionError):
            return None
        if action not in ACTIONS or not isinstance(metadata, dict):
            return None
        index, identifier = metadata.get("_index", self._index), metadata.get("_id")
        if not isinstance(index, str | None) or not isinstance(identifier, str | int | None):
            return None
        own_id = None if identifier is None else str(identifier)
        return Item(line, b"", action, index, own_id, metadata)


def parts_of(items: list[Item], documents: int, size: int) -> Iterator[list[Item]]:
    """Yield items in parts of up to ``documents`` items and about ``size`` bytes."""
    part: list[Item] = []
    room = size
    for item in items:
        if part and (len(part) == documents or item.size > room):
            yield part
            part, room = [], size
        part.append(item)
        room -= item.size
    if part:
        yield part


class Inflater:
    """Decompresses the pieces of a body in gzip, or returns the pieces of another body unchanged."""

    def __init__(self, encoding: bytes) -> None:
        """Begin; raises Problem for another compression."""
        name = encoding.strip().lower()
        if name not in (b"", b"gzip", b"x-gzip", b"identity"):
            reason = "the gateway reads bodies without compression and in gzip: use one of them"
            raise Problem(415, "st_connectors_media_type_exception", reason)
        self._stream = zlib.decompressobj(wbits=GZIP) if b"gzip" in name else None

    def feed(self, data: bytes, most: int) -> Iterator[bytes]:
        """Yield what bytes decompress to, in pieces of up to ``most`` bytes; raises Problem if they are not gzip."""
        if self._stream is None:
            yield data
            return
        try:
            while data:
                if self._stream.eof:  # a body may consist of several compressed members
                    self._stream = zlib.decompressobj(wbits=GZIP)
                yield self._stream.decompress(data, most)
                data = self._stream.unconsumed_tail or self._stream.unused_data
        except zlib.error as error:
            raise _not_gzip(str(error)) from error

    def finish(self) -> None:
        """Raise Problem if the compressed body was cut off."""
        if self._stream is not None and not self._stream.eof:
            raise _not_gzip("it was cut off")


def _not_gzip(reason: str) -> Problem:
    return Problem(400, "st_connectors_compression_exception", f"the body cannot be read as gzip: {reason}")
