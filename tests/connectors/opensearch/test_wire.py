"""Golden bodies for OpenSearch, and errors of its answers; no client is needed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from st_connectors._lucene.forms import Form, adopted_schema, stored_schema
from st_connectors._lucene.layout import AdoptedLayout, OwnLayout
from st_connectors._lucene.queries import Collection, scan_body, search_lines
from st_connectors.errors import NotFound, Permanent, Refused, Throttled, Unavailable
from st_connectors.filters import Eq, Not
from st_connectors.opensearch import CAPABILITIES, PLUGIN, mapping, seismic_query, wire
from st_connectors.opensearch.faults import error_of
from st_connectors.opensearch.server import UNKNOWN, Server, server_from
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
from st_connectors.store import Candidates, Default, Exact, Fuse, Match, Near, Parts, Record, SearchRequest
from st_core.protocols import ModelKind, ModelRef
from st_core.vectors import SparseVector

SCHEMA = Schema(
    "books",
    {"dense": DenseField(2), "sparse": SparseField(), "text": TextField("body")},
    {"year": FilterKind.INT},
)
NEURAL = Server((2, 19), frozenset({"opensearch-knn", "opensearch-neural-search"}))
PLAIN = Server((2, 19), frozenset({"opensearch-knn"}))
COLLECTION = Collection(SCHEMA, wire.form_for(SCHEMA), OwnLayout(SCHEMA), NEURAL)
UP = np.array([0.0, 1.0], np.float32)
SPARSE = SparseVector.from_mapping({3: 0.5, 70_000: 2.0})
RECENT = {"term": {"filter.year": {"value": 2001}}}


def search(rank, collection=COLLECTION, **options):
    """Return header and body of one search."""
    return search_lines(wire.DIALECT, collection, [SearchRequest(rank, **options)])


def query(rank, collection=COLLECTION, **options):
    """Return the query of one search."""
    return search(rank, collection, **options)[1]["query"]


def test_a_new_index():
    """Alias, settings, schema as a string, and every choice explicit."""
    body = wire.index_body(SCHEMA, wire.form_for(SCHEMA), {"number_of_shards": 2}, {})

    metadata = json.loads(body["mappings"]["_meta"].pop("st_connectors"))
    assert metadata == {"schema": SCHEMA.to_json(), "sparse": {"sparse": "rank_features"}, "dense": {"dense": "lucene"}}
    assert body == {
        "settings": {"index": {"number_of_shards": 2, "knn": True}},
        "aliases": {"books": {"is_write_index": True}},
        "mappings": {
            "dynamic": "strict",
            "_meta": {},
            "properties": {
                "id": {"type": "keyword", "index": False},
                "payload": {"type": "keyword", "index": False, "doc_values": False},
                "filter": {"properties": {"year": {"type": "long"}}},
                "vector": {
                    "properties": {
                        "dense": {
                            "type": "knn_vector",
                            "dimension": 2,
                            "method": {
                                "name": "hnsw",
                                "engine": "lucene",
                                "space_type": "cosinesimil",
                                "parameters": {"m": 16, "ef_construction": 100},
                            },
                        },
                        "sparse": {"type": "rank_features"},
                    }
                },
                "text": {"properties": {"text": {"type": "text", "analyzer": "standard"}}},
            },
        },
    }


def test_a_seismic_index_with_faiss():
    """As OpenSearch 3.3 documents it: setting, type and parameters; the dense field has the engine."""
    parameters = wire.seismic_parameters(
        {"n_postings": "300", "cluster_ratio": "0.1", "quantization_ceiling_ingest": "3.5"}
    )
    body = wire.index_body(SCHEMA, wire.form_for(SCHEMA, sparse="seismic", engine="faiss"), {}, parameters)

    assert body["settings"] == {"index": {"knn": True, "sparse": True}}
    vectors = body["mappings"]["properties"]["vector"]["properties"]
    assert vectors["sparse"] == {
        "type": "sparse_vector",
        "method": {
            "name": "seismic",
            "parameters": {"n_postings": 300, "cluster_ratio": 0.1, "quantization_ceiling_ingest": 3.5},
        },
    }
    assert vectors["dense"]["method"]["engine"] == "faiss"


@pytest.mark.parametrize(
    ("engine", "library", "encoder"),
    [
        ("lucene", "lucene", None),
        ("lucene_int8", "lucene", {"name": "sq", "parameters": {"bits": 7, "confidence_interval": 1.0}}),
        ("faiss_fp16", "faiss", {"name": "sq", "parameters": {"type": "fp16", "clip": False}}),
    ],
)
def test_quantized_engines_have_an_encoder(engine, library, encoder):
    """Beside the parameters of the graph; the form remembers the choice, and scores count as equal less strictly."""
    form = wire.form_for(SCHEMA, engine=engine)
    body = wire.index_body(SCHEMA, form, {}, {})["mappings"]
    method = body["properties"]["vector"]["properties"]["dense"]["method"]
    graph = {"m": 16, "ef_construction": 100}

    assert method["engine"] == library
    assert method["parameters"] == (graph if encoder is None else {**graph, "encoder": encoder})
    assert stored_schema(body) == (SCHEMA, form)
    precision = wire.capabilities_of(CAPABILITIES, SCHEMA, form, NEURAL).fields["dense"]
    assert (precision.exact, precision.score_rtol) == (True, 1e-5 if encoder is None else 0.02)
    near = query(Near("dense", UP), replace(COLLECTION, form=form))["knn"]["vector.dense"]
    assert "ef_search" in near["method_parameters"]


def test_a_quantized_field_has_lucenes_quantizer():
    """It is the one verified; the address cannot choose an engine without it."""
    schema = Schema("books", {"small": DenseField(2, quantization=Quantization.INT8), "full": DenseField(2)})

    assert wire.form_for(schema).dense == {"small": "lucene_int8", "full": "lucene"}
    with pytest.raises(ValueError, match="engine=faiss has no int8 quantization: leave engine out of the address"):
        wire.form_for(schema, engine="faiss")


def test_the_analyser_of_texts_is_that_of_the_address():
    """In the mapping of a collection, and in a mapping for an index of the caller."""
    form = wire.form_for(SCHEMA, analyzer="german")
    body = wire.index_body(SCHEMA, form, {}, {})["mappings"]

    assert body["properties"]["text"] == {"properties": {"text": {"type": "text", "analyzer": "german"}}}
    assert stored_schema(body) == (SCHEMA, form)
    fields = {"body": TextField()}
    assert mapping(fields, analyzer="german")["properties"] == {"body": {"type": "text", "analyzer": "german"}}
    assert mapping(fields)["properties"] == {"body": {"type": "text"}}


def test_an_index_without_dense_vectors_needs_no_knn():
    """A cluster without the k-NN plugin does not know the setting."""
    schema = Schema("words", {"sparse": SparseField()})

    assert wire.index_body(schema, wire.form_for(schema), {}, {})["settings"] == {"index": {}}


def test_the_schema_is_read_from_the_mapping():
    """Together with the form; an index without it is not ours."""
    form = wire.form_for(SCHEMA, engine="faiss")

    assert stored_schema(wire.index_body(SCHEMA, form, {}, {})["mappings"]) == (SCHEMA, form)
    assert stored_schema({"_meta": {"st_connectors": {"other": "shape"}}}) is None
    assert stored_schema({"properties": {}}) is None


def test_a_whole_search():
    """Page, order and source; all shards must answer."""
    header, body = search(Near("sparse", SPARSE), limit=5, offset=10, where=Eq("year", 2001), parts=Parts.ALL)

    assert header == {"allow_partial_search_results": False}
    assert body == {
        "query": {
            "bool": {
                "must": [{"neural_sparse": {"vector.sparse": {"query_tokens": {"3": 0.5, "70000": 2.0}}}}],
                "filter": [RECENT],
            }
        },
        "from": 10,
        "size": 5,
        "sort": [{"_score": "desc"}, {"id": "asc"}],
        "track_total_hits": False,
        "_source": ["payload", "vector"],
    }


def test_without_the_plugin_each_token_is_a_clause():
    """The score is the same: weight times feature, summed."""
    assert query(Near("sparse", SPARSE), replace(COLLECTION, server=PLAIN)) == {
        "bool": {
            "should": [
                {"rank_feature": {"field": "vector.sparse.3", "boost": 0.5, "linear": {}}},
                {"rank_feature": {"field": "vector.sparse.70000", "boost": 2.0, "linear": {}}},
            ]
        }
    }


@pytest.mark.parametrize("heaviest", [64.0, 64.5, 900.0, 1e20])
def test_heavy_weights_are_scaled_and_boosted_back(heaviest):
    """No token weighs over 64, and token times boost is the exact weight."""
    weights = {"1": heaviest, "2": 0.001}
    inner = wire.neural_sparse_query("f", weights)["neural_sparse"]["f"]
    tokens, boost = inner["query_tokens"], inner.get("boost", 1.0)

    assert 0 < max(tokens.values()) <= 64
    assert {token: weight * boost for token, weight in tokens.items()} == weights
    assert ("boost" in inner) is (heaviest > 64)


def test_weights_too_far_apart_for_one_scale_become_clauses():
    """In float32 the lightest would be zero, which is refused; a clause accepts any boost."""
    result = wire.neural_sparse_query("f", {"1": 1e30, "2": 1e-37})

    assert [each["rank_feature"]["boost"] for each in result["bool"]["should"]] == [1e30, 1e-37]


@pytest.mark.parametrize("server", [NEURAL, PLAIN], ids=["neural", "plain"])
def test_an_empty_sparse_query_matches_nothing(server):
    """An empty ``bool`` would match everything."""
    assert query(Near("sparse", SparseVector.from_mapping({})), replace(COLLECTION, server=server)) == {
        "match_none": {}
    }


def test_a_seismic_query_keeps_every_token_and_filters_inside():
    """The default of ``top_n`` is ten."""
    vector = SparseVector.from_mapping(dict.fromkeys(range(30), 1.0))
    collection = replace(COLLECTION, form=wire.form_for(SCHEMA, sparse="seismic"))
    inner = query(Near("sparse", vector), collection, limit=4, offset=2, where=Eq("year", 2001))

    assert inner["neural_sparse"]["vector.sparse"]["method_parameters"] == {
        "k": 6,
        "top_n": 30,
        "heap_factor": 1.0,
        "filter": RECENT,
    }


@pytest.mark.parametrize(
    ("effort", "candidates"),
    [(Default(), 100), (Candidates(7), 10), (Candidates(300), 300), (Candidates(10**6), 10_000)],
    ids=str,
)
def test_dense_efforts(effort, candidates):
    """At least the requested results, at most the server's limit; the filter applies before the limit."""
    assert query(Near("dense", UP), limit=8, offset=2, effort=effort, where=Eq("year", 2001)) == {
        "knn": {
            "vector.dense": {
                "vector": [0.0, 1.0],
                "k": 10,
                "method_parameters": {"ef_search": candidates},
                "filter": RECENT,
            }
        }
    }


@pytest.mark.parametrize(
    ("metric", "space"), [(Metric.COSINE, "cosinesimil"), (Metric.DOT, "innerproduct"), (Metric.EUCLIDEAN, "l2")]
)
def test_exact_effort_compares_with_all_that_have_the_vector(metric, space):
    """A document without it would score 0."""
    schema = replace(SCHEMA, fields={"dense": DenseField(2, metric)})
    collection = Collection(schema, wire.form_for(schema), OwnLayout(schema), NEURAL)

    assert query(Near("dense", UP), collection, effort=Exact(), where=Eq("year", 2001)) == {
        "script_score": {
            "query": {"bool": {"filter": [{"exists": {"field": "vector.dense"}}, RECENT]}},
            "script": {
                "source": "knn_score",
                "lang": "knn",
                "params": {"field": "vector.dense", "query_value": [0.0, 1.0], "space_type": space},
            },
        }
    }


def test_text_counts_words_over_all_shards():
    """Otherwise each shard would score differently."""
    header, body = search(Match("text", "red apple"))

    assert header["search_type"] == "dfs_query_then_fetch"
    assert body["query"] == {"match": {"text.text": {"query": "red apple", "operator": "or"}}}


def test_a_fusion_is_one_hybrid_query():
    """Each leg has the filter and the limit ``depth``; the pipeline is part of the request, and nothing is sorted."""
    rank = Fuse((Near("dense", UP), Near("sparse", SPARSE), Match("text", "tea")), 40, Rrf(k=7))
    header, body = search(rank, where=Eq("year", 2001), limit=5, offset=3, parts=Parts.NONE)

    assert header == {"allow_partial_search_results": False}
    assert body == {
        "query": {
            "hybrid": {
                "queries": [query(leg, where=Eq("year", 2001), limit=40) for leg in rank.legs],
                "pagination_depth": 40,
            }
        },
        "from": 3,
        "size": 5,
        "track_total_hits": False,
        "_source": False,
        "search_pipeline": {
            "phase_results_processors": [
                {"score-ranker-processor": {"combination": {"technique": "rrf", "parameters": {"rank_constant": 7}}}}
            ]
        },
    }


@pytest.mark.parametrize("method", [Rrf(weights=(1.0, 2.0)), Weighted((0.5, 0.5))], ids=["weights", "weighted"])
def test_other_fusions_are_not_sent(method):
    """The server would compute other scores."""
    with pytest.raises(TypeError, match="open_store"):
        search(Fuse((Near("dense", UP), Near("sparse", SPARSE)), 10, method))


@pytest.mark.parametrize(
    ("options", "server", "shards", "fuses"),
    [
        ({}, NEURAL, 1, True),
        ({}, NEURAL, 3, False),
        ({}, NEURAL, None, False),
        ({}, PLAIN, 1, False),
        ({"engine": "faiss"}, NEURAL, 1, False),
        ({"sparse": "seismic"}, NEURAL, 1, False),
    ],
)
def test_fusion_is_declared_where_it_is_verified(options, server, shards, fuses):
    """One shard, the plugin, and the verified engines."""
    can = wire.capabilities_of(CAPABILITIES, SCHEMA, wire.form_for(SCHEMA, **options), replace(server, shards=shards))
    assert can.fusion == ({FusionMethod.RRF} if fuses else frozenset())
    assert can.max_fused_legs == 5


@pytest.mark.parametrize(
    ("layout", "last"), [(OwnLayout(SCHEMA), "id"), (AdoptedLayout(SCHEMA), "_id")], ids=["ours", "theirs"]
)
def test_a_scan_has_a_total_order(layout, last):
    """Each shard counts sequence numbers for itself."""
    body = scan_body(layout, Not(Eq("year", 2001)), Parts.NONE, 100, wire.scan_order(layout))

    assert body["sort"] == [{"_seq_no": "asc"}, {last: "asc"}]
    assert body["size"] == 100
    assert "must_not" in json.dumps(body["query"])


NODES = {"nodes": {"a": {"plugins": [{"name": "x"}, {"name": "y"}]}, "b": {"plugins": [{"name": "y"}]}}}


def info(number, distribution="opensearch"):
    """Return the answer to ``GET /``."""
    named = {"distribution": distribution} if distribution else {}
    return {"version": {"number": number, **named}}


def test_a_server_has_the_plugins_that_all_its_nodes_have():
    """A search may run on any node."""
    assert server_from(info("3.3.0"), NODES, {}) == Server((3, 3), frozenset({"y"}), 1024)


def test_a_server_without_reports_has_the_minimum():
    """Managed services do not report plugins and settings."""
    assert server_from(info("2.19.1"), None, None) == UNKNOWN
    assert not UNKNOWN.has_neural_search


def level(count):
    """Return one level of the cluster's settings."""
    return {"indices": {"query": {"bool": {"max_clause_count": count}}}}


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({"defaults": level("1024")}, 1000),
        ({"persistent": level("70000"), "defaults": level("1024")}, 69_976),
        ({"transient": level("10"), "persistent": level("70000")}, 1),
    ],
)
def test_query_terms_are_the_clauses_less_some_for_the_filter(settings, terms):
    """Transient settings before persistent ones before defaults."""
    server = server_from(info("2.19.1"), NODES, settings)

    assert wire.capabilities_of(CAPABILITIES, SCHEMA, COLLECTION.form, server).max_query_terms == terms


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (info("9.5.3", None), "elasticsearch://"),
        (info("2.18.0"), "2.19 is the oldest"),
        (info("1.3.20"), "2.19 is the oldest"),
        (info("newest"), "right address"),
        ({"title": "another engine", "version": "1.12.0"}, "right address"),
    ],
)
def test_servers_that_are_not_supported(answer, words):
    """The reason is a sentence."""
    result = server_from(answer, None, None)

    assert isinstance(result, str)
    assert words in result


def test_collections_that_a_server_cannot_store():
    """By version, plugins, and the terms of a model."""
    seismic = wire.form_for(SCHEMA, sparse="seismic")
    new = Server((3, 3), NEURAL.plugins)
    models = {"sparse": ModelRef("m", ModelKind.SPARSE, 250_002)}

    assert wire.unfit(SCHEMA, COLLECTION.form, NEURAL) is None
    assert wire.unfit(SCHEMA, COLLECTION.form, UNKNOWN) is None
    assert wire.unfit(SCHEMA, seismic, new) is None
    assert "3.3" in wire.unfit(SCHEMA, seismic, NEURAL)
    assert "neural-search" in wire.unfit(SCHEMA, seismic, Server((3, 3), PLAIN.plugins))
    assert "opensearch-knn" in wire.unfit(SCHEMA, COLLECTION.form, Server((2, 19), frozenset()))
    assert "250002 terms" in wire.unfit(replace(SCHEMA, models=models), seismic, new)


def test_indices_that_seismic_would_change():
    """From 2 ** 15, and only in seismic fields."""
    below = Record("a", {"sparse": SparseVector.from_mapping({2**15 - 1: 1.0})})
    beyond = Record("b", {"sparse": SparseVector.from_mapping({1: 1.0, 2**15: 1.0})})
    seismic = wire.form_for(SCHEMA, sparse="seismic")

    assert wire.record_problem(seismic, below) is None
    assert "32768" in wire.record_problem(seismic, beyond)
    assert wire.record_problem(seismic, Record("c")) is None
    assert wire.record_problem(COLLECTION.form, beyond) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cluster_ratio", "1.5"),
        ("cluster_ratio", "1"),
        ("cluster_ratio", "0"),
        ("n_postings", "0"),
        ("n_postings", "1.5"),
        ("summary_prune_ratio", "nan"),
    ],
)
def test_invalid_parameters_are_refused(name, text):
    """The message has the parameter."""
    with pytest.raises(ValueError, match=name):
        wire.seismic_parameters({name: text})


@pytest.mark.parametrize("options", [{"sparse": "splade"}, {"engine": "nmslib"}])
def test_unknown_forms_are_refused(options):
    """The message has the known ones."""
    with pytest.raises(ValueError, match="expected one of"):
        wire.form_for(SCHEMA, **options)


def test_precision_by_field():
    """Small distances lose digits, and SEISMIC is not exact."""
    schema = replace(SCHEMA, fields={"far": DenseField(2, Metric.EUCLIDEAN), **SCHEMA.fields})
    can = wire.capabilities_of(CAPABILITIES, schema, wire.form_for(schema, sparse="seismic"), NEURAL).fields

    assert set(can) == set(schema.fields)
    assert can["far"].score_rtol > can["dense"].score_rtol
    assert not can["sparse"].exact


def failure(kind, reason, **more):
    """Return the body of an error."""
    return {"error": {"type": kind, "reason": reason, **more}}


CAUSE = {"type": "query_shard_exception", "reason": "failed to create query: weight must be in (0, 64.0], got: 64.5"}


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, failure("search_phase_execution_exception", "failed", root_cause=[CAUSE]), Refused, "64.5"),
        (404, failure("index_not_found_exception", "no such index [books]"), NotFound, "create"),
        (404, "", Permanent, "404"),
        (401, "Unauthorized", Permanent, "ST_OPENSEARCH_PASSWORD"),
        (429, failure("es_rejected_execution_exception", "queue"), Throttled, "queue"),
        (500, failure("too_many_nested_clauses", "maxClauseCount is set to 1024"), Refused, "1024"),
        (400, failure("too_many_clauses", "maxClauseCount is set to 1024"), Refused, "shorten the query or the filter"),
        (500, failure("null_pointer_exception", "oops"), Unavailable, "oops"),
        (503, "no server available", Unavailable, "503"),
    ],
)
def test_errors_by_class(status, body, kind, words):
    """The message quotes the server, and the class says whether a retry can help."""
    error = error_of(status, body, store="opensearch", operation="search", retry_after=3.0)

    assert type(error) is kind
    assert words in str(error)


def test_adopted_mappings_are_read():
    """Vectors of known types, texts and filterable fields; other properties are ignored."""
    mappings = {
        "properties": {
            "title": {"type": "text", "fields": {"raw": {"type": "keyword"}}},
            "year": {"type": "integer"},
            "tags": {"type": "keyword"},
            "place": {"type": "geo_point"},
            "meta": {"properties": {"emb": {"type": "knn_vector", "dimension": 3}}},
            "nest": {"type": "nested", "properties": {"x": {"type": "keyword"}}},
            "cos": {
                "type": "knn_vector",
                "dimension": 4,
                "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
            },
            "ivf": {"type": "knn_vector", "dimension": 4, "method": {"name": "ivf", "space_type": "innerproduct"}},
            "bits": {"type": "knn_vector", "dimension": 8, "data_type": "binary", "space_type": "hamming"},
            "splade": {"type": "rank_features"},
            "seismic": {"type": "sparse_vector"},
        }
    }
    schema, form = adopted_schema("theirs", mappings, {"place": FilterKind.KEYWORD}, wire.vector_field)

    assert schema.fields == {
        "title": TextField("title"),
        "meta.emb": DenseField(3, Metric.EUCLIDEAN),
        "cos": DenseField(4, Metric.COSINE),
        "ivf": DenseField(4, Metric.DOT),
        "splade": SparseField(),
        "seismic": SparseField(),
    }
    assert schema.filterable == {"year": FilterKind.INT, "tags": FilterKind.KEYWORD, "place": FilterKind.KEYWORD}
    assert form == Form(
        {"splade": "rank_features", "seismic": "seismic"}, {"meta.emb": "faiss", "cos": "lucene", "ivf": ""}
    )
    collection = Collection(schema, form, AdoptedLayout(schema), NEURAL)
    assert "method_parameters" not in query(Near("ivf", np.ones(4, np.float32)), collection)["knn"]["ivf"]


def test_the_plugin_has_the_limits_of_a_cluster_with_default_settings():
    """The limit of clauses is a setting of each cluster, and some are left to the filter."""
    assert PLUGIN.capabilities is CAPABILITIES
    assert (CAPABILITIES.max_query_terms, CAPABILITIES.max_clauses) == (1000, 1024)


def test_seismic_conversions_have_all_parameters():
    """Those of the index in the mapping, those of a query in the query; not verified on a server."""
    values = {
        "n_postings": 300,
        "cluster_ratio": 0.2,
        "summary_prune_ratio": 0.5,
        "approximate_threshold": 1000,
        "quantization_ceiling_ingest": 3.5,
        "quantization_ceiling_search": 8.0,
    }
    assert set(values) == set(wire.SEISMIC)
    created = mapping({"splade": SparseField()}, sparse="seismic", seismic=values)
    assert created == {
        "properties": {"splade": {"type": "sparse_vector", "method": {"name": "seismic", "parameters": values}}}
    }

    where = {"term": {"year": 2001}}
    sent = seismic_query("splade", {7: 2.0, 9: 0.5, 3: 0.0}, 5, top_n=1, heap_factor=1.5, where=where)
    parameters = {"k": 5, "top_n": 1, "heap_factor": 1.5, "filter": where}
    assert sent == {
        "neural_sparse": {"splade": {"query_tokens": {"7": 2.0, "9": 0.5}, "method_parameters": parameters}}
    }
    whole = seismic_query("splade", {7: 2.0, 9: 0.5})["neural_sparse"]["splade"]["method_parameters"]
    assert whole == {"k": 10, "top_n": 2, "heap_factor": 1.0}


@pytest.mark.parametrize("key", [32_768, "tea", "1.5"])
def test_a_seismic_query_refuses_other_keys(key):
    """Keys must be indices that SEISMIC can store."""
    with pytest.raises(ValueError, match="below 32768"):
        seismic_query("splade", {key: 1.0})


def test_seismic_parameters_are_checked_in_a_mapping():
    """``cluster_ratio`` is below 1."""
    with pytest.raises(ValueError, match="cluster_ratio"):
        mapping({"splade": SparseField()}, sparse="seismic", seismic={"cluster_ratio": 1.0})
