"""Cranfield's 225 queries on every store: exact hits equal the oracle's up to ties, and quality is as expected.

Runs if the folder ``cranfield`` exists under ``ST_BENCH_DATA`` (default: ``../shared/data`` beside the repository).
``python -m bench.stores`` does the same with float32 vectors, compares with sentence-transformers, and includes
qdrant-client's local mode, whose sparse search takes 50 ms per query.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from integration.stores import address_of, opened

pytest.importorskip("torch", reason="needs the torch extra")
pytest.importorskip("openvino", reason="needs the openvino extra")
pytest.importorskip("qdrant_edge", reason="needs the qdrant extra")
pytest.importorskip("milvus_lite", reason="needs the milvus extra")

from bench import stores

pytestmark = [pytest.mark.engine("cranfield"), pytest.mark.timeout(1800)]  # the fixture encodes 1,400 documents

REFERENCE = 0.4287
"""Dense nDCG@10 by brute force over sentence-transformers 6.2 vectors of the same checkpoint, truncated at 256 tokens.

``bench.stores`` computes it in every run.
"""


@pytest.fixture(scope="module")
def held() -> stores.Material:
    """Return the collection, encoded once in int8: a third of the time, and nDCG equal to four digits."""
    try:
        return stores.material(backend="openvino", model_kwargs={"dtype": "int8"})
    except FileNotFoundError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def oracle(held: stores.Material) -> stores.Found:
    """Return the hits by brute force."""
    return stores.truth(held)


def _assert_good(address: str, held: stores.Material, oracle: stores.Found) -> None:
    assert stores.measure(address, held, oracle, REFERENCE)["bad"] == []


@pytest.mark.parametrize("store", ["memory", "qdrant-edge", "milvus-lite"])
def test_embedded(store, held, oracle):
    """Dense, sparse and hybrid hits equal the oracle; nDCG and the recall at default effort are as required."""
    with tempfile.TemporaryDirectory() as folder, opened(store, Path(folder)) as address:
        _assert_good(address, held, oracle)


@pytest.mark.parametrize("engine", ["elasticsearch-9", "opensearch"])
def test_servers(engine, engines, held, oracle):
    """The same holds on servers."""
    _assert_good(address_of(engine, engines.url(engine, also="cranfield")), held, oracle)
