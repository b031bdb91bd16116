"""Requests drawn from the OpenAPI document, and from what contradicts it, are answered as the document says."""

from __future__ import annotations

import json
import os

import pytest
from forms import has_form_of_api
from hypothesis import HealthCheck, given, settings

from st_connectors.server.shapes.table import ROUTES

pytest.importorskip("fastapi", reason="needs the extra server")
schemathesis = pytest.importorskip("schemathesis", reason="draws requests from the document")

EXAMPLES = int(os.environ.get("ST_OPENAPI_EXAMPLES", "60"))
MODES = schemathesis.GenerationMode
"""Requests that fit the document, and requests that do not."""


@pytest.fixture(scope="module")
def document(server):
    """The document of a running server."""
    return schemathesis.openapi.from_url(f"{server.address}/openapi.json")


@pytest.mark.parametrize("mode", list(MODES), ids=[mode.value for mode in MODES])
def test_any_request_of_the_document(document, mode):
    """Status and type are documented, refusals have the form of the API, and nothing is an error of the server.

    The schemas are those of the examples: fields that a protocol needs can be missing, and others are ignored.
    """
    checks = schemathesis.checks
    loose = [checks.CHECKS.get_one(name) for name in ("positive_data_acceptance", "negative_data_rejection")]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=document.as_strategy(generation_mode=mode))
    def answer(case):
        response = case.call(timeout=60)
        case.validate_response(response, excluded_checks=loose)
        if response.status_code >= 400 and case.method == "POST":
            assert has_form_of_api(case.path, response.request.body, response.status_code, response.json())

    answer()


@pytest.mark.parametrize("route", ROUTES, ids=[route.path for route in ROUTES])
def test_examples_are_answered(server, route):
    """Unless the built-in models cannot: they are no rerankers, and have no vectors of tokens."""
    answer = server.post(route.path, route.example)

    cannot = ("no reranker model is served", "does not compute vectors of tokens")
    assert answer.status == 200 or any(reason in json.dumps(answer.json) for reason in cannot)
