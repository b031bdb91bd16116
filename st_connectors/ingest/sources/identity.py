"""What an interrupted ingest compares before it resumes: its sources and how they are read, without their content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash

from st_connectors.ingest.sources.formats import Format
from st_connectors.ingest.sources.rows import Reading
from st_connectors.ingest.sources.sql import SqlSource
from st_connectors.ingest.sources.text_files import text_files

__all__ = [
    "STANDARD_INPUT",
    "Identity",
    "Source",
    "describe_path",
    "describe_query",
    "difference",
    "reading_options",
]

STANDARD_INPUT = "standard input"
MAX_SHOWN = 3
"""The number of sources that a message names."""
MAX_QUERY = 60
"""The number of characters of a query in a message."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source as it can be recognized without reading it; what is not known of it is None.

    ``name`` is the absolute path of a file or folder, the address of a database without its password, or "standard
    input". ``size`` is in bytes and ``modified`` in nanoseconds since 1970. Of a folder, ``files`` counts the text
    files, ``size`` is their sum, ``modified`` the latest time, and ``digest`` a hash of their paths, sizes and times.
    ``id`` is the id of a text file that is not read as part of a folder.
    """

    name: str
    form: str | None = None
    size: int | None = None
    modified: int | None = None
    files: int | None = None
    digest: str | None = None
    query: str | None = None
    id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON, without what is not known."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> Source:
        """Return the source of plain values; raise ValueError for values of another form."""
        types = {each.name: int if each.name in {"size", "modified", "files"} else str for each in fields(cls)}
        if not isinstance(value, dict) or "name" not in value:
            raise ValueError(f"expected an object with the name of a source, got {value!r}")
        wrong = [name for name, item in value.items() if type(item) is not types.get(name)]
        if wrong:
            raise ValueError(f"unexpected {wrong[0]!r}: {value[wrong[0]]!r} in a source")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Identity:
    """The sources of an ingest in order, and the options that decide which documents they contain.

    Two ingests with equal identities read the same documents in the same order, if no source was changed without a
    change of its size and time, and if the result of a query is the same. Standard input equals itself.
    """

    sources: tuple[Source, ...]
    options: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "sources": [source.to_json() for source in self.sources],
            "options": {name: list(values) for name, values in self.options.items()},
        }

    @classmethod
    def from_json(cls, value: object) -> Identity:
        """Return the identity of plain values; raise ValueError for values of another form."""
        match value:
            case {"sources": list(sources), "options": dict(options)} if all(map(_are_strings, options.values())):
                return cls(
                    tuple(Source.from_json(source) for source in sources),
                    {str(name): tuple(values) for name, values in options.items()},
                )
            case _:
                raise ValueError(f"expected an object with sources and options, got {type(value).__name__}")


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(item, str) for item in values)


def describe_path(path: Path, form: Format, name: str | None = None) -> Source:
    """Return what identifies a file or folder; ``name`` is the id of a text file, by default its name.

    Raises OSError if it does not exist, and ValueError for a folder without text files.
    """
    absolute = str(path.absolute())
    if form is Format.TEXT and path.is_dir():
        return _describe_folder(path, absolute)
    status = path.stat()
    identifier = (name or path.name) if form is Format.TEXT else None
    return Source(absolute, form.value, status.st_size, status.st_mtime_ns, id=identifier)


def _describe_folder(folder: Path, absolute: str) -> Source:
    digest = xxhash.xxh3_128()
    size = modified = 0
    files = text_files(folder)
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(folder).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        size, modified = size + status.st_size, max(modified, status.st_mtime_ns)
    return Source(absolute, Format.TEXT.value, size, modified, len(files), digest.hexdigest())


def describe_query(source: SqlSource) -> Source:
    """Return the address of a database, without its password, and the query."""
    return Source(source.url.identity, query=source.query)


def reading_options(reading: Reading) -> dict[str, tuple[str, ...]]:
    """Return the options of the command that decide which documents are read; an option without a value has none."""
    return {
        "--id-field": (reading.id_field,),
        "--text-field": tuple(reading.text_fields),
        "--map": tuple(sorted(f"{name}={template}" for name, template in reading.templates.items())),
        "--delimiter": () if reading.delimiter is None else (reading.delimiter,),
        "--quote": (reading.quote or "none",),
        "--encoding": () if reading.encoding is None else (reading.encoding,),
    }


def difference(old: Identity, new: Identity) -> str | None:
    """Return a sentence on the first difference between two identities, or None if they are equal."""
    return _difference_of_options(old, new) or _difference_of_names(old, new) or _difference_of_sources(old, new)


def _difference_of_options(old: Identity, new: Identity) -> str | None:
    for name in dict.fromkeys([*old.options, *new.options]):
        before, now = old.options.get(name, ()), new.options.get(name, ())
        if before != now:
            return f"{name} is {_quoted(now)}, {'not' if now and before else 'and was'} {_quoted(before)}"
    return None


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values)) or "not set"


def _difference_of_names(old: Identity, new: Identity) -> str | None:
    before, now = ([source.name for source in each.sources] for each in (old, new))
    if before == now:
        return None
    more, fewer = Counter(now) - Counter(before), Counter(before) - Counter(now)
    parts = [_listed(names, what) for names, what in ((more, "new"), (fewer, "missing")) if names]
    return "; ".join(parts) or "the sources have another order"


def _listed(names: Counter[str], what: str) -> str:
    """Return how many sources are new or missing, and the first of them."""
    shown = [_shown(name) for name in names.elements()]
    verb = "source is" if len(shown) == 1 else "sources are"
    more = ", …" if len(shown) > MAX_SHOWN else ""
    return f"{len(shown):,} {verb} {what}: {', '.join(shown[:MAX_SHOWN])}{more}"


def _difference_of_sources(old: Identity, new: Identity) -> str | None:
    changes = (_change(before, now) for before, now in zip(old.sources, new.sources, strict=True) if before != now)
    return next(changes, None)


def _change(old: Source, new: Source) -> str:
    """Return what is different about a source."""
    for attribute, sentence in _CHANGES.items():
        before, now = getattr(old, attribute), getattr(new, attribute)
        if before != now:
            return f"{_shown(new.name)} {sentence(now, before)}"
    raise ValueError(f"{new.name} is not different")


def _shown(name: str) -> str:
    """Return a path relative to the current folder, if it is below that; other names unchanged."""
    path, here = Path(name), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else name


def _cut(query: str | None) -> str:
    text = " ".join((query or "").split())
    return repr(text if len(text) <= MAX_QUERY else f"{text[: MAX_QUERY - 1]}…")


def _count(number: int | None) -> str:
    return "none" if number is None else f"{number:,}"


def _moment(modified: int | None) -> str:
    if modified is None:
        return "an unknown time"
    seconds, rest = divmod(modified, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d} UTC"


_CHANGES: Mapping[str, Callable[[Any, Any], str]] = {
    "query": lambda now, before: f"is read by the query {_cut(now)}, not {_cut(before)}",
    "form": lambda now, before: f"is read as {now}, not as {before}",
    "id": lambda now, before: f"has another id: {now!r}, not {before!r}",
    "files": lambda now, before: f"has another number of text files: {_count(now)}, not {_count(before)}",
    "size": lambda now, before: f"has another size: {_count(now)} bytes, not {_count(before)}",
    "modified": lambda now, before: f"was modified at {_moment(now)}, not at {_moment(before)}",
    "digest": lambda _now, _before: "has text files with other names, sizes or times",
}
"""What to say of the first attribute of a source that is different, by the values now and before."""
