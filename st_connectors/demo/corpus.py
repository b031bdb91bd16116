"""Turn docstrings into the documents that the demo indexes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from st_connectors.demo.docstrings import Docstring
from st_connectors.demo.plain_words import plain_words
from st_connectors.demo.wordings import wordings

__all__ = ["documents"]

BEGINNING_CHARACTERS = 600
PARAGRAPH_CHARACTERS = 300
FIRST_LINE_CHARACTERS = 120


def documents(docstrings: Iterable[Docstring]) -> Iterator[dict[str, str]]:
    """Yield a document for each docstring, with the qualified name as its id.

    The searched text consists of the name; the beginning of the docstring, which says what the object is for
    (parameters and examples would dilute it); the hand-written wordings, twice, because both models weigh words by
    how often they occur; everyday words for the technical words of both; and the first lines of the enclosing class
    and module. Where wordings exist, a shorter beginning of the docstring is enough.
    """
    corpus = list(docstrings)
    first_lines = {each.name: each.text.partition("\n")[0][:FIRST_LINE_CHARACTERS] for each in corpus}
    phrases_by_name = wordings()
    for docstring in corpus:
        phrases = phrases_by_name.get(docstring.name, "")
        beginning = _first_paragraph(docstring.text) if phrases else _beginning(docstring.text)
        everyday = plain_words(f"{beginning} {phrases}")
        context = _enclosing_first_lines(docstring.name, first_lines)
        parts = [docstring.name, beginning, phrases, phrases, everyday, *context]
        yield {
            "id": docstring.name,
            "text": "\n".join(part for part in parts if part),
            "module": docstring.module,
            "kind": docstring.kind,
            "signature": docstring.signature,
            "docstring": docstring.text,
            "wordings": phrases,
        }


def _first_paragraph(text: str) -> str:
    return text.partition("\n\n")[0][:PARAGRAPH_CHARACTERS]


def _beginning(text: str) -> str:
    """Return the whole paragraphs, or at least the whole lines, that fit into ``BEGINNING_CHARACTERS``."""
    if len(text) <= BEGINNING_CHARACTERS:
        return text
    end = text.rfind("\n\n", 0, BEGINNING_CHARACTERS)
    return text[: end if end > 0 else max(text.rfind("\n", 0, BEGINNING_CHARACTERS), BEGINNING_CHARACTERS // 2)]


def _enclosing_first_lines(name: str, first_lines: Mapping[str, str]) -> list[str]:
    """Return the first lines of the docstrings of the enclosing class and modules, innermost first."""
    parts = name.split(".")
    enclosing = (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return [first_lines[each] for each in enclosing if each in first_lines]
