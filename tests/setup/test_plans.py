"""The requests of each store equal the golden files. Those of OpenSearch 2.19 run on a real node in ``integration``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from imitated import DENSE, ENCODER, SPARSE

from st_connectors.errors import Unsupported
from st_connectors.schema import Rrf, Weighted
from st_connectors.setup import milvus, qdrant
from st_connectors.setup.components import COMPONENTS
from st_connectors.setup.elasticsearch import plan as elasticsearch
from st_connectors.setup.encoder import Encoder
from st_connectors.setup.opensearch import plan as opensearch
from st_connectors.setup.options import Options
from st_connectors.setup.requests import Request

OPTIONS = Options("books")
KEYED = replace(ENCODER, has_key=True)
NO_KEY = replace(ENCODER, has_key=False)


def opensearch_requests(options, encoder, version):
    return [step.request for step in opensearch.plan(options, encoder, version)]


CASES = {
    "opensearch-2.19": lambda: opensearch_requests(OPTIONS, ENCODER, (2, 19)),
    "opensearch-2.19-weighted": lambda: opensearch_requests(
        Options("books", "library", "body", Weighted((0.25, 0.75)), batch=8, is_two_phase=True),
        replace(KEYED, reranker=None),
        (2, 19),
    ),
    # Not run on a server.
    "opensearch-3.1": lambda: opensearch_requests(OPTIONS, replace(ENCODER, reranker=None), (3, 1)),
    "opensearch-3.1-semantic": lambda: opensearch_requests(replace(OPTIONS, is_semantic=True), ENCODER, (3, 1)),
    "elasticsearch": lambda: elasticsearch.plan(OPTIONS, KEYED),
    "elasticsearch-semantic": lambda: elasticsearch.plan(replace(OPTIONS, is_semantic=True), ENCODER),
    "qdrant": lambda: [qdrant.creation(OPTIONS, ENCODER), qdrant.query(OPTIONS, ENCODER, "a text")],
    "milvus": lambda: [milvus.creation(OPTIONS, ENCODER), milvus.search(OPTIONS, ENCODER, "a text")],
    "searches": lambda: [
        Request("opensearch", "", opensearch.search_body(OPTIONS, ENCODER, "a text")),
        Request("elasticsearch", "", elasticsearch.search_body(OPTIONS, ENCODER, "a text")),
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_requests_equal_the_golden_file(name):
    """Each golden file is a list of requests, in the order in which they are sent."""
    expected = json.loads((Path(__file__).parent / "golden" / f"{name}.json").read_text("utf-8"))

    assert [request.to_json() for request in CASES[name]()] == expected


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_equal_the_golden_file(name):
    """Vespa and Weaviate get texts for their files."""
    expected = (Path(__file__).parent / "golden" / f"{name}.txt").read_text("utf-8")

    assert f"{COMPONENTS[name](ENCODER)}\n" == expected


def test_time_outs_are_explicit_seconds():
    """OpenSearch before 3.6 waits for 30,000 seconds by default."""
    connectors = [
        request.body
        for request in opensearch_requests(replace(OPTIONS, timeout_s=20), ENCODER, (2, 19))
        if request.path.endswith("connectors/_create")
    ]

    assert len(connectors) == 5
    assert {body["client_config"]["read_timeout"] for body in connectors} == {20}
    assert {body["client_config"]["connection_timeout"] for body in connectors} == {5}


def test_remote_models_always_have_a_configuration():
    """Without it, semantic fields cannot use them."""
    models = [
        request.body
        for request in opensearch_requests(OPTIONS, ENCODER, (2, 19))
        if "models/_register" in request.path and "reranker" not in request.body["name"]
    ]

    assert [body["model_config"]["model_type"] for body in models] == ["TEXT_EMBEDDING"] * 2 + ["SPARSE_ENCODING"] * 2
    assert [body["model_config"]["embedding_dimension"] for body in models] == [384, 384, 30522, 30522]


def test_a_key_is_never_part_of_a_plan():
    """Printed requests name the variable in its place."""
    requests = [*opensearch_requests(OPTIONS, KEYED, (2, 19)), *elasticsearch.plan(OPTIONS, KEYED)]

    assert any("$ST_REMOTE_API_KEY" in str(request) for request in requests)
    assert all("Bearer ${" in str(request) for request in requests if "Authorization" in str(request))


def test_descriptions_change_with_what_they_describe():
    """Another time-out gives another connector, and so another model."""
    first = opensearch.plan(OPTIONS, ENCODER, (2, 19))
    second = opensearch.plan(replace(OPTIONS, timeout_s=5), ENCODER, (2, 19))

    changed = {step.kind for step, other in zip(first, second, strict=True) if step.description != other.description}
    assert changed == {opensearch.Kind.CONNECTOR, opensearch.Kind.MODEL}


@pytest.mark.parametrize(
    ("plan", "options", "encoder", "message"),
    [
        ("opensearch", {"is_semantic": True}, {}, "--semantic needs OpenSearch 3.1, got 2.19"),
        ("opensearch", {"fusion": Rrf(60, (1.0, 2.0))}, {}, "no weights"),
        ("opensearch", {}, {"dense": replace(DENSE, similarity="manhattan")}, "compares by manhattan"),
        ("elasticsearch", {"fusion": Weighted((0.5, 0.5))}, {}, "rank fusion only"),
        ("elasticsearch", {"is_two_phase": True}, {}, "without --two-phase"),
        ("elasticsearch", {}, {"dense": replace(DENSE, similarity="manhattan")}, "compares by manhattan"),
        ("qdrant", {"is_semantic": True}, {}, "not for Qdrant"),
        ("milvus", {}, {"dense": None}, "needs a dense model"),
        ("milvus", {}, {"has_key": True}, "serve without keys"),
        ("milvus", {"is_semantic": True}, {}, "not for Milvus"),
        ("milvus", {}, {"dense": replace(DENSE, similarity="manhattan")}, "compares by manhattan"),
    ],
)
def test_what_a_store_lacks_is_refused_before_any_request(plan, options, encoder, message):
    """The message names the option or the model."""
    plans = {
        "opensearch": lambda *values: opensearch.plan(*values, (2, 19)),
        "elasticsearch": elasticsearch.plan,
        "qdrant": qdrant.creation,
        "milvus": milvus.creation,
    }

    with pytest.raises(Unsupported, match=message):
        plans[plan](replace(OPTIONS, **options), replace(NO_KEY, **encoder))


def test_each_leg_needs_a_weight():
    """OpenSearch would refuse the searches, not the pipeline."""
    with pytest.raises(ValueError, match="expected 2 weights, one for each leg, got 3"):
        opensearch.plan(replace(OPTIONS, fusion=Weighted((0.5, 0.3, 0.2))), ENCODER, (2, 19))


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_need_a_dense_model(name):
    """A sparse model alone is of no use to them."""
    with pytest.raises(ValueError, match="needs a dense model"):
        COMPONENTS[name](Encoder("http://10.0.0.5:8080", sparse=SPARSE))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("Books",), "name 'Books': expected lower-case"),
        (("_books",), "expected lower-case"),
        (("books", "a/b"), "name 'a/b'"),
        (("books", "", "text", Rrf(), 32, 0), "--timeout: expected at least 1 second, got 0"),
        (("books", "", "dense"), "--text-field 'dense' is the name of a field of vectors"),
    ],
)
def test_names_that_some_store_refuses(values, message):
    """One rule for all stores."""
    with pytest.raises(ValueError, match=message):
        Options(*values)
