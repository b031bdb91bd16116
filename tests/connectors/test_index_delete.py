"""Index.delete removes documents by id or by filter, with all their windows, and counts them; alike in every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from st_connectors import Index
from st_connectors.filters import Eq, Not
from st_connectors.index import Split

STORES = {
    "memory:{node}": "st_connectors.memory",
    "qdrant+edge:{folder}/edge": "qdrant_edge",
    "qdrant+memory:{node}": "qdrant_client",
    "milvus+lite:{folder}/lite": "milvus_lite",
}
LONG = "\n\n".join(f"Paragraph {number} of a voyage under the sea." for number in range(60))
DOCUMENTS = [
    {"id": "sea", "text": "a fisherman at sea", "year": 1952},
    {"id": "long", "text": LONG, "year": 1870},
    {"id": "time", "text": "a traveller visits the future", "year": 1895},
    {"id": "none", "text": "without a year"},
]


@pytest.fixture(params=STORES, ids=lambda url: url.partition(":")[0])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    """Four documents, of which one is split into several windows and one has no year."""
    pytest.importorskip(STORES[request.param])
    url = request.param.format(node=request.node.name, folder=tmp_path)
    with Index.create(url, collection="books", sparse="builtin:sparse", filterable={"year": "int"}) as opened:
        report = opened.ingest(DOCUMENTS, split=Split(tokens=64))
        assert (report.confirmed, report.split) == (4, 1)
        assert report.records > 6
        yield opened


def ids_of(index: Index) -> set[str]:
    return {record.id for record in index.store.scan()}


def test_a_filter_deletes_every_window_of_a_document(index):
    """Each window carries the payload of its document, so that none of them remains."""
    assert index.delete(where="year < 1890") == 1
    assert ids_of(index) == {"sea", "time", "none"}


def test_a_filter_as_values_deletes_the_same(index):
    """A missing year is not 1870, so that the complement deletes the document without a year too."""
    assert index.delete(where=Not(Eq("year", 1870))) == 3
    assert {each.partition("#")[0] for each in ids_of(index)} == {"long"}


def test_a_filter_that_matches_nothing_deletes_nothing(index):
    """The number is 0, and all records stay."""
    before = ids_of(index)

    assert index.delete(where="year > 2000") == 0
    assert ids_of(index) == before


def test_the_filter_true_deletes_all(index):
    """The collection stays, without records."""
    assert index.delete(where="true") == 4
    assert index.count() == 0


def test_ids_are_counted_once_and_absent_ones_not_at_all(index):
    """An id that is listed twice is one document."""
    assert index.delete(["long", "nope", "long", "sea"]) == 2
    assert ids_of(index) == {"time", "none"}


def test_neither_or_both_is_an_error_that_deletes_nothing(index):
    """Without ids and without a filter nothing is meant, least of all everything."""
    before = ids_of(index)

    for arguments in ({}, {"ids": ["sea"], "where": "year = 1952"}):
        with pytest.raises(ValueError, match="either ids or where="):
            index.delete(**arguments)
    with pytest.raises(ValueError, match="not filterable"):
        index.delete(where="decade = 1952")
    assert ids_of(index) == before
