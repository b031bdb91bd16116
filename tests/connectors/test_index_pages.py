"""Pages, minimum scores and highlights are the same in every store: those of the reference store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from st_connectors import Index
from st_connectors.search import SearchResult

STORES = {
    "memory:{node}": "st_connectors.memory",
    "qdrant+edge:{folder}/edge": "qdrant_edge",
    "qdrant+memory:{node}": "qdrant_client",
    "milvus+lite:{folder}/lite": "milvus_lite",
}
TEXTS = ["the sea", "a boat at sea", "a sea of boats and a boat", "an old boat", "an egg", "the old man and the sea"]


def opened(url: str) -> Index:
    index = Index.create(url, collection="c", dense="builtin:dense", sparse="builtin:sparse")
    index.ingest({"id": str(number), "text": text} for number, text in enumerate(TEXTS))
    return index


@pytest.fixture(params=STORES, ids=lambda url: url.partition(":")[0])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    pytest.importorskip(STORES[request.param])
    with opened(request.param.format(node=request.node.name, folder=tmp_path)) as created:
        yield created


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> Iterator[Index]:
    with opened(f"memory:reference of {request.node.name}") as created:
        yield created


def rows(result: SearchResult) -> list[tuple[str, float]]:
    return [(hit.id, pytest.approx(hit.score, rel=1e-4, abs=1e-5)) for hit in result]


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_pages_and_scores_are_cut_alike(index, reference, mode):
    """A page is a slice of the ranking, and a minimum score cuts it before the page is taken."""
    whole = index.search("an old boat at sea", mode=mode)
    assert rows(whole) == rows(reference.search("an old boat at sea", mode=mode))
    for offset in range(len(whole) + 1):
        page = index.search("an old boat at sea", mode=mode, offset=offset, limit=2)
        assert [hit.id for hit in page] == [hit.id for hit in whole][offset : offset + 2]
    least = whole[2].score - 1e-6
    kept = [hit.id for hit in whole if hit.score >= least]
    assert [hit.id for hit in index.search("an old boat at sea", mode=mode, min_score=least, offset=1)] == kept[1:]


def test_highlights_and_explanations_are_alike(index, reference):
    """Terms, their weights and their places in the texts do not depend on the store."""
    for query in ("old boat", "egg"):
        mine, theirs = (each.search(query, explain=True, highlight=True) for each in (index, reference))
        assert mine.legs == theirs.legs
        for hit, other in zip(mine, theirs, strict=True):
            assert [(each.term, each.start, each.end) for each in hit.highlights] == [
                (each.term, each.start, each.end) for each in other.highlights
            ]
            assert [term.term for term in hit.terms] == [term.term for term in other.terms]
            assert [term.weight for term in hit.terms] == pytest.approx([term.weight for term in other.terms], rel=1e-4)
