"""Build the collection of the demo, and list the queries that the demo runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from st_connectors.demo.corpus import documents
from st_connectors.demo.docstrings import Docstring
from st_connectors.index import Index
from st_connectors.ingest import IngestReport, Progress
from st_connectors.registry import collections, open_store
from st_connectors.schema import Weighted
from st_core import builtin

__all__ = ["ADDRESS", "COLLECTION", "NEXT_QUESTION", "QUESTIONS", "DemoIndex", "build_index"]

ADDRESS = "qdrant+edge:demo-index"
COLLECTION = "python-docs"
QUESTIONS = ("copy a directory tree", "parse a date string", "most common elements of a list")
NEXT_QUESTION = "remove a folder and everything in it"

WEIGHTS = (0.4, 0.6)
"""The fusion weights of the dense and the sparse leg.

The dense leg has a larger weight than in ``HYBRID_WEIGHTS``, which were chosen for longer texts, because the dense
model represents short texts such as docstrings better.
"""


@dataclass(frozen=True, slots=True)
class DemoIndex:
    """A filled collection: the open index, the report of the ingest, and whether an earlier collection was dropped."""

    index: Index
    report: IngestReport
    is_replacement: bool


def build_index(address: str, docstrings: Iterable[Docstring], *, progress: Progress | None = None) -> DemoIndex:
    """Create the demo's collection and ingest docstrings into it; drop an existing collection of that name first."""
    is_replacement = COLLECTION in collections(address)
    if is_replacement:
        previous = open_store(address, COLLECTION)
        try:
            previous.drop()
        finally:
            previous.close()
    index = Index.create(
        address,
        collection=COLLECTION,
        dense=builtin.DENSE,
        sparse=builtin.SPARSE,
        filterable={"module": "keyword", "kind": "keyword"},
        fusion=Weighted(WEIGHTS),
    )
    report = index.ingest(documents(docstrings), progress=progress)
    return DemoIndex(index, report, is_replacement)
