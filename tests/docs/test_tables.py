"""The tables of the pages are what `make conformance` and `make bench` recorded, and what the program prints."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from st_connectors.registry import plugins

pytest.importorskip("hypothesis", reason="needs the testing extra")

from st_connectors.testing import StoreConformance

ROOT = Path(__file__).parents[2]
ROWS = json.loads((ROOT / "docs" / "conformance.json").read_text(encoding="utf-8"))
GROUPS = [group.__name__.lower() for group in StoreConformance.__bases__]
OURS = ("memory", "qdrant", "elasticsearch", "opensearch", "milvus")
TABLES = [
    ("README.md", "speed"),
    ("docs/ingest.md", "faults"),
    ("docs/performance.md", "encode"),
    ("docs/performance.md", "others"),
    ("docs/scale.md", "plan"),
    ("docs/sizing.md", "sizing"),
    ("docs/stores/index.md", "stores"),
    ("docs/stores/index.md", "conformance"),
    ("docs/stores/index.md", "groups"),
]


@pytest.fixture(scope="module")
def generate():
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_generated_tables_are_current(generate, page, name):
    """Each is what the script writes: nobody edited it by hand, and `make readme` was not forgotten."""
    text = (ROOT / page).read_text(encoding="utf-8")

    assert generate.replaced(text, name, generate.PARTS[page][name]()) == text


def test_every_generated_part_is_tested(generate):
    """The transcript has a test of its own."""
    parts = {(page, name) for page, names in generate.PARTS.items() for name in names}

    assert parts == {*TABLES, ("README.md", "demo")}


def test_groups_of_the_page_are_those_of_the_suite(generate):
    """None is missing from the table, and each says what it is about."""
    assert list(generate.GROUPS) == GROUPS


def test_every_variant_of_every_store_has_a_row():
    """Those of the declared plugins and no others; TLS and gRPC are other ways to the same engine."""
    declared = {f"{name}+{variant}" if variant else name for name in OURS for variant in plugins()[name].variants}

    assert {row["scheme"] for row in ROWS} == {
        scheme for scheme in declared if scheme.split("+")[-1] not in {"https", "grpc"}
    }
    assert len({(row["engine"], row["client_major"]) for row in ROWS}) == len(ROWS)


def test_rows_that_were_run_are_whole():
    """They have versions of engine and client and passed tests in every group; the other rows have no numbers."""
    run = [row for row in ROWS if row["groups"] is not None]
    for row in run:
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?", row["version"]), row["engine"]
        assert row["client"] is None or re.fullmatch(r"[a-z-]+ \d+\.\d+\.\d+", row["client"])
        assert (row["client"] or "").split(" ")[-1].startswith(row["client_major"])
        assert list(row["groups"]) == GROUPS
        assert all(passed > 0 and skipped >= 0 and gaps >= 0 for passed, skipped, gaps in row["groups"].values())
    assert all(row["version"] is row["client"] is None for row in ROWS if row["groups"] is None)
    assert {row["scheme"] for row in run} >= {"memory", "qdrant+edge", "qdrant+memory", "milvus+lite"}


def test_all_rows_were_run_with_one_suite():
    """Each group has as many tests for one engine as for any other, so no row is of an older suite."""
    totals = {row["engine"]: [sum(counts) for counts in row["groups"].values()] for row in ROWS if row["groups"]}
    assert len({tuple(total) for total in totals.values()}) == 1, totals
