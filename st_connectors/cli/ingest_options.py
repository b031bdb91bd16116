"""Options that the commands which read and store documents share: their types and help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Batch",
    "Bulk",
    "Create",
    "Delimiter",
    "Devices",
    "Encoding",
    "Format",
    "IdField",
    "Maps",
    "MaxDocument",
    "MaxRefused",
    "MaxWait",
    "Progress",
    "Quote",
    "Refused",
    "Sources",
    "SplitTokens",
    "Splitting",
    "Sql",
    "TextFields",
    "Writers",
]

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE...", help="Files, folders or patterns to read; - reads standard input."),
]
Create = Annotated[bool, typer.Option("--create", help="Create the collection if it does not exist.")]
IdField = Annotated[str | None, typer.Option(metavar="NAME", help="Column or key of the document id (default: id).")]
TextFields = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Column or key of the text (default: text). Repeat to join several."),
]
Maps = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=TEMPLATE",
        help="Field composed of columns, such as text='{title}. {body}'. Repeat for several fields.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Format of the sources: jsonl, json, csv, tsv, parquet, arrow (also Feather) or text (default: by file "
        "name, with or without .gz, .bz2, .xz or .zst).",
    ),
]
Delimiter = Annotated[
    str | None, typer.Option(metavar="CHARACTER", help="Character between the cells of CSV files, or tab.")
]
Quote = Annotated[
    str | None,
    typer.Option(
        metavar="CHARACTER",
        help='Character around cells of CSV files (default: "), or none if quotes are ordinary characters.',
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Encoding of texts (default: UTF-8; another one is guessed, and shown)."),
]
MaxDocument = Annotated[
    str | None,
    typer.Option(metavar="BYTES", help="Refuse documents larger than this, such as 100MB (default: 64MiB)."),
]
Refused = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSONL file for refused documents, which the command replay ingests again (default: in the folder "
        ".st-connectors beside the source).",
    ),
]
MaxRefused = Annotated[
    str | None,
    typer.Option(metavar="N|P%", help="Stop after this number of refused documents, or this share of all."),
]
MaxWait = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="How long to wait for a store that is down before stopping."),
]
Writers = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Most requests to the store at a time (default: by the store)."),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Device to encode on, such as cuda:0 or cpu. Repeat for several processes."),
]
Splitting = Annotated[
    bool | None,
    typer.Option(help="Split long texts into windows (default: only for text files or with --split-tokens)."),
]
SplitTokens = Annotated[
    int | None,
    typer.Option(min=8, metavar="N", help="Tokens per window (default: 256, or the model's maximum if that is less)."),
]
Batch = Annotated[int, typer.Option(min=1, help="Documents encoded and written per batch.")]
Sql = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--sql",
        metavar="URL QUERY",
        help="Read the rows of a query: sqlite:PATH, duckdb:PATH, postgresql://USER@HOST/NAME, mysql://USER@HOST/NAME, "
        "or NAME+adbc:URI for a driver of ADBC. The password is read from ST_SQL_PASSWORD.",
    ),
]
Bulk = Annotated[
    bool,
    typer.Option(
        "--bulk", help="Apply the store's bulk-loading settings until the ingest ends; says so if it has none."
    ),
]
Progress = Annotated[
    str,
    typer.Option(
        metavar="auto|json|none",
        help="Progress: auto draws a line at a terminal, json prints one line of JSON a second to standard error.",
    ),
]
