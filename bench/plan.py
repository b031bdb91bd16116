"""Plan the ingest of a large collection: devices, hours, money, network, memory and shards.

    python -m bench.plan --documents 1_000_000_000 --devices 64 --encode-rate 900 --device-price 2.5

The arithmetic is here, and every figure that goes into it is an argument. Two defaults are figures that `make bench`
recorded on two cores; measure your own model and device with `python -m bench.encode --device cuda --save`, and your
own store with `st-connectors ingest`. Index and shards are the recommendation of `st-connectors create --for`.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from st_connectors.advice import advise, human, sizing_for
from st_connectors.layers.records import size_of
from st_connectors.plugin import Address
from st_connectors.registry import plugins
from st_connectors.store import Record
from st_core.vectors import SparseVector

RECORDED = Path(__file__).parent / "results" / "encode.json"
ENCODED_BY = "st_core openvino bfloat16"
WRITTEN = 2588.0
"""Records per second that one process on two cores wrote to OpenSearch, in docs/performance.md."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is stored, by which devices and writers, and at what rates and prices.

    ``encode_rate`` is the number of documents per second of one device, ``write_rate`` the number of records per second
    of one writer. Prices are per hour, in any currency; None leaves the money out.
    """

    store: str = "opensearch"
    documents: int = 1_000_000_000
    windows: float = 1.0
    text_bytes: int = 1000
    dimension: int = 384
    terms: int = 120
    memory: int | None = None
    encode_rate: float = 0.0
    devices: int = 500
    device_price: float | None = None
    write_rate: float = WRITTEN
    writers: int = 8
    node_price: float | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and value <= 0:
                raise ValueError(f"--{each.name.replace('_', '-')} must be above 0, not {value}")


@dataclass(frozen=True, slots=True)
class Plan:
    """The result: hours of each part, bytes on the network, and what the store needs.

    Encoding and writing run at the same time, so that the slower one decides. ``read`` and ``sent`` are the bytes of
    texts read and of requests to the store, an upper bound.
    """

    records: int
    device_hours: float
    encode_hours: float
    write_hours: float
    read: int
    sent: int
    index: str
    needed: int
    nodes: int | None
    shards: int | None
    money: float | None

    @property
    def hours(self) -> float:
        """The duration."""
        return max(self.encode_hours, self.write_hours)

    @property
    def bits_per_second(self) -> float:
        """The mean load of the network."""
        return 8 * (self.read + self.sent) / (3600 * self.hours)


def plan(work: Workload) -> Plan:
    """Return the plan of a workload; ``memory`` of a workload is that of one node."""
    records = math.ceil(work.documents * work.windows)
    device_hours = records / work.encode_rate / 3600
    encode_hours = device_hours / work.devices
    write_hours = records / (work.write_rate * work.writers) / 3600
    sizing = sizing_for(plugins()[work.store], Address(work.store))
    advice = advise(sizing, count=records, dimension=work.dimension, terms=work.terms)
    nodes = None if work.memory is None else math.ceil(advice.total / work.memory)
    hours = max(encode_hours, write_hours)
    return Plan(
        records=records,
        device_hours=device_hours,
        encode_hours=encode_hours,
        write_hours=write_hours,
        read=work.documents * work.text_bytes,
        sent=records * request_bytes(work),
        index=advice.index,
        needed=advice.total,
        nodes=nodes,
        shards=advice.shards,
        money=_money(work, device_hours, hours, nodes),
    )


def request_bytes(work: Workload) -> int:
    """Return the bytes of one record in a request, by the bound that requests are split by."""
    text = "x" * math.ceil(work.text_bytes / work.windows)
    sparse = SparseVector(np.arange(work.terms, dtype=np.uint32), np.ones(work.terms, np.float32))
    return size_of(Record("0" * 16, {"dense": np.ones(work.dimension, np.float32), "sparse": sparse}, {"text": text}))


def _money(work: Workload, device_hours: float, hours: float, nodes: int | None) -> float | None:
    """Return the price of the devices, and of the nodes of the store while the ingest runs."""
    if work.device_price is None:
        return None
    return device_hours * work.device_price + hours * (nodes or 0) * (work.node_price or 0.0)


def recorded_rate(path: Path = RECORDED) -> float:
    """Return the SPLADE documents per second that `make bench` recorded on two cores."""
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["splade"]
    return float(row["count"] / row["contenders"][ENCODED_BY]["seconds"]["median"])


def table(work: Workload, found: Plan) -> str:
    """Return the plan as a table in Markdown, with the figures behind each row."""
    nodes = "" if work.memory is None else f"; {found.nodes} nodes of {human(work.memory)}"
    rows = [
        ("records", f"{found.records:,}", f"{work.documents:,} documents, windows per document: {work.windows:g}"),
        (
            "encoding",
            f"{found.encode_hours:,.1f} h",
            f"{found.device_hours:,.0f} device hours at {work.encode_rate:,.0f} documents/s, {work.devices} devices",
        ),
        (
            "writing",
            f"{found.write_hours:,.1f} h",
            f"{work.writers} writers of {work.write_rate:,.0f} records/s, at the same time",
        ),
        ("duration", f"{found.hours:,.1f} h", "the slower of both"),
        (
            "network",
            f"{found.bits_per_second / 1e6:,.0f} Mbit/s",
            f"{human(found.read)} read, {human(found.sent)} sent",
        ),
        ("memory", human(found.needed), f"{work.store}, {found.index}: dense vectors and their index{nodes}"),
        ("shards", f"{found.shards or '–'}", "as `st-connectors create --for` recommends"),  # noqa: RUF001
    ]
    if found.money is not None:
        prices = f"{work.device_price:g} per device hour" + (f", {work.node_price:g} per node hour" if nodes else "")
        rows.append(("price", f"{found.money:,.0f}", prices))
    lines = ["| | | from |", "|---|---|---|", *(f"| {name} | {value} | {source} |" for name, value, source in rows)]
    return "\n".join(lines) + "\n"


def parse(arguments: list[str] | None = None) -> Workload:
    """Return the workload of command-line arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench.plan", description=__doc__.split("\n", 1)[0])
    kinds = {"int": int, "float": float, "int | None": int, "float | None": float, "str": str}
    for each in fields(Workload):
        default = recorded_rate() if each.name == "encode_rate" else each.default
        name = f"--{each.name.replace('_', '-')}"
        parser.add_argument(name, type=kinds[str(each.type)], default=default, help=f"default: {default}")
    return Workload(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Print the plan of the command line."""
    work = parse()
    print(table(work, plan(work)), end="")


if __name__ == "__main__":
    main()
