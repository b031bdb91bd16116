"""Requests of OpenSearch's Search Relevance Workbench have the shapes of its source."""

from __future__ import annotations

import json

import pytest

from st_connectors.evaluation import Judged
from st_connectors.evaluation.workbench import (
    SEARCH_TEXT,
    experiment,
    judgments,
    query_set,
    search_configuration,
    write_workbench,
)

JUDGED = Judged(
    {"q1": "red dress", "q2": 'a "nice"\n<b>hat', "q3": "red  dress"},
    {"q1": {"a": 2, "b": 0}, "q2": {"c": 0.5}, "q3": {"a": 1, "d": 1}},
)


def test_queries_and_judgements():
    """Queries of the same text are one, with the highest grades; what is refused in a text becomes a space."""
    assert query_set(JUDGED, "shop", "of a day").path == "/_plugins/_search_relevance/query_sets"
    assert query_set(JUDGED, "shop", "of a day").body == {
        "name": "shop",
        "description": "of a day",
        "sampling": "manual",
        "querySetQueries": [{"queryText": "red dress"}, {"queryText": "a nice b hat"}],
    }
    assert judgments(JUDGED, "shop").path == "/_plugins/_search_relevance/judgments"
    assert judgments(JUDGED, "shop").body == {
        "name": "shop",
        "type": "IMPORT_JUDGMENT",
        "judgmentRatings": [
            {
                "query": "red dress",
                "ratings": [
                    {"docId": "a", "rating": "2.000"},
                    {"docId": "b", "rating": "0.000"},
                    {"docId": "d", "rating": "1.000"},
                ],
            },
            {"query": "a nice b hat", "ratings": [{"docId": "c", "rating": "0.500"}]},
        ],
    }


def test_configurations_and_experiments():
    """The body of a search is a string; an experiment refers to the ids of the answers."""
    found = search_configuration("words", "books", {"query": {"match": {"text": SEARCH_TEXT}}}, search_pipeline="fuse")

    assert found.path == "/_plugins/_search_relevance/search_configurations"
    assert found.body == {
        "name": "words",
        "index": "books",
        "query": '{"query": {"match": {"text": "%SearchText%"}}}',
        "searchPipeline": "fuse",
    }
    assert "searchPipeline" not in search_configuration("words", "books", {"match": SEARCH_TEXT}).body
    assert experiment("s", ["j"], ["c", "d"], size=5).path == "/_plugins/_search_relevance/experiments"
    assert experiment("s", ["j"], ["c", "d"], size=5).body == {
        "querySetId": "s",
        "searchConfigurationList": ["c", "d"],
        "judgmentList": ["j"],
        "size": 5,
        "type": "POINTWISE_EVALUATION",
    }


def test_the_files_are_the_bodies(tmp_path):
    """In a folder that need not exist, with the origin of the judgements."""
    paths = write_workbench(JUDGED, tmp_path / "new", "shop")

    assert [path.name for path in paths] == ["query_set.json", "judgments.json"]
    bodies = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    assert bodies == [each(JUDGED, "shop", "3 queries with judgements").body for each in (query_set, judgments)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: query_set(JUDGED, "x" * 51), "the name 'x+' is refused by the workbench; expected 1 to 50"),
        (lambda: query_set(JUDGED, 'a "b"'), "is refused by the workbench"),
        (lambda: judgments(Judged({"q": " < "}, {"q": {}}), "x"), "query 'q' has 0 characters; the workbench stores"),
        (lambda: query_set(Judged({"q": "x" * 2001}, {"q": {}}), "x"), "query 'q' has 2001 characters"),
        (lambda: search_configuration("a", "b", {"match_all": {}}), "the query of 'a' has no %SearchText%"),
    ],
)
def test_what_the_workbench_refuses_is_refused_before(call, message):
    """In one line."""
    with pytest.raises(ValueError, match=message):
        call()
