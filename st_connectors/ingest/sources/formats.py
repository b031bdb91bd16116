"""Formats of sources, and which files they have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from st_connectors.ingest.sources.compressed import SUFFIXES, without_suffix
from st_connectors.ingest.sources.text_files import TEXT_SUFFIXES

__all__ = ["Format", "format_of"]


class Format(StrEnum):
    """The format of a source."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TEXT = "text"
    """A folder of text or Markdown files, or one such file; ids are the paths."""
    JSON = "json"
    """An array of objects, or objects one after another."""
    TSV = "tsv"
    ARROW = "arrow"
    """An Arrow file or stream, or a Feather file."""


_FORMATS = {
    **dict.fromkeys((".jsonl", ".ndjson"), Format.JSONL),
    **dict.fromkeys((".tsv", ".tab"), Format.TSV),
    **dict.fromkeys((".parquet", ".pq"), Format.PARQUET),
    **dict.fromkeys((".arrow", ".arrows", ".feather", ".ipc"), Format.ARROW),
    **dict.fromkeys(TEXT_SUFFIXES, Format.TEXT),
    ".csv": Format.CSV,
    ".json": Format.JSON,
}


def format_of(path: Path) -> Format:
    """Return the format by the suffix of a file, TEXT for a folder; raise ValueError for other suffixes.

    The suffix of a compression, such as ``.gz``, is ignored.
    """
    if path.is_dir():
        return Format.TEXT
    plain = without_suffix(path)
    form = _FORMATS.get(plain.suffix.lower())
    if form is None:
        raise ValueError(f"{path}: the suffix {plain.suffix!r} has no known format: pass one of {', '.join(Format)}")
    if plain != path and form in {Format.TEXT, Format.PARQUET, Format.ARROW}:
        kind = SUFFIXES[path.suffix.lower()]
        raise ValueError(f"{path}: {form} files are not read from {kind} data: decompress it first")
    return form
