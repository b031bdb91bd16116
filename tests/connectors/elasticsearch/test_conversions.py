"""Conversions for a caller's own index and client: plain dictionaries, without the client."""

from __future__ import annotations

import subprocess
import sys

import pytest

from st_connectors.elasticsearch import (
    filter_to_elasticsearch,
    linear_retriever,
    mapping,
    rank_features_query,
    sparse_vector_query,
)
from st_connectors.filters import And, Eq, Not
from st_connectors.schema import DenseField, FilterKind, SparseField, TextField
from st_core.vectors import SparseVector


@pytest.mark.parametrize(
    ("weights", "tokens"),
    [
        (SparseVector.from_mapping({7: 0.5, 3: 2.0}), {"3": 2.0, "7": 0.5}),
        ({7: 0.5}, {"7": 0.5}),
        ({"tea": 1.5, "10.5": 1}, {"tea": 1.5, "10.5": 1.0}),
        ({"a": 0.0, "b": -1.0, "c": float("nan"), "d": float("inf"), "e": 1e-40}, {}),
    ],
)
def test_weights_by_index_or_by_token(weights, tokens):
    """Weights that a sparse vector cannot have are omitted, and pruning is off."""
    assert sparse_vector_query("splade", weights) == {
        "sparse_vector": {"field": "splade", "query_vector": tokens, "prune": False}
    }


def test_rank_features_escape_dots():
    """Elasticsearch matches nothing for a key with a dot, and reports no error."""
    query = rank_features_query("splade", {"10.5": 2.0})
    assert query == {"bool": {"should": [{"rank_feature": {"field": "splade.10%2E5", "boost": 2.0, "linear": {}}}]}}


def test_a_weighted_sum_of_queries():
    """Each query has its weight and is scaled to [0, 1]; the window is explicit, because the server's default is 10."""
    words, terms = {"match": {"text": "tea"}}, sparse_vector_query("splade", {7: 0.5})
    assert linear_retriever([words, terms], [0.25, 0.75], depth=40) == {
        "linear": {
            "retrievers": [
                {"retriever": {"standard": {"query": words}}, "weight": 0.25, "normalizer": "minmax"},
                {"retriever": {"standard": {"query": terms}}, "weight": 0.75, "normalizer": "minmax"},
            ],
            "rank_window_size": 40,
        }
    }
    with pytest.raises(ValueError, match="expected one weight for each of 2 queries, got 1 weights"):
        linear_retriever([words, terms], [1.0])


def test_a_mapping_for_ones_own_index():
    """Field names are the paths of the mapping."""
    fields = {"my.vec": DenseField(3), "splade": SparseField(), "title": TextField()}
    assert mapping(fields, sparse="rank_features", dense_index="flat") == {
        "properties": {
            "my.vec": {
                "type": "dense_vector",
                "dims": 3,
                "index": True,
                "similarity": "cosine",
                "index_options": {"type": "flat"},
            },
            "splade": {"type": "rank_features"},
            "title": {"type": "text"},
        }
    }


def test_filters_for_ones_own_fields():
    """Field names are the index's own paths, and a field without a kind is an error."""
    where = And((Eq("a.year", 1999), Not(Eq("tag", "old"))))
    assert filter_to_elasticsearch(where, {"a.year": FilterKind.INT, "tag": FilterKind.KEYWORD}) == {
        "bool": {
            "filter": [{"term": {"a.year": {"value": 1999}}}],
            "must_not": [{"term": {"tag": {"value": "old"}}}],
        }
    }
    with pytest.raises(KeyError):
        filter_to_elasticsearch(where, {})


def test_conversions_need_no_client():
    """Importing them does not import the client."""
    code = (
        "import sys; from st_connectors.elasticsearch import mapping, sparse_vector_query; "
        "print('elasticsearch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
