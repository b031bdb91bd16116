"""A collection answers the calls of MTEB's SearchProtocol; MTEB itself measures it in an environment of its own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from st_connectors.evaluation.mteb import BATCH, IndexSearch, collection_name
from st_connectors.index import Index

CORPUS = [
    {"id": "sea", "title": "The old man", "text": "An ageing fisherman struggles with a giant marlin."},
    {"id": "time", "title": "", "text": "A traveller visits the far future."},
    {"id": "moon", "text": "Members of a club shoot a capsule to the moon."},
    {"id": "copy", "text": "Members of a club shoot a capsule to the moon."},
    {"id": "mars", "title": None, "text": "Martians land with machines."},
]
QUERIES = [
    {"id": "q1", "text": "a fisherman"},
    {"id": "time", "text": "future traveller"},
    {"id": "q3", "text": "a capsule", "instruction": "shot to the moon"},
]
TASK = {"task_metadata": SimpleNamespace(name="Nano_Books"), "hf_split": "test", "hf_subset": "default"}
CALL = TASK | {"encode_kwargs": {"batch_size": 4}, "num_proc": None}


def created(folder, names=None):
    """A function that creates collections in a folder, and notes their names."""

    def create(collection):
        if names is not None:
            names.append(collection)
        return Index.create(f"qdrant+edge:{folder}", collection=collection, sparse="builtin:sparse")

    return create


@pytest.fixture
def search(tmp_path):
    """The protocol of a store in a folder, with the corpus."""
    pytest.importorskip("qdrant_edge", reason="keeps the collection between two openings")
    with IndexSearch("books", created(tmp_path)) as opened:
        opened.index(CORPUS, **CALL)
        yield opened


def test_the_scores_are_those_of_the_index(search, tmp_path):
    """For each query with its instruction, in the order of the store: equal scores follow each other."""
    found = search.search(QUERIES, top_k=4, top_ranked=None, **CALL)
    search.close()

    with Index.open(f"qdrant+edge:{tmp_path}", collection="nano-books-default-test") as index:
        hits = {each["id"]: index.search(each["text"], limit=5) for each in QUERIES[:2]}
        hits["q3"] = index.search("a capsule shot to the moon", limit=4)
        assert index.get(["sea"])[0].payload["text"].startswith("The old man An ageing")
    for query, wanted in hits.items():
        ids = [hit.id for hit in wanted][: 4 + (query == "time")]
        assert list(found[query]) == ids
        assert list(found[query].values()) == pytest.approx([hit.score for hit in wanted][: len(ids)], rel=1e-6)
    first, second = list(found["q3"].items())[:2]
    assert (first[0], second[0]) == ("copy", "moon")
    assert np.float32(first[1]) > np.float32(second[1])


def test_the_own_id_of_a_query_takes_no_place(search):
    """MTEB removes it for tasks that say so, and then as many documents as requested are left."""
    text = "shoot a capsule to the moon"
    queries = [{"id": each, "text": text} for each in ("copy", "moon", "other")]

    found = search.search(queries, top_k=1, **CALL)

    assert {query: list(scores) for query, scores in found.items()} == {
        "copy": ["copy", "moon"],
        "moon": ["copy"],
        "other": ["copy"],
    }


def test_each_corpus_has_a_collection_and_is_encoded_once(tmp_path):
    """A second run finds its documents, and another split has other ones."""
    pytest.importorskip("qdrant_edge", reason="keeps the collection between two openings")
    names = []
    with IndexSearch("books", created(tmp_path, names)) as opened:
        opened.index(CORPUS, **CALL)
        opened.index(CORPUS[:2], **CALL | {"hf_split": "dev"})
        assert set(opened.search(QUERIES[:1], top_k=10, **CALL)["q1"]) <= {"sea", "time"}
        opened.index(CORPUS, **CALL)
        assert "mars" in opened.search([{"id": "q", "text": "Martians"}], top_k=10, **CALL)["q"]
        with pytest.raises(ValueError, match="'nano-books-default-test' has 5 records, and the corpus 2 documents"):
            opened.index(CORPUS[:2], **CALL)
    assert names == ["nano-books-default-test", "nano-books-default-dev", *["nano-books-default-test"] * 2]


def test_many_queries_are_searched_in_batches(search):
    """Every query has its result, under its id as text."""
    found = search.search(({"id": number, "text": "Martians"} for number in range(2 * BATCH + 1)), top_k=1, **CALL)

    assert list(found) == [str(number) for number in range(2 * BATCH + 1)]
    assert all(list(scores) == ["mars"] for scores in found.values())


def test_what_a_store_cannot_do_is_refused(search, tmp_path):
    """Selected documents, conversations, a search before the corpus, and options that MTEB sets."""
    with pytest.raises(ValueError, match="a store cannot order selected documents"):
        search.search(QUERIES, top_k=1, top_ranked={"q1": ["sea"]}, **CALL)
    with pytest.raises(ValueError, match="query 'q1' is a conversation; expected a text"):
        search.search([{"id": "q1", "text": [{"role": "user", "content": "x"}]}], top_k=1, **CALL)
    with pytest.raises(ValueError, match="call index first"):
        IndexSearch("books", created(tmp_path)).search(QUERIES, top_k=1, **CALL)
    with pytest.raises(ValueError, match="limit cannot be an option"):
        IndexSearch("books", created(tmp_path), options={"limit": 3})


def test_names_of_collections():
    """Small letters, digits and hyphens."""
    assert collection_name("NanoFiQA2018.v2", "en-de", "Test_1") == "nanofiqa2018-v2-en-de-test-1"


def test_a_missing_mteb_is_named():
    """With how to install it."""
    with pytest.raises(ImportError, match="mteb"):
        _ = IndexSearch("books", created("x")).mteb_model_meta
