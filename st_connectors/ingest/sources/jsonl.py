"""Read JSON Lines files, which contain one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterable

from st_connectors.ingest.documents import DocumentError, Place
from st_connectors.ingest.sources.rows import Read, Reading, row_document

__all__ = ["read_jsonl"]


def read_jsonl(stream: Iterable[bytes], reading: Reading, name: str) -> Read:
    """Yield the documents of lines in UTF-8; blank lines are skipped."""
    for number, raw in enumerate(stream, 1):
        place = Place(name, number, "line")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not line:
                continue
            row = json.loads(line, parse_constant=_refuse_constant)
        except UnicodeDecodeError:
            yield DocumentError("not UTF-8", place=place, value=raw)
        except json.JSONDecodeError as error:
            yield DocumentError(f"not JSON: {error.msg} at column {error.colno}", place=place, value=raw)
        except ValueError as error:
            yield DocumentError(f"not JSON: {error}", place=place, value=raw)
        except RecursionError:
            yield DocumentError("nested too deeply", place=place, value=raw)
        else:
            if isinstance(row, dict):
                yield row_document(row, reading, place)
            else:
                yield DocumentError(f"expected a JSON object, not {type(row).__name__}", place=place, value=row)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")
