"""Elasticsearch's bodies for rank features, sent to OpenSearch by plain HTTP.

Both have the same type and query, and Elasticsearch's module is not in Maven Central.
"""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from integration.vocabularies import vocabulary_file
from st_connectors._lucene.answers import read_hits
from st_connectors._lucene.forms import keys_of, with_tokens
from st_connectors._lucene.keys import digit_keys
from st_connectors._lucene.layout import OwnLayout
from st_connectors._lucene.queries import Collection, search_lines
from st_connectors._lucene.vocabulary import read_vocabulary
from st_connectors.demo.docstrings import collect
from st_connectors.elasticsearch import mapping, rank_features_query, wire
from st_connectors.elasticsearch.server import UNKNOWN
from st_connectors.filters import Eq, Exists, Not
from st_connectors.registry import open_store
from st_connectors.schema import Schema, SparseField
from st_connectors.store import Near, Parts, SearchRequest
from st_connectors.testing import corpus
from st_connectors.testing.agree import assert_hits_agree, assert_records_agree
from st_core import SparseEncoder
from st_core.vectors import SparseVector

QUESTIONS = Path(__file__).parents[1] / "bench" / "python_questions.jsonl"


@pytest.fixture(scope="module")
def opensearch(engines) -> str:
    """Return the server's HTTP address."""
    return engines.url("opensearch")


def ask(url: str, method: str, path: str, body: object) -> dict:
    """Return the answer to one request; a list is sent as JSON lines."""
    lines = "".join(f"{json.dumps(line)}\n" for line in body) if isinstance(body, list) else json.dumps(body)
    kind = "application/x-ndjson" if isinstance(body, list) else "application/json"
    request = urllib.request.Request(url + path, lines.encode(), {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def index(opensearch) -> Iterator[str]:
    """Create an index with Elasticsearch's mapping and return its URL."""
    url = f"{opensearch}/rank-features-{uuid.uuid4().hex[:8]}"
    ask(url, "PUT", "", {"mappings": mapping({"splade": SparseField()}, sparse="rank_features")})
    yield url
    ask(url, "DELETE", "", None)


def fill(index: str, documents: Mapping[str, Mapping[str, float]]) -> None:
    """Index documents by id."""
    lines = [part for key, value in documents.items() for part in ({"index": {"_id": key}}, {"splade": value})]
    assert not ask(index, "POST", "/_bulk?refresh=true", lines)["errors"]


def scores(index: str, query: object, size: int = 10) -> dict[str, float]:
    """Return scores by id, best first."""
    documents = ask(index, "POST", "/_search", {"query": query, "size": size, "_source": False})["hits"]["hits"]
    return {hit["_id"]: hit["_score"] for hit in documents}


@pytest.mark.engine("opensearch")
def test_rank_features_score_the_inner_product(index):
    """Linear rank features are the inner product for every token, also with dots; saturation ranks differently."""
    fill(index, {"a": {"10%2E5": 2.0, "7": 1.0}, "b": {"10": 8.0, "7": 4.0}, "c": {"50%25": 1.5}})

    assert scores(index, rank_features_query("splade", {"10.5": 1.5, "7": 2.0})) == {"b": 8.0, "a": 5.0}
    assert scores(index, rank_features_query("splade", {"50%": 100.0})) == {"c": 150.0}
    assert scores(index, rank_features_query("splade", SparseVector.from_mapping({7: 0.5}))) == {"b": 2.0, "a": 0.5}
    assert scores(index, rank_features_query("splade", {})) == {}
    saturated = {"rank_feature": {"field": "splade.7", "boost": 2.0, "saturation": {"pivot": 2.0}}}
    assert scores(index, saturated) == pytest.approx({"b": 4 / 3, "a": 2 / 3}, rel=1e-6)


@pytest.mark.engine("opensearch")
def test_linear_ranks_as_the_inner_product_and_saturation_does_not(index):
    """Linear rank features rank the demo's corpus as the inner product does; saturation does not.

    ``-s`` prints the figures of docs/stores/elasticsearch.md.
    """
    texts = {each.name: each.text for each in collect()[::3]}
    questions = [json.loads(line)["question"] for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    encoder = SparseEncoder("builtin:sparse")
    documents = dict(zip(texts, encoder.encode_document(list(texts.values())).rows(), strict=True))
    fill(index, {name: digit_keys(vector) for name, vector in documents.items()})
    overlaps: dict[str, list[float]] = {"linear": [], "saturation": []}
    correlations = []
    for vector in encoder.encode_query(questions).rows():
        exact = {name: vector.dot(stored) for name, stored in documents.items()}
        best = sorted(exact, key=exact.__getitem__, reverse=True)[:10]
        linear = scores(index, rank_features_query("splade", vector), 1_000)
        saturated = scores(index, _saturated(vector), 1_000)
        for name, score in list(linear.items())[:10]:
            assert score == pytest.approx(exact[name], rel=0.004)
        for kind, ranking in (("linear", linear), ("saturation", saturated)):
            overlaps[kind].append(len(set(list(ranking)[:10]) & set(best)) / 10)
        both = [name for name in linear if name in saturated][:100]
        correlations.append(float(spearmanr([linear[name] for name in both], [saturated[name] for name in both])[0]))

    overlap = {kind: float(np.mean(values)) for kind, values in overlaps.items()}
    print(
        f"\n{len(documents)} docstrings, {len(questions)} questions; recall of the exact top ten: linear "
        f"{overlap['linear']:.3f}, saturation {overlap['saturation']:.3f}; rank correlation in linear's first hundred "
        f"{np.mean(correlations):.3f}"
    )
    assert overlap["linear"] >= 0.99
    assert overlap["saturation"] < 0.95


@pytest.mark.engine("opensearch")
@pytest.mark.parametrize("keys", ["indices", "tokens"])
def test_the_bodies_of_the_store_agree_with_the_oracle(opensearch, tmp_path, keys):
    """Mapping, documents and searches with ``?sparse=rank_features``, filters, and with or without ``?vocabulary=``."""
    schema = Schema("by-hand", {"sparse": SparseField()}, corpus.FILTERABLE)
    form, vocabulary = wire.form_for(schema, sparse="rank_features"), None
    if keys == "tokens":
        vocabulary = read_vocabulary(str(vocabulary_file(tmp_path)))
        form = with_tokens(form, vocabulary)
    layout = OwnLayout(schema, keys_of(form, vocabulary))
    collection = Collection(schema, form, layout, UNKNOWN)
    records = [
        replace(record, vectors={name: each for name, each in record.vectors.items() if name == "sparse"})
        for record in corpus.library(lacking=True)
    ]
    wheres = (None, Eq("flag", False), Not(Exists("word")))
    requests = [
        SearchRequest(Near("sparse", query), limit=20, where=where)
        for query in corpus.SPARSE_QUERIES.values()
        for where in wheres
    ]
    url = f"{opensearch}/by-hand-{uuid.uuid4().hex[:8]}"
    ask(url, "PUT", "", {"mappings": wire.index_body(schema, form, "9.5.3", {})["mappings"]})
    try:
        lines = [part for each in records for part in ({"index": {"_id": each.id}}, layout.to_source(each))]
        assert not ask(url, "POST", "/_bulk?refresh=true", lines)["errors"]
        answers = ask(url, "POST", "/_msearch", search_lines(wire.DIALECT, collection, requests))["responses"]
        stored = ask(url, "POST", "/_mget", {"ids": [each.id for each in records]})["docs"]
    finally:
        ask(url, "DELETE", "", None)

    with closing(open_store("memory:rank-features", schema.collection, schema)) as oracle:
        oracle.create()
        assert oracle.upsert(records) == []
        whole = oracle.search([replace(each, limit=corpus.SIZE) for each in requests])
        for request, answer, full in zip(requests, answers, whole, strict=True):
            result = read_hits(schema, layout, request, answer["hits"]["hits"])
            bare = [replace(hit, legs=()) for hit in full]  # which a wrapper of open_store adds
            assert_hits_agree(result, bare, offset=0, limit=20, rtol=0.004)
        back = [layout.from_source(each["_id"], each["_source"], Parts.ALL) for each in stored]
        assert_records_agree(back, records)
        oracle.drop()


def _saturated(vector: SparseVector) -> dict:
    """Return the same terms by the default query, whose pivot the server computes."""
    should = [
        {"rank_feature": {"field": f"splade.{key}", "boost": weight, "saturation": {}}}
        for key, weight in digit_keys(vector).items()
    ]
    return {"bool": {"should": should}}
