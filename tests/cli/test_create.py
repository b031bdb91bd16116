"""``create`` makes a collection, or proposes how."""

from __future__ import annotations

import pytest

from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Quantization

pytest.importorskip("qdrant_edge")
SERVER = ["--in", "elasticsearch://127.0.0.1:1", "--collection", "books"]


@pytest.fixture
def here(tmp_path):
    return ["--in", f"qdrant+edge:{tmp_path / 'library'}", "--collection", "books"]


def test_create_makes_an_empty_collection(cli, here, books):
    """With the fields asked for; ingest opens it, and again is fine."""
    outcome = cli("create", *here, "--text", "--filterable", "year:int")

    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == "'books' is there, with dense (dense), sparse (sparse), text (text)\n"
    assert cli("count", *here).out == "0\n"
    assert cli("create", *here, "--text", "--filterable", "year:int", "--json").json["filterable"] == {"year": "int"}
    assert cli("ingest", books, *here).status == 0
    assert cli("count", *here, "--where", "year < 1900").out == "2\n"


def test_a_proposal_makes_nothing(cli):
    """The table names the address, each part and the reasons; no server is asked."""
    outcome = cli("create", *SERVER, "--for", "5000000", "--memory", "2GB")

    assert (outcome.status, outcome.err) == (0, "")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert lines[:3] == [
        "address elasticsearch://127.0.0.1:1?dense_index=int8_hnsw",
        "index int8_hnsw",
        "quantization int8",
    ]
    # 5 million * (256 + 16 + 64)
    assert {"dense 1.36 GB", "graph 320 MB", "in memory 1.68 GB", "fits into 2 GB"} <= set(lines)
    assert lines[-1] == "nothing was made; add --apply to make it so"


def test_a_proposal_as_json(cli):
    """All figures in bytes."""
    answer = cli("create", *SERVER, "--for", "5000000", "--memory", "2GiB", "--sparse", "none", "--json").json

    assert answer["bytes"] == {"dense": 1_360_000_000, "graph": 320_000_000, "total": 1_680_000_000}
    assert (answer["memory"], answer["fits"], answer["made"]) == (2 * 2**30, True, False)
    assert answer["options"] == {"dense_index": "int8_hnsw"}


def test_apply_makes_it_as_proposed(cli, tmp_path):
    """The options of the address and the quantization are those proposed."""
    where = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "books", "--for", "1000"]

    outcome = cli("create", *where, "--memory", "100MB", "--apply", "--json")

    assert (outcome.status, outcome.json["made"], outcome.json["quantization"]) == (0, True, "none")
    store = open_store(where[1], "books")
    try:
        assert store.schema.fields["dense"] == DenseField(256, quantization=Quantization.NONE)
    finally:
        store.close()


def test_too_little_memory_is_said(cli, here):
    """With what is needed, 1.5 * 4 * 256 bytes a record and 12 for each of 100 entries; --apply then makes nothing."""
    asked = [*here, "--for", "1000000", "--memory", "1GB"]

    assert (
        "even the smallest needs 2.74 GB of memory for 1,000,000 records, and there is 1 GB"
        in cli("create", *asked).out
    )
    outcome = cli("create", *asked, "--apply")
    assert outcome.status == 2
    assert "not made: even the smallest needs 2.74 GB" in outcome.complaint()
    assert "there is no collection" in cli("count", *here).complaint()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--for", "10", "--memory", "2XB"], "--memory '2XB': write a size above 0 such as 2GB"),
        (["--for", "10", "--memory", "0GB"], "--memory '0GB': write a size above 0"),
        (["--for", "10", "--memory", "-1GB"], "--memory '-1GB': write a size above 0"),
        (["--for", "0"], "--for is at least 1 record, not 0"),
        (["--for", "10", "--terms", "0"], "--terms is at least 1 entry, not 0"),
        (["--apply"], "--apply is about a proposal: add --for N"),
        (["--memory", "2GB"], "--memory is about a proposal: add --for N"),
        (["--dense", "none", "--sparse", "none"], "nothing to search by: give --dense, --sparse or --text"),
    ],
)
def test_wrong_use(cli, here, options, told):
    """Status 2 and one line, and nothing is made."""
    outcome = cli("create", *here, *options)

    assert outcome.status == 2
    assert told in outcome.complaint()
    assert "there is no collection" in cli("count", *here).complaint()


def test_an_option_that_no_index_has(cli):
    """The indexes there are, are told."""
    outcome = cli("create", "--in", "milvus+lite:x?index=ivf", "--collection", "c", "--for", "10")

    assert outcome.status == 2
    assert "goes with index=ivf; there are flat, hnsw" in outcome.complaint()
