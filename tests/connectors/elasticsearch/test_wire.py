"""Golden bodies for Elasticsearch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from st_connectors._lucene.forms import (
    Form,
    adopted_schema,
    form_difference,
    keys_of,
    stored_schema,
    token_difference,
    with_tokens,
)
from st_connectors._lucene.layout import OwnLayout
from st_connectors._lucene.queries import Collection, scan_body, search_lines
from st_connectors._lucene.vocabulary import build_vocabulary
from st_connectors.elasticsearch import PLUGIN, wire
from st_connectors.elasticsearch.server import UNKNOWN, server_from
from st_connectors.filters import Eq
from st_connectors.schema import (
    DenseField,
    FilterKind,
    FusionMethod,
    Metric,
    Quantization,
    Rrf,
    Schema,
    SparseField,
    TextField,
    Weighted,
)
from st_connectors.store import Candidates, Exact, Fuse, Match, Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema(
    "books",
    {"dense": DenseField(2), "sparse": SparseField(), "text": TextField()},
    {"year": FilterKind.INT},
    fusion=Rrf(7),
)
OWN = OwnLayout(SCHEMA)
FORM = wire.form_for(SCHEMA)
UP = np.array([0.0, 1.0], np.float32)
SPARSE = SparseVector.from_mapping({3: 0.5, 70_000: 2.0})
YEAR = {"term": {"filter.year": {"value": 1999}}}


def body_of(rank, form=FORM, **options):
    request = SearchRequest(rank, **{"parts": Parts.NONE, **options})
    header, body = search_lines(wire.DIALECT, Collection(SCHEMA, form, OWN, UNKNOWN), [request])
    assert header.pop("search_type", None) == ("dfs_query_then_fetch" if isinstance(rank, Match) else None)
    assert header == {"allow_partial_search_results": False}
    return body


def test_an_index_body_has_every_choice():
    """Nothing is left to defaults, which differ between versions."""
    body = wire.index_body(SCHEMA, FORM, "9.5.3", {"number_of_shards": 2})
    meta = body["mappings"].pop("_meta")["st_connectors"]
    properties = body["mappings"].pop("properties")

    assert body == {
        "settings": {"index": {"number_of_shards": 2, "mapping": {"exclude_source_vectors": False}}},
        "mappings": {"dynamic": "strict"},
    }
    assert properties["vector"] == {
        "properties": {
            "dense": {
                "type": "dense_vector",
                "dims": 2,
                "index": True,
                "similarity": "cosine",
                "index_options": {"type": "hnsw", "m": 16, "ef_construction": 100},
            },
            "sparse": {"type": "sparse_vector", "index_options": {"prune": False}},
        }
    }
    assert list(properties) == ["id", "payload", "filter", "vector", "text"]
    assert json.loads(meta) == {
        "schema": SCHEMA.to_json(),
        "sparse": {"sparse": "sparse_vector"},
        "dense": {"dense": "hnsw"},
    }


@pytest.mark.parametrize(
    ("version", "excluded"), [("8.19.21", False), ("9.1.0", False), ("9.2.0", True), ("10.0.0", True)]
)
def test_the_source_keeps_its_vectors(version, excluded):
    """Versions that would exclude vectors get a setting that older ones do not know."""
    index = wire.index_body(SCHEMA, FORM, version, {})["settings"]["index"]
    assert ("mapping" in index) is excluded


def test_the_schema_is_read_from_the_mapping():
    """Fields keep their order whatever the server does to keys; other metadata is not ours."""
    mappings = wire.index_body(SCHEMA, FORM, "9.5.3", {})["mappings"]
    schema, form = stored_schema(mappings)
    assert schema == SCHEMA
    assert list(schema.fields) == list(SCHEMA.fields)
    assert form == FORM
    assert stored_schema({}) is None
    assert stored_schema({"_meta": {"other": 1}}) is None
    assert stored_schema({"_meta": {"st_connectors": {"not": "ours"}}}) is None


@pytest.mark.parametrize(
    ("version", "fine"),
    [("8.18.9", False), ("8.19.0", True), ("9.0.4", False), ("9.1.0", True), ("10.0.0", True), ("7.17.0", False)],
)
def test_old_servers_are_not_supported(version, fine):
    """8.19 and 9.1 are the oldest of their majors."""
    problem = wire.too_old(version)
    assert (problem is None) is fine
    if problem:
        assert version in problem


@pytest.mark.parametrize(
    ("metric", "similarity"),
    [(Metric.COSINE, "cosine"), (Metric.DOT, "max_inner_product"), (Metric.EUCLIDEAN, "l2_norm")],
)
def test_metrics_have_their_similarities(metric, similarity):
    """``dot_product``, which is for unit vectors only, is never used."""
    fields = {"d": DenseField(2, metric)}
    written = wire.vector_properties(fields, wire.form_for(Schema("c", fields)))
    assert written["d"]["similarity"] == similarity


@pytest.mark.parametrize(
    ("quantization", "option", "kind"),
    [
        (Quantization.NONE, "hnsw", "hnsw"),
        (Quantization.NONE, "int4_hnsw", "int4_hnsw"),
        (Quantization.NONE, "flat", "flat"),
        (Quantization.INT8, "hnsw", "int8_hnsw"),
        (Quantization.INT8, "flat", "int8_flat"),
        (Quantization.INT8, "bbq_flat", "int8_flat"),
        (Quantization.BINARY, "hnsw", "bbq_hnsw"),
        (Quantization.BINARY, "flat", "bbq_flat"),
    ],
)
def test_a_quantized_field_gets_its_index(quantization, option, kind):
    """It is a graph or flat as the address says; other fields get the index of the address."""
    fields = {"d": DenseField(2, quantization=quantization)}
    form = wire.form_for(Schema("c", fields), dense_index=option)
    options = wire.vector_properties(fields, form)["d"]["index_options"]
    assert options["type"] == kind
    assert ("m" in options) is kind.endswith("hnsw")


def test_unknown_forms_are_refused():
    """The message has the known ones."""
    with pytest.raises(ValueError, match="unknown sparse 'text'; expected one of sparse_vector, rank_features"):
        wire.form_for(SCHEMA, sparse="text")
    with pytest.raises(ValueError, match="unknown dense_index 'ivf'; expected one of hnsw, flat"):
        wire.form_for(SCHEMA, dense_index="ivf")


def test_only_options_of_the_address_must_agree():
    """A collection keeps its form; an address without such options agrees with any."""
    stored = wire.form_for(SCHEMA, sparse="rank_features", dense_index="flat")
    assert form_difference(stored, FORM, {}, dense="dense_index") is None
    assert (
        form_difference(stored, wire.form_for(SCHEMA, dense_index="flat"), {"dense_index": "flat"}, dense="dense_index")
        is None
    )
    message = form_difference(stored, FORM, {"sparse": "sparse_vector", "dense_index": "hnsw"}, dense="dense_index")
    assert message.startswith("the collection stores its field 'sparse' as rank_features, not as sparse_vector")


def test_a_dense_leg():
    """Candidates are explicit; the filter is inside the query, before its limit."""
    body = body_of(Near("dense", UP), limit=5, offset=2, where=Eq("year", 1999))
    assert body == {
        "query": {
            "knn": {
                "field": "vector.dense",
                "query_vector": [0.0, 1.0],
                "k": 7,
                "num_candidates": 100,
                "filter": YEAR,
            }
        },
        "from": 2,
        "size": 5,
        "sort": [{"_score": "desc"}, {"id": "asc"}],
        "track_total_hits": False,
        "_source": False,
    }


@pytest.mark.parametrize(
    ("kind", "effort", "limit", "knn"),
    [
        ("hnsw", None, 200, {"k": 200, "num_candidates": 400}),
        ("hnsw", None, 9_000, {"k": 9_000, "num_candidates": 10_000}),
        ("hnsw", Candidates(64), 10, {"k": 10, "num_candidates": 64}),
        ("hnsw", Candidates(5), 10, {"k": 10, "num_candidates": 10}),
        ("hnsw", Candidates(99_999), 10, {"k": 10, "num_candidates": 10_000}),
        ("hnsw", Exact(), 10, {"k": 10_000, "num_candidates": 10_000, "filter": {"exists": {"field": "vector.dense"}}}),
        ("int8_hnsw", None, 10, {"k": 100, "num_candidates": 100, "rescore_vector": {"oversample": 1.0}}),
        ("bbq_flat", None, 10, {"k": 300, "num_candidates": 300, "rescore_vector": {"oversample": 1.0}}),
        ("int4_hnsw", Candidates(50), 10, {"k": 50, "num_candidates": 50, "rescore_vector": {"oversample": 1.0}}),
    ],
)
def test_efforts_are_candidates(kind, effort, limit, knn):
    """All candidates of a quantized index are rescored; exact effort has a filter, whose documents are all compared."""
    form = replace(FORM, dense={"dense": kind})
    options = {} if effort is None else {"effort": effort}
    body = body_of(Near("dense", UP), form, limit=limit, **options)
    written = body["query"]["knn"]
    assert {key: value for key, value in written.items() if key not in {"field", "query_vector"}} == knn


def test_a_sparse_leg_is_not_pruned():
    """Token ids are keys; the filter does not score."""
    query = {"sparse_vector": {"field": "vector.sparse", "query_vector": {"3": 0.5, "70000": 2.0}, "prune": False}}
    assert body_of(Near("sparse", SPARSE))["query"] == query
    assert body_of(Near("sparse", SPARSE), where=Eq("year", 1999))["query"] == {
        "bool": {"must": [query], "filter": [YEAR]}
    }


def test_a_sparse_leg_of_rank_features_is_linear():
    """It has one clause for each token."""
    form = wire.form_for(SCHEMA, sparse="rank_features")
    assert wire.vector_properties(SCHEMA.fields, form)["sparse"] == {"type": "rank_features"}
    assert body_of(Near("sparse", SPARSE), form)["query"] == {
        "bool": {
            "should": [
                {"rank_feature": {"field": "vector.sparse.3", "boost": 0.5, "linear": {}}},
                {"rank_feature": {"field": "vector.sparse.70000", "boost": 2.0, "linear": {}}},
            ]
        }
    }


@pytest.mark.parametrize("sparse", wire.SPARSE)
def test_an_empty_sparse_leg_matches_nothing(sparse):
    """An empty ``bool`` would match everything."""
    form = wire.form_for(SCHEMA, sparse=sparse)
    assert body_of(Near("sparse", SparseVector.from_mapping({})), form)["query"] == {"match_none": {}}


def test_a_text_leg():
    """Any word may match, and no word is an operator."""
    assert body_of(Match("text", "a AND (b"))["query"] == {
        "match": {"text.text": {"query": "a AND (b", "operator": "or"}}
    }


@pytest.mark.parametrize("weights", [None, (0.5, 2.0)], ids=["plain", "weights"])
def test_a_fusion_is_one_retriever(weights):
    """Each leg is its own query with the filter, limited to ``depth``; nothing is sorted. Not verified on a server."""
    legs = (Near("dense", UP), Match("text", "tea"))
    request = {"where": Eq("year", 2001), "limit": 5, "offset": 3, "parts": Parts.NONE}
    body = body_of(Fuse(legs, 40, Rrf(7, weights)), **request)

    alone = [body_of(leg, **{**request, "limit": 40, "offset": 0})["query"] for leg in legs]
    standard = [{"standard": {"query": query}} for query in alone]
    weighted = [{"retriever": each, "weight": weight} for each, weight in zip(standard, weights or (), strict=False)]
    assert body == {
        "retriever": {"rrf": {"retrievers": weighted or standard, "rank_constant": 7, "rank_window_size": 40}},
        "from": 3,
        "size": 5,
        "track_total_hits": False,
        "_source": False,
    }


def test_other_fusions_are_not_sent():
    """``linear`` normalises equal scores differently."""
    with pytest.raises(TypeError, match="open_store"):
        body_of(Fuse((Match("text", "a"), Match("text", "b")), method=Weighted((0.5, 0.5))))


def licence(kind, status="active"):
    return {"license": {"type": kind, "status": status}}


SPREAD = {"books@1": {"settings": {"index": {"number_of_shards": "3"}}}}
ALONE = {"books@1": {"settings": {"index": {"number_of_shards": "1"}}}}
BOTH = {FusionMethod.RRF, FusionMethod.RRF_WEIGHTED}


@pytest.mark.parametrize(
    ("answer", "version", "settings", "text", "fusion"),
    [
        (licence("enterprise"), "9.5.3", ALONE, True, BOTH),
        (licence("trial"), "9.2.0", SPREAD, False, BOTH),
        (licence("trial"), "9.1.9", ALONE, True, {FusionMethod.RRF}),
        (licence("trial"), "8.19.21", ALONE, True, {FusionMethod.RRF}),
        (licence("trial"), "9.5.3", SPREAD, True, set()),
        (licence("trial"), "9.5.3", {}, True, set()),
        (licence("basic"), "9.5.3", ALONE, True, set()),
        (licence("platinum"), "9.5.3", ALONE, True, set()),
        (licence("enterprise", "expired"), "9.5.3", ALONE, True, set()),
        ({}, "9.5.3", ALONE, True, set()),
    ],
)
def test_fusion_is_declared_by_licence_version_and_shards(answer, version, settings, text, fusion):
    """The licence has the retriever, 9.2 its weights, and no retriever counts words over all shards."""
    server = server_from(answer, {"version": {"number": version}}, settings)
    fields = {"dense": DenseField(2), **({"text": TextField()} if text else {})}
    schema = Schema("books", fields)
    assert wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema), server).fusion == fusion
    assert wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema)).fusion == set()


def test_a_scan_is_ordered_by_shard_and_document():
    """It needs neither another order nor a total."""
    assert scan_body(OWN, None, Parts.PAYLOAD, 500, wire.scan_order(OWN)) == {
        "query": {"match_all": {}},
        "size": 500,
        "sort": [{"_shard_doc": "asc"}],
        "track_total_hits": False,
        "_source": ["payload"],
    }


def test_precision_by_field():
    """Only a flat index of full vectors compares all records; small distances lose digits."""
    fields = {"c": DenseField(2), "e": DenseField(2, Metric.EUCLIDEAN), "s": SparseField(), "t": TextField()}
    schema = Schema("c", fields)
    graph = wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema)).fields
    flat = wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema, dense_index="flat")).fields
    short = wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema, dense_index="int8_flat")).fields

    assert [fields["c"].exact for fields in (graph, flat, short)] == [False, True, False]
    assert (graph["c"].score_rtol, graph["e"].score_rtol, graph["s"].score_rtol) == (1e-5, 5e-4, 0.004)


def test_adopted_mappings_are_read():
    """Vectors, texts and filterable fields have their paths as names; vectors that cannot be searched are left out."""
    properties = {
        "vec": {"type": "dense_vector", "dims": 3, "similarity": "dot_product", "index_options": {"type": "bbq_hnsw"}},
        "far": {"type": "dense_vector", "dims": 3, "similarity": "l2_norm"},
        "bytes": {"type": "dense_vector", "dims": 3, "element_type": "byte"},
        "unindexed": {"type": "dense_vector", "dims": 3, "index": False},
        "deep": {"properties": {"splade": {"type": "sparse_vector"}, "features": {"type": "rank_features"}}},
        "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
        "year": {"type": "integer"},
        "score": {"type": "float"},
        "when": {"type": "date"},
        "parts": {"type": "nested", "properties": {"vec": {"type": "dense_vector", "dims": 3}}},
    }
    schema, form = adopted_schema("theirs", {"properties": properties}, {"score": FilterKind.FLOAT}, wire.vector_field)

    assert schema.fields == {
        "vec": DenseField(3, Metric.COSINE),
        "far": DenseField(3, Metric.EUCLIDEAN),
        "deep.splade": SparseField(),
        "deep.features": SparseField(),
        "title": TextField("title"),
    }
    assert schema.filterable == {"year": FilterKind.INT, "when": FilterKind.DATE, "score": FilterKind.FLOAT}
    assert form == Form(
        {"deep.splade": "sparse_vector", "deep.features": "rank_features"}, {"vec": "bbq_hnsw", "far": "hnsw"}
    )


TOKENS = build_vocabulary([("te.a", 3), ("##pot", 70_000)])
OTHERS = build_vocabulary([("te.a", 70_000), ("##pot", 3)])


@pytest.mark.parametrize(
    ("sparse", "leg"),
    [
        (
            "sparse_vector",
            {"sparse_vector": {"field": "vector.sparse", "query_vector": {"te.a": 0.5, "##pot": 2.0}, "prune": False}},
        ),
        (
            "rank_features",
            {
                "bool": {
                    "should": [
                        {"rank_feature": {"field": "vector.sparse.te%2Ea", "boost": 0.5, "linear": {}}},
                        {"rank_feature": {"field": "vector.sparse.##pot", "boost": 2.0, "linear": {}}},
                    ]
                }
            },
        ),
    ],
)
def test_with_a_vocabulary_keys_are_tokens(sparse, leg):
    """In queries and documents, escaped where the type accepts no dots."""
    form = with_tokens(wire.form_for(SCHEMA, sparse=sparse), TOKENS)
    layout = OwnLayout(SCHEMA, keys_of(form, TOKENS))
    collection = Collection(SCHEMA, form, layout, UNKNOWN)
    _, body = search_lines(wire.DIALECT, collection, [SearchRequest(Near("sparse", SPARSE))])
    assert body["query"] == leg

    key = "te.a" if sparse == "sparse_vector" else "te%2Ea"
    assert layout.to_source(Record("a", {"sparse": SPARSE}))["vector"] == {"sparse": {key: 0.5, "##pot": 2.0}}


def test_a_mapping_stores_the_digest_of_its_vocabulary():
    """Without a vocabulary or without sparse fields it stores none."""
    form = with_tokens(FORM, TOKENS)
    mappings = wire.index_body(SCHEMA, form, "9.5.3", {})["mappings"]
    assert json.loads(mappings["_meta"]["st_connectors"])["tokens"] == TOKENS.digest
    assert stored_schema(mappings) == (SCHEMA, form)
    assert "tokens" not in json.loads(wire.index_body(SCHEMA, FORM, "9.5.3", {})["mappings"]["_meta"]["st_connectors"])
    assert with_tokens(Form({}, {"dense": "hnsw"}), TOKENS).tokens is None


@pytest.mark.parametrize(
    ("stored", "requested", "message"),
    [
        (TOKENS, None, rf"{TOKENS.digest[:12]}…\): name it in the address, as in \?vocabulary="),
        (TOKENS, OTHERS, rf"{TOKENS.digest[:12]}…\), and the address names another \({OTHERS.digest[:12]}…"),
        (None, TOKENS, "are indices, not tokens: leave vocabulary out"),
    ],
)
def test_another_vocabulary_is_a_difference(stored, requested, message):
    """The message says what to do."""
    with pytest.raises(ValueError, match=message):
        raise ValueError(token_difference(with_tokens(FORM, stored), requested))


@pytest.mark.parametrize("vocabulary", [None, TOKENS])
def test_the_same_vocabulary_is_no_difference(vocabulary):
    """Without sparse fields any vocabulary agrees."""
    assert token_difference(with_tokens(FORM, vocabulary), vocabulary) is None
    assert token_difference(Form({}, {"dense": "hnsw"}), vocabulary) is None
