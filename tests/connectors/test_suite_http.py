"""The tests of failures over HTTP, run on the Qdrant adapter's REST way in before a server that only fails."""

from __future__ import annotations

from typing import ClassVar

import pytest

from st_connectors.testing import Gap, HttpErrors

exceptions = pytest.importorskip("qdrant_client.common.client_exceptions")

WISH = "the client itself raises where Retry-After is not a whole number"


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
class TestQdrantRest(HttpErrors):
    """``qdrant://`` before the fault proxy."""

    key_variable = "ST_QDRANT_API_KEY"
    gaps: ClassVar = {
        "test_lasting_faults_are_permanent[other-json]": Gap(
            "the client asserts that there is a result", AssertionError
        ),
        "test_strange_wishes_break_nothing[date]": Gap(WISH, exceptions.QdrantException),
        "test_strange_wishes_break_nothing[word]": Gap(WISH, exceptions.QdrantException),
        "test_strange_wishes_break_nothing[negative]": Gap("the client takes -3 for a time", AssertionError),
    }

    @classmethod
    def through(cls, host, port):
        return f"qdrant://{host}:{port}"
