"""Proposed layouts compared with real servers: the bytes that Elasticsearch 9 reports, and applied proposals."""

from __future__ import annotations

import json
import urllib.request
from contextlib import closing

import numpy as np
import pytest

from integration.stores import address_of
from st_connectors.advice import advise, sizing_for
from st_connectors.cli import run
from st_connectors.registry import open_store, parse_address, plugins
from st_connectors.schema import DenseField, Quantization, Schema
from st_connectors.store import Record

elasticsearch = pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")

COUNT = 2000


@pytest.mark.engine("elasticsearch-9")
@pytest.mark.parametrize(
    ("index", "file"), [("hnsw", "vec"), ("int8_hnsw", "veq"), ("int4_hnsw", "veq"), ("bbq_hnsw", "veb")]
)
def test_bytes_off_heap(engines, index, file):
    """The vectors of the index take exactly the predicted bytes, the graph at most as many."""
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


def create(capsys, address, *options):
    """Return the output of ``st-connectors create --apply``."""
    capsys.readouterr()
    status = run(["create", "--in", address, "--collection", "proposed", "--apply", "--json", *options])
    printed = capsys.readouterr()
    assert (status, printed.err) == (0, "")
    return json.loads(printed.out)


def describe(url, what):
    """Return a server's description of the index behind the collection."""
    with urllib.request.urlopen(f"{url}/proposed/_{what}") as answer:
        [index] = json.load(answer).values()
    return index


@pytest.fixture
def server(request, engines):
    """Yield a server's URL and its address as a store; drop the collection afterwards."""
    url = engines.url(request.param)
    address = address_of(request.param, url)
    yield url, address
    with closing(open_store(address, "proposed")) as store:
        store.drop()


def on(engine):
    """Return the URL and address of the fixture."""
    return pytest.param(engine, marks=pytest.mark.engine(engine), id=engine)


@pytest.mark.parametrize("server", [on("elasticsearch-9")], indirect=True)
def test_elasticsearch_is_made_as_proposed(server, capsys):
    """If full vectors do not fit, int8 vectors are proposed, and the index accepts records of the schema."""
    url, address = server
    proposal = create(capsys, address, "--for", "1000", "--memory", "500KB", "--sparse", "none")

    assert (proposal["index"], proposal["made"]) == ("int8_hnsw", True)
    options = describe(url, "mapping")["mappings"]["properties"]["vector"]["properties"]["dense"]["index_options"]
    assert options["type"] == "int8_hnsw"
    with closing(open_store(address, "proposed")) as store:
        assert store.schema.fields["dense"] == DenseField(256, quantization=Quantization.INT8)
        assert store.upsert([Record("a", {"dense": np.ones(256, np.float32)})]) == []


@pytest.mark.parametrize("server", [on("opensearch")], indirect=True)
def test_opensearch_is_made_as_proposed(server, capsys):
    """The proposed graph is an explicit Lucene graph."""
    url, address = server
    proposal = create(capsys, address, "--for", "1000", "--memory", "2MB", "--sparse", "none")

    assert (proposal["index"], proposal["options"]) == ("lucene", {"engine": "lucene"})
    method = describe(url, "mapping")["mappings"]["properties"]["vector"]["properties"]["dense"]["method"]
    assert (method["engine"], method["name"]) == ("lucene", "hnsw")


@pytest.mark.parametrize("server", [on("elasticsearch-9"), on("opensearch")], indirect=True)
def test_as_many_shards_as_proposed(server, capsys):
    """200 GB of sparse vectors are four shards of 50 GB."""
    url, address = server
    proposal = create(capsys, address, "--for", "250000000", "--terms", "100", "--dense", "none")

    assert proposal["shards"] == 4
    assert describe(url, "settings")["settings"]["index"]["number_of_shards"] == "4"


@pytest.mark.engine("milvus-lite")
@pytest.mark.parametrize(("options", "index"), [("", "flat"), ("?index=hnsw", "hnsw")])
def test_milvus_lite_is_made_as_proposed(tmp_path, capsys, options, index):
    """Without options brute force is proposed, which is fast on Milvus Lite; options of the address are respected."""
    pytest.importorskip("pymilvus", reason="needs the milvus extra")
    from st_connectors.milvus.client import open_client

    address = f"milvus+lite:{tmp_path}/lite{options}"
    proposal = create(capsys, address, "--for", "1000", "--memory", "5MB")

    assert (proposal["index"], proposal["made"]) == (index, True)
    with closing(open_client(parse_address(address), None)) as held:
        kinds = [held.client.describe_index("proposed", name) for name in held.client.list_indexes("proposed")]
    assert index.upper() in {each["index_type"] for each in kinds if each["metric_type"] == "COSINE"}
