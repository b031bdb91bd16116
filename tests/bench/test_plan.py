"""The plan of a large ingest: its arithmetic, worked out by hand."""

from __future__ import annotations

import json

import pytest

from bench.plan import Workload, parse, plan, recorded_rate, request_bytes, table

WORK = Workload(
    documents=3_600_000,
    windows=2.0,
    text_bytes=500,
    dimension=100,
    terms=10,
    memory=5_000_000_000,
    encode_rate=50.0,
    devices=4,
    device_price=3.0,
    write_rate=500.0,
    writers=2,
    node_price=0.5,
)


def test_hours_and_money_follow_from_rates_and_prices():
    """7.2 million records at 50 per second are 40 device hours, 10 hours on 4 devices; writing takes 2 hours."""
    found = plan(WORK)
    assert found.records == 7_200_000
    assert (found.device_hours, found.encode_hours, found.write_hours, found.hours) == (40.0, 10.0, 2.0, 10.0)
    assert found.nodes == 1
    assert found.money == 40 * 3.0 + 10 * 1 * 0.5


def test_the_slower_part_decides():
    found = plan(Workload(**{**as_dict(WORK), "writers": 1, "write_rate": 20.0}))
    assert found.hours == found.write_hours == 100.0
    assert found.money == 40 * 3.0 + 100 * 1 * 0.5


def test_the_network_carries_texts_and_requests():
    """A number takes 24 bytes at most, a weight 36, a record 64 beside its payload; a window has half of the text."""
    assert 100 * 24 + 10 * 36 + 64 + 250 <= request_bytes(WORK) <= 100 * 24 + 10 * 36 + 64 + 250 + 100
    found = plan(WORK)
    assert found.read == 3_600_000 * 500
    assert found.sent == 7_200_000 * request_bytes(WORK)
    assert found.bits_per_second == pytest.approx(8 * (found.read + found.sent) / 36_000)


def test_index_and_shards_are_those_of_create():
    """Elasticsearch's limit of a shard is 50 GB, and a shard has vectors in full."""
    found = plan(Workload(documents=1_000_000_000, encode_rate=1.0, dimension=384, terms=120))
    from st_connectors.advice import advise, sizing_for
    from st_connectors.plugin import Address
    from st_connectors.registry import plugins

    advice = advise(
        sizing_for(plugins()["opensearch"], Address("opensearch")), count=1_000_000_000, dimension=384, terms=120
    )
    assert (found.index, found.shards, found.needed) == (advice.index, advice.shards, advice.total)


def test_without_prices_no_money_is_shown():
    work = Workload(**{**as_dict(WORK), "device_price": None})
    assert plan(work).money is None
    assert "price" not in table(work, plan(work))
    assert "| price | 125 | 3 per device hour, 0.5 per node hour |" in table(WORK, plan(WORK))


def test_figures_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="--encode-rate must be above 0, not 0"):
        Workload(encode_rate=0)


def test_arguments_are_those_of_a_workload_and_the_rate_is_the_recorded_one(tmp_path):
    assert parse(["--documents", "5", "--device-price", "2"]) == Workload(
        documents=5, device_price=2.0, encode_rate=recorded_rate()
    )
    file = tmp_path / "encode.json"
    contenders = {"st_core openvino bfloat16": {"seconds": {"median": 4.0}}}
    file.write_text(json.dumps({"splade": {"count": 64, "contenders": contenders}}))
    assert recorded_rate(file) == 16.0


def as_dict(work):
    return {name: getattr(work, name) for name in work.__dataclass_fields__}
