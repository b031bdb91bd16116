"""Open compressed sources: gzip, bzip2, xz and zstd, detected by their first bytes, whatever their name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from st_connectors.ingest.sources.encodings import as_buffered
from st_core.errors import missing_extra

__all__ = ["SUFFIXES", "decompressed", "without_suffix"]

SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}
"""The compressions by the suffix of a file name."""

_MARKS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"))
_BZIP2 = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # the start of a block, or the end of an empty file
_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What the libraries raise for damaged data."""


def without_suffix(path: Path) -> Path:
    """Return a path without the suffix of a compression."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


@contextmanager
def decompressed(stream: IO[bytes], name: str) -> Iterator[BufferedReader]:
    """Yield the decompressed stream, or the stream itself; raise ValueError if the data are damaged or cut off."""
    raw = as_buffered(stream)
    kind = _kind(raw)
    if kind is None:
        yield raw
        return
    try:
        yield BufferedReader(_open(raw, kind, name))
    except _ERRORS as error:
        raise ValueError(f"{name}: damaged or cut off, as {kind} data: {error}") from error


def _kind(stream: BufferedReader) -> str | None:
    start = stream.peek(16)
    kind = next((kind for mark, kind in _MARKS if start.startswith(mark)), None)
    return None if kind == "bzip2" and not start[4:].startswith(_BZIP2) else kind


def _open(stream: BufferedReader, kind: str, name: str) -> Any:
    match kind:
        case "gzip":
            return gzip.GzipFile(fileobj=stream)
        case "bzip2":
            return bz2.BZ2File(stream)
        case "xz":
            return lzma.LZMAFile(stream)
        case _:
            return _open_zstd(stream, name)


def _open_zstd(stream: BufferedReader, name: str) -> Any:
    """Open a zstd stream with Python 3.14 or newer, or with pyarrow."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError:
        pass
    else:
        return zstd.ZstdFile(stream)
    try:
        import pyarrow as pa
    except ModuleNotFoundError as error:
        raise missing_extra("parquet", f"decompressing {name}") from error
    return pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")
