"""A vocabulary with unusual tokens for the ``?vocabulary=`` option of the Lucene stores, and its test on a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st_connectors.errors import SchemaMismatch
from st_connectors.registry import open_store
from st_connectors.schema import SparseField
from st_connectors.store import Near, Record, SearchRequest
from st_connectors.testing import corpus, opener
from st_connectors.testing.base import Lab
from st_core.vectors import MAX_INDEX, SparseVector

__all__ = ["assert_odd_tokens_are_keys_of_their_own", "vocabulary_file"]

ODD_TOKENS = (
    ".",
    "..",
    "a.b",
    "a.",
    ".a",
    "a..b",
    " ",
    "  a",
    "\x00",
    "\x01\n",
    "*",
    "%2E",
    "%",
    "^",
    "x" * 8_000,
    "👩‍🚀",
    "\u2028",
    "_id",
    "7",
)
"""Tokens that a field type may read as a path, a pattern or an index, or refuse."""


def vocabulary_file(folder: Path) -> Path:
    """Write a tokenizer.json with a token for every index that the suite uses, the unusual ones first."""
    used = {
        index
        for vector in (*corpus.sparse_vectors(corpus.SIZE), *corpus.SPARSE_QUERIES.values())
        for index in vector.indices.tolist()
    }
    used |= {
        place + step
        for place in (0, 2**15, 2**16, 2**24, 2**31, MAX_INDEX - 1)
        for step in (-1, 0, 1)
        if place + step >= 0
    }
    indices = sorted(used | set(range(2_000)))
    tokens = [*ODD_TOKENS, *(f"##t.{index}" for index in indices[len(ODD_TOKENS) :])]
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"model": {"vocab": dict(zip(tokens, indices, strict=True))}}))
    return path


def assert_odd_tokens_are_keys_of_their_own(address: str) -> None:
    """Each token matches only itself and comes back as its index; opening needs the vocabulary."""
    lab = Lab(opener(address))
    try:
        store = lab.new(lab.schema({"sparse": SparseField()}))
        vectors = {str(index): SparseVector.from_mapping({index: 1.5}) for index in range(len(ODD_TOKENS))}
        assert store.upsert([Record(name, {"sparse": vector}) for name, vector in vectors.items()]) == []
        store.refresh()

        found = store.search([SearchRequest(Near("sparse", vector)) for vector in vectors.values()])
        assert [[(hit.id, hit.score) for hit in hits] for hits in found] == [[(name, 2.25)] for name in vectors]
        assert {record.id: record.vectors["sparse"] for record in store.scan()} == vectors
        with pytest.raises(SchemaMismatch, match=r"\?vocabulary="):
            open_store(address.partition("?")[0], store.schema.collection)
    finally:
        lab.close()
