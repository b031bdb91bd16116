"""The sources of ``st-connectors ingest``, files and databases: how to read them, and their documents."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from st_connectors.ingest.sources import Format, Identity, Meter, Read, Reading, Source, SqlSource

__all__ = [
    "Input",
    "check_unchanged",
    "count_inputs",
    "describe_inputs",
    "find_inputs",
    "find_sources",
    "make_reading",
    "measure",
    "read_inputs",
]

STDIN = "-"
MAX_COUNTED = 16 * 1024 * 1024
"""The bytes of files that are read to count their documents."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file or folder to read and its format; without ``path`` it is standard input, or the result of a query.

    ``name`` is the id of a text file that a pattern matched; without it, the id is the name of the file.
    """

    path: Path | None
    form: Format | None
    query: SqlSource | None = None
    name: str | None = None


def find_sources(sources: Sequence[str], form: str | None, sql: tuple[str, str] | None) -> list[Input]:
    """Return the inputs that sources name and the result of a query, an address and SQL, after them.

    Raises ValueError if there is neither, and as ``find_inputs`` and ``sql_source`` do.
    """
    if sql is None:
        if not sources:
            raise ValueError("name a SOURCE to read, or pass --sql URL QUERY")
        return find_inputs(sources, form)
    from st_connectors.ingest.sources import sql_source

    return [*find_inputs(sources, form), Input(None, None, sql_source(*sql))]


def find_inputs(sources: Sequence[str], form: str | None) -> list[Input]:
    """Return the inputs that sources name, patterns such as ``data/*.jsonl`` expanded.

    The ids of text files that a pattern matches are relative to the folder before its first wildcard. Raises ValueError
    for an unknown format, a path that does not exist, a pattern without a match, and text files with the same id.
    """
    from st_connectors.ingest.sources import Format, check_text_ids, format_of

    if form is not None and form not in {each.value for each in Format}:
        raise ValueError(f"unknown --format {form!r}; expected one of {', '.join(Format)}")
    inputs: list[Input] = []
    for source in sources:
        if source == STDIN:
            inputs.append(Input(None, Format(form) if form else Format.JSONL))
        else:
            paths = _paths(source)
            inputs += [Input(path, Format(form) if form else format_of(path), name=name) for path, name in paths]
    check_text_ids([(each.path, each.name) for each in inputs if each.path and each.form is Format.TEXT])
    return inputs


def _paths(source: str) -> list[tuple[Path, str | None]]:
    """Return the path that a source names, or the files that match it as a pattern, sorted, with their names."""
    path = Path(source).expanduser()
    if path.exists():
        return [(path, None)]
    if not glob.has_magic(source):
        raise ValueError(f"{source}: no such file or folder")
    folder = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207  Path has no absolute patterns
    files = [match for match in matches if match.is_file() and not ("**" in path.parts and _is_linked(match, folder))]
    if not files:
        raise ValueError(f"{source}: no file matches")
    return [(file, file.relative_to(folder).as_posix()) for file in files]


def _is_linked(file: Path, folder: Path) -> bool:
    """Return whether a folder between a file and ``folder`` is a link, which may lead to files that match already."""
    between = takewhile(lambda parent: parent != folder, file.parents)
    return any(parent.is_symlink() for parent in between)


def make_reading(
    id_field: str | None,
    text_fields: Sequence[str] | None,
    maps: Sequence[str] | None,
    *,
    delimiter: str | None,
    quote: str | None,
    encoding: str | None,
    max_document: str | None = None,
) -> Reading:
    """Return how to read sources; raise ValueError for options that are invalid or exclude each other."""
    from st_connectors.ingest.sources import MAX_BYTES, Reading, check_encoding, parse_template

    templates = {}
    for item in maps or ():
        name, equals, template = item.partition("=")
        if not name or not equals:
            raise ValueError(f"--map {item!r}: expected NAME=TEMPLATE, such as text='{{title}}. {{body}}'")
        templates[name] = parse_template(template)
    for name, option, value in (("id", "--id-field", id_field), ("text", "--text-field", text_fields)):
        if value and name in templates:
            raise ValueError(f"{option} and --map {name}=... exclude each other; pass only one of them")
    if quote is not None and quote == delimiter:
        raise ValueError(f"--quote and --delimiter are both {quote!r}; pass different characters")
    return Reading(
        id_field=id_field or "id",
        text_fields=tuple(text_fields or ("text",)),
        templates=templates,
        delimiter=None if delimiter is None else _parse_delimiter(delimiter),
        quote='"' if quote is None else _parse_quote(quote),
        encoding=None if encoding is None else check_encoding(encoding),
        max_bytes=MAX_BYTES if max_document is None else _parse_bytes(max_document),
    )


def _parse_bytes(text: str) -> int:
    """Return a size such as ``100MB``; a number without a unit is in bytes."""
    from st_connectors.cli.options import parse_size

    return parse_size("--max-document", f"{text}B" if text.strip().isdecimal() else text)


def _parse_delimiter(text: str) -> str:
    character = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(character) != 1 or character in '"\r\n':
        raise ValueError(f"--delimiter {text!r}: expected one character other than a quote, or tab")
    return character


def _parse_quote(text: str) -> str:
    if text == "none":
        return ""
    if len(text) != 1 or text in "\r\n":
        raise ValueError(f"--quote {text!r}: expected one character, or none if quotes are ordinary characters")
    return text


def read_inputs(inputs: Iterable[Input], reading: Reading) -> Read:
    """Yield the documents of all inputs in order, without those that ``reading`` skips.

    What remains of ``reading.skip`` at the end is the number of documents that the inputs lack.
    """
    for each in inputs:
        yield from _read(each, reading)


def _read(source: Input, reading: Reading) -> Read:
    from st_connectors.ingest.sources import STANDARD_INPUT, read_path, read_stream

    if source.query is not None:
        return source.query.read(reading)
    assert source.form is not None
    if source.path is None:
        return read_stream(sys.stdin.buffer, source.form, reading, STANDARD_INPUT)
    return read_path(source.path, source.form, reading, name=source.name)


def describe_inputs(inputs: Iterable[Input], reading: Reading) -> Identity:
    """Return what identifies the inputs and their reading, without reading them; raise OSError if a file is missing."""
    from st_connectors.ingest.sources import Identity, reading_options

    return Identity(tuple(map(_describe, inputs)), reading_options(reading))


def _describe(source: Input) -> Source:
    from st_connectors.ingest.sources import STANDARD_INPUT, Source, describe_path, describe_query

    if source.query is not None:
        return describe_query(source.query)
    assert source.form is not None
    if source.path is None:
        return Source(STANDARD_INPUT, source.form.value)
    return describe_path(source.path, source.form, source.name)


def check_unchanged(before: Identity, inputs: Iterable[Input], reading: Reading) -> str | None:
    """Return a sentence on what has changed about the inputs since ``before``, or None.

    A query and standard input cannot be checked.
    """
    from st_connectors.ingest.sources import difference

    try:
        return difference(before, describe_inputs(inputs, reading))
    except (OSError, ValueError) as error:
        return str(error)


def measure(inputs: Iterable[Input]) -> Meter:
    """Return a meter for the size of all inputs, which is unknown with standard input and with a query."""
    from st_connectors.ingest.sources import Meter, size_of_path

    total = 0
    for each in inputs:
        if each.path is None or each.form is None:
            return Meter()
        total += size_of_path(each.path, each.form)
    return Meter(total)


def count_inputs(inputs: Iterable[Input], reading: Reading) -> int | None:
    """Return the exact number of documents of all inputs, if all are files and counting them takes a moment; else None.

    Parquet files state their number of rows; others are read, if they are small. Ctrl-C ends the count too.
    """
    from st_connectors.ingest.sources import Format, Meter, Notes, count_path, size_of_path

    silent = replace(reading, notes=Notes(), meter=Meter())
    total, size = 0, 0
    try:
        for each in inputs:
            if each.path is None or each.form is None:
                return None
            if each.form is not Format.PARQUET:
                size += size_of_path(each.path, each.form)
            if size > MAX_COUNTED:
                return None
            total += count_path(each.path, each.form, silent)
    except (OSError, ValueError, KeyboardInterrupt):
        return None
    return total
