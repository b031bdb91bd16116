"""Recommendations compared with numbers from the stores' published formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_connectors.advice import advise, human, sizing_for
from st_connectors.plugin import Place
from st_connectors.registry import open_store, parse_address, plugins
from st_connectors.schema import DenseField, Quantization, Schema, SparseField
from st_connectors.store import Record

MILLION = 1_000_000
GB = 10**9
ADDRESSES = [
    "elasticsearch://h:9200",
    "memory:",
    "milvus+lite:p",
    "milvus://h:19530",
    "opensearch://h:9200",
    "qdrant+edge:p",
    "qdrant+memory:",
    "qdrant+grpc://h:6334",
]


def figures(url):
    address = parse_address(url)
    return sizing_for(plugins()[address.name], address)


@pytest.mark.parametrize(
    ("url", "index", "parts"),
    [
        # num * 4 * dim, and num * 4 * 16 for the graph
        ("elasticsearch://h", "hnsw", {"dense": 3_072_000_000, "graph": 64_000_000}),
        # 1.1 * (4 * dim + 8 * 16) * num
        ("opensearch://h", "lucene", {"dense": 3_072_000_000, "graph": 128_000_000, "overhead": 320_000_000}),
        # num * dim * 4 * 1.5, and 12 bytes for each of 50 entries
        ("qdrant://h", "hnsw", {"dense": 3_072_000_000, "overhead": 1_536_000_000, "sparse": 600_000_000}),
        ("qdrant+edge:p", "hnsw", {"dense": 3_072_000_000, "overhead": 1_536_000_000, "sparse": 600_000_000}),
        ("milvus://h", "hnsw", {"dense": 3_072_000_000, "graph": 160_000_000, "sparse": 400_000_000}),
        ("milvus+lite:p", "flat", {"dense": 3_072_000_000, "sparse": 400_000_000}),
        # float32 and float64
        ("memory:", "exact", {"dense": 9_216_000_000, "sparse": 1_400_000_000}),
    ],
)
def test_a_million_of_768_dimensions(url, index, parts):
    """Without a limit each store's first layout, by its formula."""
    advice = advise(figures(url), count=MILLION, dimension=768, terms=50)

    assert (advice.index, dict(advice.parts), advice.fits) == (index, parts, None)


@pytest.mark.parametrize(
    ("memory", "index", "quantization", "total"),
    [
        (4 * GB, "hnsw", Quantization.NONE, 3_136_000_000),
        (1 * GB, "int8_hnsw", Quantization.INT8, 848_000_000),  # num * (dim + 16) + graph
        (800_000_000, "int4_hnsw", Quantization.NONE, 464_000_000),  # num * (dim / 2 + 16) + graph
        (400_000_000, "bbq_hnsw", Quantization.BINARY, 174_000_000),  # num * (dim / 8 + 14) + graph
        (150_000_000, "bbq_flat", Quantization.BINARY, 110_000_000),
    ],
)
def test_elasticsearch_shortens_until_it_fits(memory, index, quantization, total):
    """The first layout that fits, with its address option and quantization."""
    advice = advise(figures("elasticsearch://h"), count=MILLION, dimension=768, memory=memory)

    assert (advice.index, advice.quantization, advice.total, advice.fits) == (index, quantization, total, True)
    assert str(advice.address(parse_address("elasticsearch://h"))) == f"elasticsearch://h?dense_index={index}"


def test_what_cannot_fit_names_the_least():
    """It does not fit, and the bytes are those of the smallest layout."""
    advice = advise(figures("elasticsearch://h"), count=MILLION, dimension=768, memory=GB // 10)

    assert (advice.index, advice.total, advice.fits) == ("bbq_flat", 110_000_000, False)


def test_a_qdrant_server_needs_a_step_by_hand():
    """Full vectors on disk are a manual step; each vector then takes 1.5 * (dim + 4 + 128) bytes."""
    advice = advise(figures("qdrant://h"), count=MILLION, dimension=768, memory=2 * GB)

    assert (advice.quantization, advice.total) == (Quantization.INT8, 1_350_000_000)
    assert "on_disk=true" in advice.by_hand[0]


def test_options_given_are_kept():
    """Options of the address are respected; options that no layout has are an error."""
    sizing = figures("elasticsearch://h")

    assert advise(sizing, count=9, dimension=768, given={"dense_index": "flat"}).index == "flat"
    with pytest.raises(ValueError, match="no index for 63 dimensions agrees with dense_index=bbq_hnsw"):
        advise(sizing, count=9, dimension=63, given={"dense_index": "bbq_hnsw"})


def test_dimensions_that_an_index_cannot_have():
    """int4 needs an even dimension, bbq 64 or more; int8 remains."""
    advice = advise(figures("elasticsearch://h"), count=MILLION, dimension=63, memory=1)

    assert advice.index == "int8_flat"


def test_shards_by_records_and_by_bytes():
    """200 million records, or 50 GB of vectors and index; the option sets the number."""
    sizing = figures("elasticsearch://h")
    # 100 million * (4 * 768 + 64 in the index, 4 * 768 besides) = 620.8 GB
    big = advise(sizing, count=100 * MILLION, dimension=768)
    many = advise(sizing, count=401 * MILLION, terms=1)

    assert (big.shards, big.options["shards"]) == (13, "13")
    assert (many.shards, many.options) == (3, {"shards": "3"})
    asked = advise(sizing, count=401 * MILLION, terms=1, given={"shards": "2"})
    assert asked.options == {"shards": "2"}
    [step] = advise(replace(sizing, shard_option=None), count=401 * MILLION, terms=1).by_hand
    assert "3 shards" in step


def test_only_what_the_adapter_can_make_is_proposed():
    """Every quantization is a capability, and every installed store has figures for each variant."""
    for plugin in plugins().values():
        for variant in plugin.variants:
            scheme = f"{plugin.name}+{variant}" if variant else plugin.name
            place = "//x" if plugin.places[variant] is Place.SERVER else "x"
            sizing = sizing_for(plugin, parse_address(f"{scheme}:{place}"))
            for layout in sizing.dense:
                assert Quantization(layout.quantization) in plugin.capabilities.quantizations
                assert layout.source


def test_elasticsearch_makes_what_is_proposed():
    """Option and quantization select the recommended index."""
    from st_connectors.elasticsearch.wire import form_for

    for layout in figures("elasticsearch://h").dense:
        schema = Schema("c", {"dense": DenseField(64, quantization=Quantization(layout.quantization))})
        assert form_for(schema, **layout.options).dense == {"dense": layout.name}


def test_the_schema_gets_the_quantization():
    """It is set on dense fields only."""
    advice = advise(figures("elasticsearch://h"), count=MILLION, dimension=768, memory=GB)

    made = advice.schema(Schema("c", {"dense": DenseField(768), "sparse": SparseField()}))
    assert made.fields == {"dense": DenseField(768, quantization=Quantization.INT8), "sparse": SparseField()}


@pytest.mark.parametrize("name", ["count", "dimension", "terms", "memory"])
def test_numbers_below_one_are_refused(name):
    """The message names the argument."""
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        advise(figures("memory:"), **{"count": 1, "dimension": 2, name: 0})


def test_a_store_without_figures():
    """Figures are optional for an adapter."""
    plugin = replace(plugins()["memory"], sizing={})
    with pytest.raises(ValueError, match="publishes no figures"):
        sizing_for(plugin, parse_address("memory:"))


def test_bytes_for_people():
    """Three digits, powers of 1000."""
    assert [human(size) for size in (999, 1500, 2 * GB, 1.5e12)] == ["999 B", "1.5 kB", "2 GB", "1.50 TB"]


def test_milvus_lite_takes_what_is_reckoned(tmp_path):
    """The file of a flat index of 2,000 vectors has 4 bytes per dimension, within a thousandth."""
    pytest.importorskip("milvus_lite")
    vectors = np.random.default_rng(0).standard_normal((2000, 256)).astype(np.float32)
    store = open_store(f"milvus+lite:{tmp_path / 'x'}", "c", Schema("c", {"dense": DenseField(256)}))
    store.create()
    for at in range(0, 2000, 1000):
        batch = enumerate(vectors[at : at + 1000], at)
        assert store.upsert([Record(str(number), vectors={"dense": vector}) for number, vector in batch]) == []
    store.refresh()
    store.close()

    [index] = tmp_path.rglob("*.flat.idx")
    reckoned = advise(figures("milvus+lite:p"), count=2000, dimension=256).parts["dense"]
    assert index.stat().st_size == pytest.approx(reckoned, rel=1e-3)


@given(
    url=st.sampled_from(ADDRESSES),
    count=st.integers(1, 10**9),
    more=st.integers(0, 10**9),
    dimension=st.integers(1, 4096),
    wider=st.integers(0, 4096),
    terms=st.integers(1, 1000),
)
def test_more_never_takes_less(url, count, more, dimension, wider, terms):
    """More records or a larger dimension never need fewer bytes or shards."""
    sizing = figures(url)
    base = advise(sizing, count=count, dimension=dimension, terms=terms)
    for other in (
        advise(sizing, count=count + more, dimension=dimension, terms=terms),
        advise(sizing, count=count, dimension=dimension + wider, terms=terms),
    ):
        assert other.total >= base.total
        assert (other.shards or 0) >= (base.shards or 0)


@given(
    url=st.sampled_from(ADDRESSES),
    count=st.integers(1, 10**8),
    dimension=st.integers(1, 2048),
    memory=st.integers(1, 10**12),
)
def test_what_fits_is_within_the_memory(url, count, dimension, memory):
    """If nothing fits, no smaller memory than that of the recommendation fits either."""
    sizing = figures(url)
    advice = advise(sizing, count=count, dimension=dimension, memory=memory)

    assert advice.fits is (advice.total <= memory)
    if not advice.fits:
        assert advise(sizing, count=count, dimension=dimension, memory=advice.total).fits
        assert (
            not advise(sizing, count=count, dimension=dimension, memory=advice.total - 1).fits
            if advice.total > 1
            else True
        )
