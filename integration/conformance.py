"""Run the conformance suite on every available engine and record the results: `make conformance`.

Rows of ``docs/conformance.json`` that were run are replaced, the others stay as they are. The tables of
``docs/stores/index.md`` are written from them. An engine that was never run has a row without numbers. By hand:
``python -m integration.conformance qdrant-edge milvus-lite``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from integration.nodes import Found, find
from integration.stores import address_of
from st_connectors.testing import Report, run

if TYPE_CHECKING:  # importing it loads the suite, whose assertions pytest then cannot rewrite
    from st_connectors.testing import Gap

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "conformance.json"


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to connect to a store: the scheme of its addresses, the package of its client, and its known gaps.

    ``embedded`` is the package that contains the engine; if it is None, ``node`` names a server for
    :mod:`integration.nodes`.
    """

    name: str
    scheme: str
    client: str | None = None
    client_major: str = ""
    embedded: str | None = None
    node: str | None = None
    options: str = ""
    gaps: Mapping[str, Gap] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Return whether the installed client is the one of this row."""
        return self.client is None or version(self.client).startswith(self.client_major)


ENGINES = (
    Engine("memory", "memory", embedded="st-connectors"),
    Engine("Qdrant Edge", "qdrant+edge", embedded="qdrant-edge-py"),
    Engine("Qdrant, local mode", "qdrant+memory", embedded="qdrant-client"),
    Engine("Qdrant", "qdrant", "qdrant-client", node="qdrant"),
    Engine("Elasticsearch 9", "elasticsearch", "elasticsearch", "9.", node="elasticsearch-9"),
    Engine("Elasticsearch 9", "elasticsearch", "elasticsearch", "8.", node="elasticsearch-9"),
    Engine("Elasticsearch 8", "elasticsearch", "elasticsearch", "8.", node="elasticsearch-8"),
    Engine("OpenSearch 2", "opensearch", "opensearch-py", node="opensearch"),
    Engine("OpenSearch 3", "opensearch", "opensearch-py", node="opensearch-3"),
    Engine("Milvus Lite", "milvus+lite", "pymilvus", embedded="milvus-lite"),
    Engine("Milvus 2", "milvus", "pymilvus", node="milvus", options="?index=flat"),
    Engine("Milvus 3", "milvus", "pymilvus", node="milvus-3", options="?index=flat"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """The recorded row of one engine; ``groups`` counts passed, skipped and gaps, and is None if it was never run."""

    engine: str
    scheme: str
    client_major: str
    version: str | None = None
    client: str | None = None
    groups: dict[str, tuple[int, int, int]] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies a row."""
        return self.engine, self.client_major


@contextmanager
def opened(engine: Engine) -> Iterator[tuple[str, str] | None]:
    """Yield the address and the version of an engine, or None if it is not available."""
    if engine.embedded is not None:
        with tempfile.TemporaryDirectory() as folder:
            yield f"{engine.scheme}:{folder}", version(engine.embedded)
        return
    found = find(engine.node or "")
    if not isinstance(found, Found):
        print(f"{engine.name}: {found.reason}")
        yield None
        return
    with found.open() as url:
        yield f"{address_of(found.engine, url)}{engine.options}", told_version(engine, url)


def told_version(engine: Engine, url: str) -> str:
    """Return the version that a server reports."""
    if engine.scheme == "milvus":
        from pymilvus import MilvusClient

        return str(MilvusClient(url.replace("milvus:", "http:")).get_server_version()).removeprefix("v")
    with urllib.request.urlopen(url, timeout=10) as answer:
        reported = json.load(answer)["version"]
    return str(reported if isinstance(reported, str) else reported["number"])


def row_of(engine: Engine, report: Report, number: str) -> Row:
    """Return the row of a run that did not fail."""
    groups = {group: (passed, skipped, gaps) for group, passed, _, skipped, gaps in report.rows()}
    client = None if engine.client is None else f"{engine.client} {version(engine.client)}"
    return Row(engine.name, engine.scheme, engine.client_major, number, client, groups)


def run_all(engines: Sequence[Engine]) -> tuple[list[Row], list[str]]:
    """Return the rows of the available engines, and the names of those that failed."""
    rows, failed = [], []
    for engine in engines:
        with opened(engine) as place:
            if place is None:
                continue
            report = run(place[0], gaps=engine.gaps)
            print(f"\n{engine.name} {place[1]}\n{report.table()}", flush=True)
            if report.passed:
                rows.append(row_of(engine, report, place[1]))
            else:
                failed.append(engine.name)
    return rows, failed


def recorded_rows() -> list[Row]:
    """Return the rows of earlier runs, or none."""
    return [Row(**each) for each in json.loads(KEPT.read_text(encoding="utf-8"))] if KEPT.exists() else []


def write(rows: Sequence[Row]) -> None:
    """Replace the recorded rows, one for every engine, and write the tables of the pages."""
    known = {row.key: row for row in (*recorded_rows(), *rows)}
    empty = [Row(engine.name, engine.scheme, engine.client_major) for engine in ENGINES]
    whole = [asdict(known.get(row.key, row)) for row in empty]
    lines = ",\n".join(json.dumps(each) for each in whole)
    KEPT.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    subprocess.run([sys.executable, ROOT / "docs" / "generate.py"], check=True)


def main(names: Sequence[str]) -> int:
    """Run the suite on the requested engines, by scheme or node, or on all; return 1 if one failed."""
    chosen = [engine for engine in ENGINES if engine.fits and (not names or {engine.node, engine.scheme} & set(names))]
    if not chosen:
        known = ", ".join(dict.fromkeys(engine.node or engine.scheme for engine in ENGINES))
        print(f"no engine is named {' or '.join(names)}; there are {known}", file=sys.stderr)
        return 2
    rows, failed = run_all(chosen)
    write(rows)
    if failed:
        print(f"failed, and not written: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
