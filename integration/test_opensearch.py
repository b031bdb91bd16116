"""The conformance suite on OpenSearch 2.19: a server where ST_OPENSEARCH_URL names one, else a container or an assembled node.

Starting one takes half a minute and as many tests as a server answers; it is done where ``ST_REQUIRE`` names ``opensearch``.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator

import pytest

from integration.nodes import Found, Missing, find, required
from st_connectors.testing import HttpErrors, Make, StoreConformance, opener

pytest.importorskip("opensearchpy", reason="needs the opensearch extra")


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The server's HTTP address."""
    if not (os.environ.get("ST_OPENSEARCH_URL") or required("opensearch")):
        pytest.skip("not asked for: ST_REQUIRE=opensearch starts one, ST_OPENSEARCH_URL=http://host:9200 names one")
    match find("opensearch"):
        case Missing(engine, reason):
            pytest.skip(f"{engine}: {reason}")
        case Found() as found:
            with found.open() as running:
                yield running


def address_of(url: str) -> str:
    """Ours for the server's."""
    parts = urllib.parse.urlsplit(url)
    return f"opensearch{'+https' if parts.scheme == 'https' else ''}://{parts.netloc}{parts.path.rstrip('/')}"


class TestOpenSearch(StoreConformance):
    """One shard, Lucene's graph, rank features."""

    client_modules = ("opensearchpy",)
    promises = frozenset({"optional_vectors", "persistent", "partial_failure"})

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, url: str) -> Make:
        """Open stores on the server."""
        return opener(address_of(url))


class TestOpenSearchFailing(HttpErrors):
    """A bad day before a real server."""

    key_variable = "ST_OPENSEARCH_PASSWORD"

    @classmethod
    def through(cls, host: str, port: int) -> str:
        """Say where."""
        return f"opensearch://{host}:{port}"

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls, url: str) -> tuple[str, int] | None:
        """The server."""
        parts = urllib.parse.urlsplit(url)
        return None if parts.hostname is None else (parts.hostname, parts.port or 9200)
