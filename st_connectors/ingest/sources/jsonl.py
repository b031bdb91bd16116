"""Read JSON Lines files, which contain one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import IO

from st_connectors.ingest.documents import Document, DocumentError, Place
from st_connectors.ingest.sources.encodings import Decoder, as_buffered
from st_connectors.ingest.sources.limits import TooLarge, read_line
from st_connectors.ingest.sources.rows import Read, Reading, row_document

__all__ = ["count_jsonl", "json_document", "read_jsonl"]


def read_jsonl(stream: IO[bytes], reading: Reading, name: str) -> Read:
    """Yield the documents of lines; blank lines are no documents."""
    decoder = Decoder(reading.encoding, reading.notes, name)
    for number, line in _lines(stream, decoder, reading.max_bytes):
        if reading.skip.one():
            decoder.follow(line)
        else:
            yield json_document(line, decoder, reading, Place(name, number, "line"))


def count_jsonl(stream: IO[bytes], reading: Reading, name: str) -> int:
    """Return the number of lines that are not blank."""
    return sum(1 for _ in _lines(stream, Decoder(reading.encoding, reading.notes, name), reading.max_bytes))


def _lines(stream: IO[bytes], decoder: Decoder, limit: int) -> Iterator[tuple[int, str | TooLarge]]:
    """Yield the lines that are not blank with their numbers."""
    with decoder.reading(as_buffered(stream)) as text:
        for number in count(1):
            line = read_line(text, limit)
            if not line:
                return
            if isinstance(line, TooLarge) or not line.isspace():
                yield number, line


def json_document(text: str | TooLarge, decoder: Decoder, reading: Reading, place: Place) -> Document | DocumentError:
    """Convert the text of a JSON object to a document, or to an error if it is invalid."""
    if isinstance(text, TooLarge):
        return text.refusal(reading.max_bytes, place)
    return _parsed(text, decoder, reading, place)


def _parsed(text: str, decoder: Decoder, reading: Reading, place: Place) -> Document | DocumentError:
    decoded = decoder.repair(text)
    if decoded is None:
        return _not_json(decoder.reason, text, place)
    try:
        row = json.loads(decoded.strip(), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return _not_json(f"not JSON: {error.msg} at column {error.colno}", text, place)
    except ValueError as error:
        return _not_json(f"not JSON: {error}", text, place)
    except RecursionError:
        return _not_json("nested too deeply", text, place)
    if isinstance(row, dict):
        return row_document(row, reading, place)
    return DocumentError(f"expected a JSON object, not {type(row).__name__}", place=place, value=row)


def _not_json(reason: str, text: str, place: Place) -> DocumentError:
    """Return the error of a text that is not JSON, with its bytes."""
    return DocumentError(reason, place=place, value=text.encode("utf-8", "surrogateescape"))


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")
