"""A stub server for the tests of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture
def stub(lucene_stub):
    """Start a stub of an OpenSearch server."""
    return lucene_stub("opensearch")
