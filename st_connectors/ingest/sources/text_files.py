"""Text and Markdown files, one document each, with their front matter as payload."""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from st_connectors.disk import OWN_FOLDER
from st_connectors.ingest.documents import Document, DocumentError, Place
from st_connectors.ingest.sources.encodings import Decoder
from st_connectors.ingest.sources.front_matter import split_front_matter
from st_connectors.ingest.sources.ignore_rules import IgnoreFile, is_ignored, read_ignore_file, rules_above
from st_connectors.ingest.sources.limits import too_large
from st_connectors.ingest.sources.notes import Notes
from st_connectors.ingest.sources.rows import Read, Reading

__all__ = ["TEXT_SUFFIXES", "check_text_ids", "count_texts", "read_texts", "text_files"]

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})

_UNREADABLE = "unreadable"
_HIDDEN, _IGNORED, _BINARY, _LINKS = "hidden", "ignored by .gitignore", "binary", "linked"
_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # that of UTF-32 LE begins like UTF-16 LE
MAX_SHOWN = 3


def read_texts(path: Path, reading: Reading, name: str | None = None) -> Read:
    """Yield a file as a document, or the text files of a folder at any depth, sorted; ids are relative paths.

    In a folder, hidden files and folders, those that ``.gitignore`` names, and binary files are skipped. A note counts
    what was skipped. A file that is named itself is always read, under the id ``name``, by default its file name.
    """
    is_folder = path.is_dir()
    skipped: Counter[str] = Counter()
    files = _found(path, skipped) if is_folder else [path]
    said: dict[str, list[str]] = {}
    for file in files:
        identifier = _identifier(file, path, name)
        with reading.meter.reading(lambda: 0.0, _size(file)):
            is_document = not (is_folder and _is_binary(file, reading))
            document = _read(file, identifier, reading, said) if is_document and not reading.skip.one() else None
        if document is not None:
            yield document
        elif not is_document:
            skipped[_BINARY] += 1
    for what, names in said.items():
        reading.notes.add(f"{path}: {what}: {_list(names)}")
    if skipped:
        is_gap = any(reason.startswith(_UNREADABLE) for reason in skipped)
        reading.notes.add(f"{path}: skipped {_describe(skipped)}", is_gap=is_gap)


def count_texts(path: Path, reading: Reading) -> int:
    """Return the number of documents."""
    is_folder = path.is_dir()
    return sum(not (is_folder and _is_binary(file, reading)) for file in text_files(path))


def check_text_ids(sources: Sequence[tuple[Path, str | None]]) -> None:
    """Raise ValueError if two files would have the same id; ``sources`` are paths with their names, as for read_texts.

    Files of one folder have distinct ids.
    """
    if len(sources) < 2:
        return
    files: dict[str, Path] = {}
    for path, name in sources:
        for file in text_files(path):
            identifier = _identifier(file, path, name)
            other = files.setdefault(identifier, file)
            if other.resolve() != file.resolve():
                raise ValueError(
                    f"{other} and {file} would have the same id {identifier!r}: "
                    "pass a folder above both, or a pattern in quotes, whose ids are paths"
                )


def _identifier(file: Path, path: Path, name: str | None) -> str:
    """Return the id of a file of a folder, or of the file ``path`` itself."""
    return (name or path.name) if file == path else file.relative_to(path).as_posix()


def text_files(path: Path) -> list[Path]:
    """Return the files that are read for a path, without the test for binary ones."""
    return _found(path, Counter()) if path.is_dir() else [path]


def _found(folder: Path, skipped: Counter[str]) -> list[Path]:
    files = list(_walk(folder, rules_above(folder.resolve()), skipped))
    if not files:
        also = f" (skipped {_describe(skipped)})" if skipped else ""
        raise ValueError(f"{folder}: no file ends in {', '.join(sorted(TEXT_SUFFIXES))}{also}")
    return files


def _walk(folder: Path, above: Sequence[IgnoreFile], skipped: Counter[str]) -> Iterator[Path]:
    """Yield the text files of a folder at any depth, sorted, and count the others by the reason."""
    resolved = folder.resolve()
    rules = (*above, read_ignore_file(resolved))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        skipped[f"{_UNREADABLE} ({error.strerror})"] += 1
        return
    for entry in entries:
        is_folder = entry.is_dir()
        suffix = Path(entry.name).suffix.lower()
        if entry.name == OWN_FOLDER:
            continue
        if entry.name.startswith("."):
            skipped[_HIDDEN] += 1
        elif is_ignored(resolved / entry.name, rules, is_folder=is_folder):
            skipped[_IGNORED] += 1
        elif is_folder and entry.is_symlink():
            skipped[_LINKS] += 1
        elif is_folder:
            yield from _walk(folder / entry.name, rules, skipped)
        elif suffix in TEXT_SUFFIXES and entry.is_file():
            yield folder / entry.name
        else:
            skipped[suffix or "without an ending"] += 1


def _is_binary(file: Path, reading: Reading) -> bool:
    """Return whether a file is not a text, by its first bytes; no file is if an encoding is named."""
    if reading.encoding is not None:
        return False
    try:
        with file.open("rb") as stream:
            start = stream.read(8192)
    except OSError:  # refused with the reason
        return False
    return b"\0" in start and not start.startswith(_MARKS)


def _read(file: Path, name: str, reading: Reading, said: dict[str, list[str]]) -> Document | DocumentError:
    """Return the document of a file, or the reason why it cannot be read."""
    place = Place(str(file))
    notes = Notes()
    try:
        size = file.stat().st_size
        if size > reading.max_bytes:
            return DocumentError(too_large(size, reading.max_bytes), name, place)
        raw = file.read_bytes()
        text = Decoder(reading.encoding, notes, name).decode(raw)
    except UnicodeDecodeError as error:
        encoding = "UTF-8" if reading.encoding is None else reading.encoding
        return DocumentError(f"not {encoding}, at byte {error.start}", name, place)
    except OSError as error:
        return DocumentError(str(error.strerror), name, place)
    values, body = split_front_matter(text)
    if notes.sentences:
        said.setdefault("not UTF-8; read as cp1252, which is a guess", []).append(name)
    if values is None:
        said.setdefault("the front matter cannot be read and stays in the text", []).append(name)
    payload = {f"original_{key}" if key in {"id", "text"} else key: value for key, value in (values or {}).items()}
    return Document(name, body, payload, place)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _describe(skipped: Counter[str]) -> str:
    """Return the counts by reason, those of other file names last."""
    reasons = [(count, what) for what, count in skipped.items() if not what.startswith((".", "without"))]
    endings = [f"{count:,} {what}" for what, count in skipped.most_common() if what.startswith((".", "without"))]
    parts = [f"{count:,} {what}" for count, what in reasons]
    if endings:
        total = sum(skipped.values()) - sum(count for count, _ in reasons)
        parts.append(f"{total:,} that are no text files ({', '.join(endings[:5])}{', …' if len(endings) > 5 else ''})")
    return ", ".join(parts)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN:,} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
