"""Measure the gateway: the time it adds to a request that it passes through, and bulk requests with vectors.

    python -m bench.gateway [--json] [PART ...]      (or: make bench ARGS=gateway)

Parts: ``passing`` sends requests to a node that answers at once, directly and through the gateway in turns, on one
connection each. ``bulk`` writes texts to Elasticsearch, in turns by ``Index.ingest`` and by the client's parallel
bulk helper through the gateway, which encodes with the same built-in models in a process of its own.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.figures import plain_environment, report, spread
from bench.memory import texts as short_texts
from integration.stores import Absent, opened

PARTS = ("passing", "bulk")
TARGETS = {"added_ms": ("<", 1.0), "bulk_over_ingest": (">=", 0.8)}
ROUNDS = 3
REQUESTS = 400
DOCUMENTS = 3000


def main() -> int:
    """Run the requested parts, and print their figures."""
    arguments = [each for each in sys.argv[1:] if each != "--json"]
    if arguments == ["node"]:  # a process that measure_passing starts
        asyncio.run(serve_node())
    unknown = set(arguments) - set(PARTS)
    if unknown:
        print(f"unknown part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    figures: dict[str, Any] = {}
    for part in arguments or PARTS:
        figures |= globals()[f"measure_{part}"]()
    return report(figures, {name: target for name, target in TARGETS.items() if name in figures})


@contextmanager
def printing_address(*command: str) -> Iterator[str]:
    """Run a program that prints ``{"address": …}``, and yield the address."""
    environment = plain_environment() | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def gateway(address: str) -> Any:
    """Run a gateway in front of a node."""
    return printing_address(
        "-c", "from st_connectors.cli import main; main()", "gateway", address, "--port", "0", "--json"
    )


def measure_passing() -> dict[str, Any]:
    """Return the milliseconds that the gateway adds to the median request."""
    added, direct = [], []
    with printing_address("-m", "bench.gateway", "node") as node, gateway(f"elasticsearch:{node[5:]}") as through:
        connections = [http.client.HTTPConnection(each.removeprefix("http://")) for each in (node, through)]
        for _ in range(ROUNDS):
            times: list[list[float]] = [[], []]
            for _ in range(REQUESTS):
                for connection, own in zip(connections, times, strict=True):
                    own.append(timed(connection))
            medians = [1000 * statistics.median(own) for own in times]
            direct.append(medians[0])
            added.append(medians[1] - medians[0])
        for connection in connections:
            connection.close()
    return {"direct_ms": spread(direct), "added_ms": spread(added)}


def timed(connection: http.client.HTTPConnection) -> float:
    """Return the seconds of one request."""
    began = time.perf_counter()
    connection.request("GET", "/books/_doc/1")
    connection.getresponse().read()
    return time.perf_counter() - began


def measure_bulk() -> dict[str, Any]:
    """Return documents per second of both ways; the reason without a node."""
    documents = [{"id": str(number), "text": text} for number, text in enumerate(short_texts(DOCUMENTS))]
    try:
        with tempfile.TemporaryDirectory() as folder, opened("elasticsearch-9", Path(folder)) as address:
            rates = bulk_rates(address, documents)
    except Absent as absent:
        return {"bulk": str(absent)}
    ratios = [bulk / ingest for ingest, bulk in rates]
    ingests, bulks = zip(*rates, strict=True)
    return {"ingest_per_s": spread(ingests), "bulk_per_s": spread(bulks), "bulk_over_ingest": spread(ratios)}


def bulk_rates(address: str, documents: list[dict[str, str]]) -> list[tuple[float, float]]:
    """Return the documents per second of an ingest and of bulk requests, in turns; the first turn warms up."""
    from elasticsearch import Elasticsearch, helpers

    from st_connectors import Index

    names = {"dense": "builtin:dense", "sparse": "builtin:sparse"}
    rates = []
    with gateway(address) as through, Elasticsearch(through, request_timeout=300) as client:
        for number in range(ROUNDS + 1):
            with Index.create(address, collection=f"ingest{number}", **names) as index:
                began = time.perf_counter()
                index.ingest(documents)
                ingest = len(documents) / (time.perf_counter() - began)
                index.drop()
            with Index.create(address, collection=f"bulk{number}", **names) as index:
                actions = [{"_index": f"bulk{number}", "_id": each["id"], **each} for each in documents]
                began = time.perf_counter()
                written = list(helpers.parallel_bulk(client, actions))
                client.indices.refresh(index=f"bulk{number}")
                rates.append((ingest, len(documents) / (time.perf_counter() - began)))
                assert index.count() == len(written) == len(documents)
                index.drop()
    return rates[1:]


async def serve_node() -> None:
    """Answer every request with a small document, as fast as Python can."""
    body = b'{"_index":"books","_id":"1","found":true,"_source":{"text":"a whale hunts a ship"}}'
    answer = b"HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\n"
    answer += b"content-length: %d\r\n\r\n%s" % (len(body), body)

    class Node(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport

        def data_received(self, data: bytes) -> None:
            self._transport.write(answer * data.count(b"\r\n\r\n"))

    server = await asyncio.get_running_loop().create_server(Node, "127.0.0.1", 0)
    print(json.dumps({"address": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    raise SystemExit(main())
