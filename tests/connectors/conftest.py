"""Small encoders with vectors that can be worked out by hand, for tests of ingest, search and the index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from st_connectors.registry import open_store
from st_connectors.store import DenseField, Field, FieldKind, FilterKind, Fusion, Schema, SparseField, Store, TextField
from st_connectors.vectorise import FieldEncoder
from st_core.vectors import SparseMatrix, SparseVector

VOCABULARY = ("apple", "pear", "plum", "boat", "ship", "sea", "red", "green", "blue", "old")


class LetterEncoder:
    """Dense: how often each of the letters a to p occurs, so [n, 16]."""

    dimension = 16
    name = "letters"

    def encode_document(self, inputs: list[str], /) -> np.ndarray:
        return np.array([[text.count(letter) for letter in "abcdefghijklmnop"] for text in inputs], dtype=np.float32)

    encode_query = encode_document


class WordEncoder:
    """Sparse: how often each word of the vocabulary occurs; queries weigh every word twice."""

    name = "words"

    def encode_document(self, inputs: list[str], /) -> SparseMatrix:
        return self._encode(inputs, 1.0)

    def encode_query(self, inputs: list[str], /) -> SparseMatrix:
        return self._encode(inputs, 2.0)

    def decode(self, embeddings: SparseMatrix, /) -> list[list[tuple[str, float]]]:
        return [
            [
                (VOCABULARY[index], weight)
                for index, weight in sorted(row.to_mapping().items(), key=lambda item: -item[1])
            ]
            for row in embeddings.rows()
        ]

    def _encode(self, inputs: list[str], weight: float) -> SparseMatrix:
        rows = [
            SparseVector.from_mapping({i: weight * text.split().count(word) for i, word in enumerate(VOCABULARY)})
            for text in inputs
        ]
        return SparseMatrix.from_rows(rows, len(VOCABULARY))


@pytest.fixture
def letters() -> LetterEncoder:
    return LetterEncoder()


@pytest.fixture
def words() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def encoders(letters: LetterEncoder, words: WordEncoder) -> list[FieldEncoder]:
    """The two as encoders of the fields dense and sparse."""
    return [FieldEncoder("dense", FieldKind.DENSE, letters), FieldEncoder("sparse", FieldKind.SPARSE, words)]


OpenMemory = Callable[..., Store]


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> OpenMemory:
    """Makes an empty collection in memory with the fields dense, sparse and text (or some of them), of this test alone."""

    def make(
        *kinds: str, filterable: dict[str, FilterKind] | None = None, fusion: Fusion | None = None, name: str = "c"
    ) -> Store:
        known: dict[str, Field] = {"dense": DenseField(16), "sparse": SparseField(), "text": TextField()}
        fields = {kind: known[kind] for kind in kinds or known}
        store = open_store(f"memory:{request.node.nodeid}", name, Schema(name, fields, filterable or {}, {}, fusion))
        store.create()
        request.addfinalizer(store.drop)
        return store

    return make
