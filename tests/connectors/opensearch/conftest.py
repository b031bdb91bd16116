"""A server on the loopback interface that answers as it is told."""

from __future__ import annotations

import pytest


@pytest.fixture
def stub(lucene_stub):
    """OpenSearch."""
    return lucene_stub("opensearch")
