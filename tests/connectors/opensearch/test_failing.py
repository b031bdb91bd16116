"""The shared tests of HTTP failures, run on the OpenSearch adapter with a server that only fails."""

from __future__ import annotations

import pytest

from st_connectors.testing import HttpErrors

pytest.importorskip("opensearchpy", reason="needs the opensearch extra")


class TestOpenSearchFailing(HttpErrors):
    """``opensearch://`` through the fault proxy."""

    key_variable = "ST_OPENSEARCH_PASSWORD"

    @classmethod
    def through(cls, host, port):
        return f"opensearch://{host}:{port}"
