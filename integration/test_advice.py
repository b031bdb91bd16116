"""What Elasticsearch 9 says its vectors take, beside what is reckoned beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from integration.stores import address_of
from st_connectors.advice import advise, sizing_for
from st_connectors.registry import open_store, parse_address, plugins
from st_connectors.store import DenseField, Record, Schema

elasticsearch = pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")

COUNT = 2000


@pytest.mark.engine("elasticsearch-9")
@pytest.mark.parametrize(
    ("index", "file"), [("hnsw", "vec"), ("int8_hnsw", "veq"), ("int4_hnsw", "veq"), ("bbq_hnsw", "veb")]
)
def test_bytes_off_heap(engines, index, file):
    """The vectors of the index take just the bytes reckoned, the graph at most those."""
    url = f"{address_of('elasticsearch-9', engines.url('elasticsearch-9'))}?dense_index={index}"
    address = parse_address(url)
    reckoned = advise(
        sizing_for(plugins()["elasticsearch"], address), count=COUNT, dimension=256, given=address.options
    ).parts
    vectors = np.random.default_rng(0).standard_normal((COUNT, 256)).astype(np.float32)
    name = f"advice-{index}"
    store = open_store(url, name, Schema(name, {"dense": DenseField(256)}))
    store.create()
    try:
        for at in range(0, COUNT, 1000):
            batch = enumerate(vectors[at : at + 1000], at)
            assert store.upsert([Record(str(number), vectors={"dense": vector}) for number, vector in batch]) == []
        store.refresh()
        with elasticsearch.Elasticsearch(f"http://{address.host}:{address.port}") as client:
            found = client.indices.stats(index=name, metric="dense_vector")["_all"]["primaries"]["dense_vector"]
    finally:
        store.drop()
        store.close()

    assert found["value_count"] == COUNT
    assert found["off_heap"][f"total_{file}_size_bytes"] == reckoned["dense"]
    assert found["off_heap"]["total_vex_size_bytes"] <= reckoned["graph"]
