"""Elasticsearch's bodies for rank features on OpenSearch by plain HTTP: the wire is the same, and no module of Elasticsearch in Maven Central has them."""

from __future__ import annotations

import json
import urllib.request

import pytest

from st_connectors.elasticsearch import mapping, rank_features_query
from st_connectors.store import SparseField
from st_core.vectors import SparseVector


@pytest.fixture(scope="module")
def opensearch(engines) -> str:
    """The server's HTTP address."""
    return engines.url("opensearch")


@pytest.mark.engine("opensearch")
def test_rank_features_score_the_inner_product(opensearch):
    """Linear rank features are the inner product for every token, dots and all; saturation ranks by something else."""

    def ask(method: str, path: str, body: object) -> dict:
        lines = "".join(f"{json.dumps(line)}\n" for line in body) if isinstance(body, list) else json.dumps(body)
        kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
        request = urllib.request.Request(opensearch + path, lines.encode(), {"Content-Type": kind}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    index = "/rank-features"
    ask("PUT", index, {"mappings": mapping({"splade": SparseField()}, sparse="rank_features")})
    documents = {"a": {"10%2E5": 2.0, "7": 1.0}, "b": {"10": 8.0, "7": 4.0}, "c": {"50%25": 1.5}}
    lines = [part for key, value in documents.items() for part in ({"index": {"_id": key}}, {"splade": value})]
    ask("POST", f"{index}/_bulk?refresh=true", lines)

    def scores(query: dict) -> dict:
        hits = ask("POST", f"{index}/_search", {"query": query})["hits"]["hits"]
        return {hit["_id"]: hit["_score"] for hit in hits}

    assert scores(rank_features_query("splade", {"10.5": 1.5, "7": 2.0})) == {"b": 8.0, "a": 5.0}
    assert scores(rank_features_query("splade", {"50%": 100.0})) == {"c": 150.0}
    assert scores(rank_features_query("splade", SparseVector.from_mapping({7: 0.5}))) == {"b": 2.0, "a": 0.5}
    assert scores(rank_features_query("splade", {})) == {}
    saturated = {"rank_feature": {"field": "splade.7", "boost": 2.0, "saturation": {"pivot": 2.0}}}
    assert scores(saturated) == pytest.approx({"b": 4 / 3, "a": 2 / 3}, rel=1e-6)
