"""Index.adopt: a collection and client of one's own are searched and filled as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from st_connectors import Index
from st_connectors.errors import NotFound, SchemaMismatch, Unsupported

qdrant_client = pytest.importorskip("qdrant_client")
models = qdrant_client.models

TEXTS = {1: "red apple", 2: "green apple pear", 3: "old boat", 40: "sea boat ship"}


@pytest.fixture
def client(letters, words) -> Iterator[Any]:
    """Somebody's collection with integer ids, names of their own, and a vector that is no concern of ours."""
    own = qdrant_client.QdrantClient(":memory:")
    own.create_collection(
        "notes",
        vectors_config={
            "meaning": models.VectorParams(size=16, distance=models.Distance.COSINE),
            "picture": models.VectorParams(size=3, distance=models.Distance.DOT),
        },
        sparse_vectors_config={"terms": models.SparseVectorParams()},
    )
    texts = list(TEXTS.values())
    points = [
        models.PointStruct(
            id=number,
            vector={
                "meaning": dense.tolist(),
                "picture": [1.0, 2.0, 3.0],
                "terms": models.SparseVector(indices=sparse.indices.tolist(), values=sparse.values.tolist()),
            },
            payload={"body": text, "year": number},
        )
        for (number, text), dense, sparse in zip(
            TEXTS.items(), letters.encode_document(texts), words.encode_document(texts), strict=True
        )
    ]
    own.upsert("notes", points)
    yield own
    own.close()


def adopt(client: Any, **options: Any) -> Index:
    return Index.adopt("qdrant+memory:", collection="notes", text_key="body", client=client, **options)


def test_their_collection_is_searched_with_their_ids(client, letters, words):
    """Dense, sparse and hybrid searches find their records by their own ids, payloads as they are."""
    index = adopt(client, dense=("meaning", letters), sparse=("terms", words))

    assert [(hit.id, hit.score) for hit in index.search("boat", mode="sparse")] == [("3", 2.0), ("40", 2.0)]
    best = index.search("green apple pear")[0]
    assert (best.id, dict(best.payload)) == ("2", {"body": "green apple pear", "year": 2})
    assert {leg.field: leg.rank for leg in best.legs} == {"meaning": 1, "terms": 1}


def test_their_collection_is_filled_with_nothing_of_ours(client, letters, words):
    """A document goes in with an integer id and only its own payload, and is found."""
    index = adopt(client, dense=("meaning", letters), sparse=("terms", words), filterable={"year": "int"})

    report = index.ingest([{"id": 7, "body": "blue plum", "year": 7}])

    assert report.confirmed == 1
    [point] = client.retrieve("notes", [7])
    assert point.payload == {"body": "blue plum", "year": 7}
    assert [hit.id for hit in index.search("plum", where="year == 7")] == ["7"]


def test_a_vector_that_is_not_there_is_a_mismatch_that_names_theirs(client, letters):
    """A misspelt vector name says which there are."""
    with pytest.raises(
        SchemaMismatch, match=r"no dense vector 'meening'; its vectors: 'meaning' \(dense\), 'picture' \(dense\)"
    ):
        adopt(client, dense=("meening", letters))


def test_a_model_of_another_dimension_is_a_mismatch(client, letters):
    """Both dimensions are named."""
    with pytest.raises(SchemaMismatch, match="'picture' has 3 dimensions and those of 'letters' have 16"):
        adopt(client, dense=("picture", letters))


@pytest.mark.parametrize("given", ["builtin:dense", ("meaning",), (1, "builtin:dense")])
def test_a_model_is_given_with_the_name_of_its_vector(client, given):
    """A name alone, as ``create`` takes it, is not taken apart."""
    with pytest.raises(TypeError, match=r'dense must be a pair \("their_vector", model\), not'):
        adopt(client, dense=given)


def test_adopting_needs_a_model(client):
    """Nothing to search by is an error."""
    with pytest.raises(ValueError, match="pass dense="):
        adopt(client)


def test_a_collection_that_is_not_there_is_not_found(client, letters):
    """Adopt makes nothing."""
    with pytest.raises(NotFound, match="nope"):
        Index.adopt("qdrant+memory:", collection="nope", dense=("meaning", letters), client=client)


def test_a_store_that_cannot_adopt_says_so(letters):
    """The memory store holds only collections made here."""
    with pytest.raises(Unsupported, match=r"use Index\.open"):
        Index.adopt("memory:", collection="notes", dense=("meaning", letters))


def test_a_text_that_the_store_has_no_index_of_is_only_their_key(client, letters):
    """Hits show it, and a text search says that there is no such leg."""
    index = Index.adopt("qdrant+memory:", collection="notes", dense=("meaning", letters), text="body", client=client)

    assert index.text_key == "body"
    with pytest.raises(ValueError, match="has no text field; its fields are 'meaning'"):
        index.search("boat", mode="text")


def test_something_must_be_searched_by(client):
    """A key of texts without an index of them, and no vector, is nothing to search by."""
    for options in ({}, {"text": "body"}):
        with pytest.raises(ValueError, match="nothing to search by"):
            Index.adopt("qdrant+memory:", collection="notes", client=client, **options)
