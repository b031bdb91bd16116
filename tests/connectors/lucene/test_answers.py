"""Answers: vector scores, the order of hits, items of bulk requests, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from st_connectors._lucene import bulk, faults
from st_connectors._lucene.answers import count_shards, read_hits
from st_connectors._lucene.encoding import decode_json
from st_connectors._lucene.layout import OwnLayout
from st_connectors._lucene.queries import filtered, match_query, rank_features_query, where_query
from st_connectors._lucene.scores import unfold_score
from st_connectors.errors import NotFound, Permanent, Refused, Throttled, Unavailable
from st_connectors.filters import Eq
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField
from st_connectors.store import Near, Parts, Record, SearchRequest
from st_core.vectors import SparseVector

SCHEMA = Schema("c", {"dense": DenseField(2, Metric.DOT), "sparse": SparseField()}, {"n": FilterKind.INT})
OWN = OwnLayout(SCHEMA)
UP = np.array([0.0, 1.0], np.float32)

FOLDS = {
    Metric.COSINE: lambda value: (1 + value) / 2,
    Metric.DOT: lambda value: 1 + value if value >= 0 else 1 / (1 - value),
    Metric.EUCLIDEAN: lambda value: 1 / (1 + value * value),
}


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("value", [-900.0, -1.0, -0.5, -1e-3, 0.0, 0.25, 1.0, 900.0])
def test_scores_are_unfolded(metric, value):
    """The metric's value is computed from the engine's score."""
    if (metric is Metric.COSINE and abs(value) > 1) or (metric is Metric.EUCLIDEAN and value > 0):
        pytest.skip("there is no such value of this metric")
    assert unfold_score(metric, FOLDS[metric](value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_scores_stay_in_the_range_of_their_metric():
    """Rounding gives no cosine above 1 and no distance below 0."""
    assert unfold_score(Metric.COSINE, 1.0000001) == 1.0
    assert unfold_score(Metric.COSINE, -1e-8) == -1.0
    assert math.copysign(1, unfold_score(Metric.EUCLIDEAN, 1.0000001)) == 1
    assert unfold_score(Metric.EUCLIDEAN, 0.0) == unfold_score(Metric.DOT, 0.0) == -math.inf


def test_hits_are_ordered_by_score_and_id():
    """Scores are those of the metric, and equal ones are ordered by id."""
    request = SearchRequest(Near("dense", UP), parts=Parts.PAYLOAD)
    documents = [
        {"_id": "b", "_score": None, "sort": [3.0, "b"], "_source": {"payload": '{"k":1}'}},
        {"_id": "a", "_score": None, "sort": [3.0, "a"], "_source": {"payload": "{}"}},
        {"_id": "c", "_score": 0.5, "_source": {"payload": "{}"}},
    ]
    assert [(hit.id, hit.score, hit.payload) for hit in read_hits(SCHEMA, OWN, request, documents)] == [
        ("a", 2.0, {}),
        ("b", 2.0, {"k": 1}),
        ("c", -1.0, {}),
    ]


def test_sparse_scores_are_the_servers():
    """A hit without parts has an empty payload."""
    request = SearchRequest(Near("sparse", SparseVector.from_mapping({1: 1.0})), parts=Parts.NONE)
    (hit,) = read_hits(SCHEMA, OWN, request, [{"_id": "a", "_score": 1.5}])
    assert (hit.id, hit.score, hit.payload) == ("a", 1.5, {})


def test_legs_and_their_filters():
    """A filter does not score."""
    leaf = {"term": {"filter.n": {"value": 1}}}
    assert filtered({"q": 1}, None, OWN) == {"q": 1}
    assert filtered({"q": 1}, Eq("n", 1), OWN) == {"bool": {"must": [{"q": 1}], "filter": [leaf]}}
    assert where_query(Eq("n", 1), OWN) == {"bool": {"filter": [leaf]}}
    assert where_query(None, OWN) == {"match_all": {}}
    assert match_query("text.t", "a +b") == {"match": {"text.t": {"query": "a +b", "operator": "or"}}}


def test_rank_features_are_linear():
    """One clause for each token with its weight as boost; no token matches nothing, unlike an empty ``bool``."""
    assert rank_features_query("vector.s", {"10%2E5": 1.5, "7": 100.0}) == {
        "bool": {
            "should": [
                {"rank_feature": {"field": "vector.s.10%2E5", "boost": 1.5, "linear": {}}},
                {"rank_feature": {"field": "vector.s.7", "boost": 100.0, "linear": {}}},
            ]
        }
    }
    assert rank_features_query("vector.s", {}) == {"match_none": {}}


def _error_of(status, body):
    return faults.error_from_status(
        status, body, store="s", operation="upsert", access="ST_S_API_KEY to a key with the privilege"
    )


RECORDS = [Record("a", {"dense": UP}), Record("b"), Record("c")]


def test_a_bulk_request_has_two_lines_for_a_record_and_one_for_a_deletion():
    """No line names an index, because a write would create it."""
    assert [decode_json(line) for line in bulk.upsert_lines(OWN, RECORDS[:2])] == [
        {"index": {"_id": "a"}},
        {"id": "a", "payload": "{}", "vector": {"dense": [0.0, 1.0]}},
        {"index": {"_id": "b"}},
        {"id": "b", "payload": "{}"},
    ]
    assert bulk.delete_lines(["a", "b", "a"]) == [{"delete": {"_id": "a"}}, {"delete": {"_id": "b"}}]


def test_each_item_has_its_own_error():
    """Throttled items can be retried, refused ones cannot, and positions are those of the batch."""
    refused = {
        "type": "document_parsing_exception",
        "reason": "[1:18] failed to parse",
        "caused_by": {"type": "illegal_argument_exception", "reason": "featureValue must be a positive normal float"},
    }
    answer = {
        "errors": True,
        "items": [
            {"index": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}}},
            {"index": {"status": 201}},
            {"index": {"status": 400, "error": refused}},
        ],
    }
    first, last = bulk.read_rejections(RECORDS, answer, _error_of)
    assert (first.position, first.id, type(first.error), first.error.status) == (0, "a", Throttled, 429)
    assert (last.position, last.id, type(last.error), last.error.status) == (2, "c", Refused, 400)
    assert str(last.error) == (
        "s upsert: the server answered 400: document_parsing_exception: [1:18] failed to parse; "
        "because illegal_argument_exception: featureValue must be a positive normal float"
    )


MISSING = {"type": "index_not_found_exception", "reason": "no such index [c]"}


def test_writes_to_a_missing_collection_are_not_found():
    """The collection is missing; no record is at fault."""
    answer = {"errors": True, "items": [{"index": {"status": 404, "error": MISSING}}] * 3}
    with pytest.raises(NotFound, match="create the collection first"):
        bulk.read_rejections(RECORDS, answer, _error_of)
    with pytest.raises(NotFound):
        bulk.raise_for_deletions(1, {"items": [{"delete": {"status": 404, "error": MISSING}}]}, _error_of)


def test_deleting_the_absent_is_silent():
    """An item with status 404 and no error is an absent id."""
    bulk.raise_for_deletions(1, {"items": [{"delete": {"status": 404, "result": "not_found"}}]}, _error_of)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, {"error": {"type": "t", "reason": "r"}, "status": 400}, Refused, "400: t: r"),
        (400, {"error": "no handler found for uri"}, Refused, "no handler found"),
        (401, {"error": {"type": "security_exception", "reason": "no key"}}, Permanent, "set ST_S_API_KEY"),
        (403, b"<html>forbidden</html>", Permanent, "forbidden"),
        (404, {"error": MISSING}, NotFound, "no such index"),
        (404, {"error": {"root_cause": [MISSING], "type": "x"}}, NotFound, "no such index"),
        (404, "", Permanent, r"\(no message\)"),
        (404, {"error": {"type": "search_context_missing_exception"}}, Permanent, "start it again"),
        (409, {"error": {"type": "version_conflict_engine_exception"}}, Refused, r"\(no reason\)"),
        (413, None, Refused, r"413: .*; the request is larger .*http\.max_content_length"),
        (418, "teapot", Permanent, "418: teapot"),
        (429, {}, Throttled, "429"),
        (500, "x\ny", Unavailable, "500: x y"),
        (503, "", Unavailable, "503"),
    ],
)
def test_every_status_has_its_class(status, body, kind, message):
    """The class says whether a retry can help; the message quotes the server in one line."""
    error = _error_of(status, body)
    assert type(error) is kind
    assert error.status == status
    with pytest.raises(kind, match=message):
        raise error


def test_messages_are_cut_short():
    """A message never contains a batch."""
    assert len(str(_error_of(400, {"error": {"type": "t", "reason": "x" * 10_000}}))) < 500


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), *((text, None) for text in ("-3", "soon", "", None, "nan", "inf"))],
)
def test_seconds_to_wait(header, seconds):
    """A date, a word and a negative or infinite number are None."""
    assert faults.parse_seconds(header) == seconds


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ({"a@1": {"settings": {"index": {"number_of_shards": "1"}}}}, 1),
        ({name: {"settings": {"index": {"number_of_shards": "2"}}} for name in "ab"}, 4),
        ({"a@1": {}}, None),
        ({}, None),
        (None, None),
        ("an error", None),
    ],
)
def test_shards_are_counted_over_all_indices(answer, count):
    """None where the server does not report them."""
    assert count_shards(answer) == count
