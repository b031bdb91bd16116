"""Bodies for Elasticsearch, written out."""

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


def test_an_index_is_made_with_every_choice_written_out():
    """Nothing is left to defaults, which move from version to version."""
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
    """Versions that would leave them out are told not to; older ones do not know the setting."""
    index = wire.index_body(SCHEMA, FORM, version, {})["settings"]["index"]
    assert ("mapping" in index) is excluded


def test_the_mapping_gives_the_schema_back():
    """Fields in their order, in whatever order the server keeps keys; what others wrote is none of ours."""
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
def test_servers_too_old_are_told(version, fine):
    """8.19 and 9.1 are the oldest."""
    problem = wire.too_old(version)
    assert (problem is None) is fine
    if problem:
        assert version in problem


@pytest.mark.parametrize(
    ("metric", "similarity"),
    [(Metric.COSINE, "cosine"), (Metric.DOT, "max_inner_product"), (Metric.EUCLIDEAN, "l2_norm")],
)
def test_metrics_have_their_similarities(metric, similarity):
    """``dot_product`` is for unit vectors only, and never used."""
    fields = {"d": DenseField(2, metric)}
    made = wire.vector_properties(fields, wire.form_for(Schema("c", fields)))
    assert made["d"]["similarity"] == similarity


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
def test_a_field_gets_the_quantisation_that_it_asks_for(quantization, option, kind):
    """As a graph or flat, as the address says; a field that asks for none gets what the address says."""
    fields = {"d": DenseField(2, quantization=quantization)}
    form = wire.form_for(Schema("c", fields), dense_index=option)
    options = wire.vector_properties(fields, form)["d"]["index_options"]
    assert options["type"] == kind
    assert ("m" in options) is kind.endswith("hnsw")


def test_unknown_forms_are_refused():
    """With the known ones."""
    with pytest.raises(ValueError, match="unknown sparse 'text'; expected one of sparse_vector, rank_features"):
        wire.form_for(SCHEMA, sparse="text")
    with pytest.raises(ValueError, match="unknown dense_index 'ivf'; expected one of hnsw, flat"):
        wire.form_for(SCHEMA, dense_index="ivf")


def test_only_options_that_were_named_must_fit():
    """A collection keeps its form; an address that says nothing of it agrees with any."""
    kept = wire.form_for(SCHEMA, sparse="rank_features", dense_index="flat")
    assert form_difference(kept, FORM, {}, dense="dense_index") is None
    assert (
        form_difference(kept, wire.form_for(SCHEMA, dense_index="flat"), {"dense_index": "flat"}, dense="dense_index")
        is None
    )
    told = form_difference(kept, FORM, {"sparse": "sparse_vector", "dense_index": "hnsw"}, dense="dense_index")
    assert told.startswith("the collection stores its field 'sparse' as rank_features, not as sparse_vector")


def test_a_dense_leg():
    """Candidates are written out; the filter goes inside, before the cut."""
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
    """Shortened indexes have all their candidates compared by the full vectors; exact effort has a filter, so that all it leaves are compared."""
    form = replace(FORM, dense={"dense": kind})
    options = {} if effort is None else {"effort": effort}
    body = body_of(Near("dense", UP), form, limit=limit, **options)
    made = body["query"]["knn"]
    assert {key: value for key, value in made.items() if key not in {"field", "query_vector"}} == knn


def test_a_sparse_leg_is_not_pruned():
    """Token ids are keys; the filter does not score."""
    query = {"sparse_vector": {"field": "vector.sparse", "query_vector": {"3": 0.5, "70000": 2.0}, "prune": False}}
    assert body_of(Near("sparse", SPARSE))["query"] == query
    assert body_of(Near("sparse", SPARSE), where=Eq("year", 1999))["query"] == {
        "bool": {"must": [query], "filter": [YEAR]}
    }


def test_a_sparse_leg_of_rank_features_is_linear():
    """One clause for each token."""
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
    """As an empty ``bool`` would not."""
    form = wire.form_for(SCHEMA, sparse=sparse)
    assert body_of(Near("sparse", SparseVector.from_mapping({})), form)["query"] == {"match_none": {}}


def test_a_text_leg():
    """Any word may match, and no word is an operator."""
    assert body_of(Match("text", "a AND (b"))["query"] == {
        "match": {"text.text": {"query": "a AND (b", "operator": "or"}}
    }


@pytest.mark.parametrize("weights", [None, (0.5, 2.0)], ids=["plain", "weights"])
def test_a_fusion_is_one_retriever(weights):
    """Every leg is the query that it is alone, filter and all, cut at ``depth``; nothing is sorted. Not verified on an engine."""
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


def test_other_fusions_are_not_for_the_server():
    """``linear`` leaves a query's equal scores as they are, which is another thing."""
    with pytest.raises(TypeError, match="open_store"):
        body_of(Fuse((Match("text", "a"), Match("text", "b")), method=Weighted((0.5, 0.5))))


def licence(kind, status="active"):
    return {"license": {"type": kind, "status": status}}


SPREAD = {"books@1": {"settings": {"index": {"number_of_shards": "3"}}}}
ALONE = {"books@1": {"settings": {"index": {"number_of_shards": "1"}}}}
BOTH = {FusionMethod.RRF, FusionMethod.RRF_WEIGHTED}


@pytest.mark.parametrize(
    ("told", "version", "settings", "text", "fusion"),
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
def test_fusion_is_declared_by_licence_version_and_shards(told, version, settings, text, fusion):
    """The licence has the retriever, 9.2 its weights, and words are counted over all shards by no retriever."""
    server = server_from(told, {"version": {"number": version}}, settings)
    fields = {"dense": DenseField(2), **({"text": TextField()} if text else {})}
    schema = Schema("books", fields)
    assert wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema), server).fusion == fusion
    assert wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema)).fusion == set()


def test_a_scan_walks_by_shard_and_document():
    """No other order is needed, nor a total."""
    assert scan_body(OWN, None, Parts.PAYLOAD, 500, wire.scan_order(OWN)) == {
        "query": {"match_all": {}},
        "size": 500,
        "sort": [{"_shard_doc": "asc"}],
        "track_total_hits": False,
        "_source": ["payload"],
    }


def test_precision_is_told_by_field():
    """Only a flat index of full vectors compares with all, however many there are; small distances lose digits."""
    fields = {"c": DenseField(2), "e": DenseField(2, Metric.EUCLIDEAN), "s": SparseField(), "t": TextField()}
    schema = Schema("c", fields)
    graph = wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema)).fields
    flat = wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema, dense_index="flat")).fields
    short = wire.capabilities_of(PLUGIN.capabilities, schema, wire.form_for(schema, dense_index="int8_flat")).fields

    assert [fields["c"].exact for fields in (graph, flat, short)] == [False, True, False]
    assert (graph["c"].score_rtol, graph["e"].score_rtol, graph["s"].score_rtol) == (1e-5, 5e-4, 0.004)


def test_other_peoples_mappings_are_read():
    """Vectors, texts and what can be filtered on, by their paths; what cannot be searched is left out."""
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
    """In queries and documents, escape_field where the type takes no dots."""
    form = with_tokens(wire.form_for(SCHEMA, sparse=sparse), TOKENS)
    layout = OwnLayout(SCHEMA, keys_of(form, TOKENS))
    collection = Collection(SCHEMA, form, layout, UNKNOWN)
    _, body = search_lines(wire.DIALECT, collection, [SearchRequest(Near("sparse", SPARSE))])
    assert body["query"] == leg

    key = "te.a" if sparse == "sparse_vector" else "te%2Ea"
    assert layout.to_source(Record("a", {"sparse": SPARSE}))["vector"] == {"sparse": {key: 0.5, "##pot": 2.0}}


def test_a_mapping_remembers_its_vocabulary_by_digest():
    """It is read back; without one nothing is written, and a collection without sparse fields needs none."""
    form = with_tokens(FORM, TOKENS)
    mappings = wire.index_body(SCHEMA, form, "9.5.3", {})["mappings"]
    assert json.loads(mappings["_meta"]["st_connectors"])["tokens"] == TOKENS.digest
    assert stored_schema(mappings) == (SCHEMA, form)
    assert "tokens" not in json.loads(wire.index_body(SCHEMA, FORM, "9.5.3", {})["mappings"]["_meta"]["st_connectors"])
    assert with_tokens(Form({}, {"dense": "hnsw"}), TOKENS).tokens is None


@pytest.mark.parametrize(
    ("kept", "asked", "told"),
    [
        (TOKENS, None, rf"{TOKENS.digest[:12]}…\): name it in the address, as in \?vocabulary="),
        (TOKENS, OTHERS, rf"{TOKENS.digest[:12]}…\), and the address names another \({OTHERS.digest[:12]}…"),
        (None, TOKENS, "are indices, not tokens: leave vocabulary out"),
    ],
)
def test_another_vocabulary_is_told(kept, asked, told):
    """With what to do."""
    with pytest.raises(ValueError, match=told):
        raise ValueError(token_difference(with_tokens(FORM, kept), asked))


@pytest.mark.parametrize("vocabulary", [None, TOKENS])
def test_the_same_vocabulary_is_no_difference(vocabulary):
    """Nor is any, where no field is sparse."""
    assert token_difference(with_tokens(FORM, vocabulary), vocabulary) is None
    assert token_difference(Form({}, {"dense": "hnsw"}), vocabulary) is None
