"""The shared tests of HTTP failures, run on the Elasticsearch adapter with a server that only fails."""

from __future__ import annotations

import pytest

from st_connectors.testing import HttpErrors

pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")


class TestElasticsearchFailing(HttpErrors):
    """``elasticsearch://`` through the fault proxy."""

    key_variable = "ST_ELASTICSEARCH_API_KEY"

    @classmethod
    def through(cls, host, port):
        return f"elasticsearch://{host}:{port}"
