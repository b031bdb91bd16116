"""Cranfield's 225 queries on every store: exact answers are the oracle's up to ties, and what is found is as good as it should be.

Runs where the folder ``cranfield`` lies under ``ST_BENCH_DATA``, by default ``../shared/data`` beside the repository. ``python -m bench.stores`` does the same
with float32 vectors, beside sentence-transformers' own, and on qdrant-client's local mode too, whose sparse search takes 50 ms a query.
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

pytestmark = pytest.mark.engine("cranfield")

REFERENCE = 0.4287
"""Dense nDCG@10 by brute force over the vectors that sentence-transformers 6.2 makes of the same checkpoint, cut at its 256 tokens, as
``bench.stores`` computes it in every run."""


@pytest.fixture(scope="module")
def held() -> stores.Material:
    """The collection, encoded once: in eight bits, which takes a third of the time and changes no fourth place of nDCG."""
    try:
        return stores.material(backend="openvino", model_kwargs={"dtype": "int8"})
    except FileNotFoundError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def oracle(held: stores.Material) -> stores.Found:
    """What brute force answers."""
    return stores.truth(held)


def _assert_good(address: str, held: stores.Material, oracle: stores.Found) -> None:
    assert stores.measure(address, held, oracle, REFERENCE)["bad"] == []


@pytest.mark.parametrize("store", ["memory", "qdrant-edge", "milvus-lite"])
def test_embedded(store, held, oracle):
    """Dense, sparse and hybrid equal the oracle, nDCG lies where it should, and default effort finds the true ten."""
    with tempfile.TemporaryDirectory() as folder, opened(store, Path(folder)) as address:
        _assert_good(address, held, oracle)


@pytest.mark.parametrize("engine", ["elasticsearch-9", "opensearch"])
def test_servers(engine, engines, held, oracle):
    """The same on servers."""
    _assert_good(address_of(engine, engines.url(engine, also="cranfield")), held, oracle)
