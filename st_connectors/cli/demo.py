"""``st-connectors demo``."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from st_connectors.cli.options import DEFAULT_DENSE, DEFAULT_SPARSE, AsJson
from st_connectors.cli.output import DONE, REFUSED, complain, print_json, print_result, progress_of, say
from st_connectors.demo.plain_words import plain_words
from st_connectors.demo.wordings import wordings

if TYPE_CHECKING:
    from st_connectors.demo.docstrings import Docstring
    from st_connectors.index import Index

__all__ = ["ADDRESS", "COLLECTION", "QUESTIONS", "build", "demo", "documents"]

ADDRESS = "qdrant+edge:demo-index"
COLLECTION = "python-docs"
QUESTIONS = ("copy a directory tree", "parse a date string", "most common elements of a list")
NEXT = "remove a folder and everything in it"


def demo(as_json: AsJson = False) -> None:
    """Index the docstrings of Python's standard library, with the built-in models and the embedded store, and ask a few questions.

    The collection python-docs in qdrant+edge:demo-index is made anew each time. Needs no network and no torch.

    Example: st-connectors demo
    """
    from st_connectors.demo.docstrings import collect

    began = time.perf_counter()
    found = collect()
    collected = time.perf_counter() - began
    if not as_json:
        say(f"read {len(found):,} docstrings of Python {platform.python_version()} in {collected:.1f} s")
    index, report, replaced = build(ADDRESS, found)
    with index:
        if not as_json:
            again = ", in place of an earlier run's" if replaced else ""
            say(
                f"encoded and stored {report.confirmed:,} in {report.seconds:.1f} s into {ADDRESS}, collection {COLLECTION}{again}: "
            )
            say(f"  {report.confirmed / report.seconds:,.0f} documents a second\n")
        answers = [index.search(question, limit=3) for question in QUESTIONS]
    if as_json:
        print_json(
            {
                "collected_seconds": collected,
                "report": report.to_json(),
                "answers": [answer.to_json() for answer in answers],
            }
        )
    else:
        for answer in answers:
            say(f"“{answer.query}”")
            print_result(answer)
            say()
        say("Go on with:")
        say(f'  {_program()} search "{NEXT}" --in {ADDRESS} --collection {COLLECTION}')
    raise typer.Exit(REFUSED if report.refused_total else DONE)


def _program() -> str:
    """How this command line is called again: by its name where that finds it, else by the path it was called with."""
    called = sys.argv[0]
    return called if shutil.which("st-connectors") is None and Path(called).name == "st-connectors" else "st-connectors"


def build(address: str, found: Iterable[Docstring]) -> tuple[Index, Any, bool]:
    """A new collection of docstrings: the open index, the report, and whether there was one before, which is dropped."""
    from st_connectors.index import Index
    from st_connectors.registry import collections, open_store
    from st_connectors.schema import Weighted

    replaced = COLLECTION in collections(address)
    if replaced:
        old = open_store(address, COLLECTION)
        try:
            old.drop()
        finally:
            old.close()
    index = Index.create(
        address,
        collection=COLLECTION,
        dense=DEFAULT_DENSE,
        sparse=DEFAULT_SPARSE,
        filterable={"module": "keyword", "kind": "keyword"},
        fusion=Weighted(WEIGHTS),
    )
    with progress_of("indexing") as progress:
        report = index.ingest(documents(found), progress=progress)
    for refusal in report.refused:
        complain(f"refused: {refusal.id}: {refusal.reason}")
    return index, report, replaced


def documents(found: Iterable[Docstring]) -> Iterator[dict[str, str]]:
    """Docstrings as documents, the qualified names their ids.

    What is searched is the name, the beginning of the docstring, which says what the thing is for (parameters and examples would dilute it),
    the hand-written wordings of what is used most, twice, for both models weigh words by how often they occur, everyday words for the technical
    ones of both, and the first lines of its class and module, which tell what it belongs to. Where there are wordings, less of the docstring will do.
    """
    listed = list(found)
    first_lines = {item.name: item.text.partition("\n")[0][:FIRST_LINE] for item in listed}
    asked = wordings()
    for item in listed:
        phrases = asked.get(item.name, "")
        beginning = item.text.partition("\n\n")[0][:PARAGRAPH] if phrases else _beginning(item.text)
        everyday = plain_words(f"{beginning} {phrases}")
        parts = [item.name, beginning, phrases, phrases, everyday, *_around(item.name, first_lines)]
        yield {
            "id": item.name,
            "text": "\n".join(part for part in parts if part),
            "module": item.module,
            "kind": item.kind,
            "signature": item.signature,
            "docstring": item.text,
            "wordings": phrases,
        }


def _around(name: str, first_lines: Mapping[str, str]) -> list[str]:
    """The first lines of what a name is part of, the nearest first."""
    pieces = name.split(".")
    outer = (".".join(pieces[:count]) for count in range(len(pieces) - 1, 0, -1))
    return [first_lines[each] for each in outer if each in first_lines]


def _beginning(text: str) -> str:
    """The paragraphs, or at least the lines, that fit into some 600 characters."""
    if len(text) <= BEGINNING:
        return text
    end = text.rfind("\n\n", 0, BEGINNING)
    return text[: end if end > 0 else max(text.rfind("\n", 0, BEGINNING), BEGINNING // 2)]


BEGINNING = 600
PARAGRAPH = 300
FIRST_LINE = 120
"""Characters."""

WEIGHTS = (0.4, 0.6)
"""Of the dense and the sparse leg: texts as short as these lie nearer to what the dense model can hold than those for which ``HYBRID_WEIGHTS`` were chosen."""
