"""The README's table of what each engine passes is what was kept of the runs, and has a row for every way into every declared store."""

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


@pytest.fixture(scope="module")
def writer():
    """The script that writes the README's tables."""
    spec = importlib.util.spec_from_file_location("readme_writer", ROOT / "docs" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_made_of_what_was_kept(writer):
    """Nobody wrote into it by hand."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.search(r"<!-- conformance:begin[^>]*-->\n(.*?)<!-- conformance:end -->", text, re.DOTALL)

    assert table is not None
    assert table[1] == writer.conformance((ROOT / "docs" / "conformance.json").read_text(encoding="utf-8"))


def test_every_way_into_every_store_has_a_row():
    """Those of the declared plugins and no others; TLS and gRPC are the same engine by another way."""
    declared = {f"{name}+{variant}" if variant else name for name in OURS for variant in plugins()[name].variants}

    assert {row["scheme"] for row in ROWS} == {
        scheme for scheme in declared if scheme.split("+")[-1] not in {"https", "grpc"}
    }
    assert len({(row["engine"], row["client_major"]) for row in ROWS}) == len(ROWS)


def test_rows_that_were_run_are_whole():
    """Versions of engine and client without a date, every group of the suite with tests that passed; the others have no numbers at all."""
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
    """Each group has as many tests for one engine as for any other: no row is left from an older suite."""
    totals = {row["engine"]: [sum(counts) for counts in row["groups"].values()] for row in ROWS if row["groups"]}
    assert len({tuple(total) for total in totals.values()}) == 1, totals
