"""Text and Markdown files, one document each."""

from __future__ import annotations

from pathlib import Path

from st_connectors.ingest.documents import Document, DocumentError, Place
from st_connectors.ingest.sources.rows import Read

__all__ = ["TEXT_SUFFIXES", "read_texts"]

TEXT_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown", ".rst"})


def read_texts(path: Path) -> Read:
    """Yield a file as a document, or the text files of a folder at any depth, sorted; ids are relative paths."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in TEXT_SUFFIXES and file.is_file())
        if not files:
            raise ValueError(f"{path}: no file ends in {', '.join(sorted(TEXT_SUFFIXES))}")
        root = path
    else:
        files, root = [path], path.parent
    for file in files:
        name, place = file.relative_to(root).as_posix(), Place(str(file))
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            yield DocumentError(f"not UTF-8, at byte {error.start}", name, place)
        except OSError as error:
            yield DocumentError(str(error.strerror), name, place)
        else:
            yield Document(name, text, place=place)
