"""``create`` creates a collection or proposes a layout for it."""

from __future__ import annotations

import pytest

from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Quantization

pytest.importorskip("qdrant_edge")
SERVER = ["--in", "elasticsearch://127.0.0.1:1", "--collection", "books"]


@pytest.fixture
def target(tmp_path):
    return ["--in", f"qdrant+edge:{tmp_path / 'library'}", "--collection", "books"]


def test_create_creates_an_empty_collection(cli, target, books):
    """The collection has the requested fields, ingest opens it, and creating it again succeeds."""
    outcome = cli("create", *target, "--text", "--filterable", "year:int")

    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == "collection 'books' exists with fields dense (dense), sparse (sparse), text (text)\n"
    assert cli("count", *target).out == "0\n"
    assert cli("create", *target, "--text", "--filterable", "year:int", "--json").json["filterable"] == {"year": "int"}
    assert cli("ingest", books, *target).status == 0
    assert cli("count", *target, "--where", "year < 1900").out == "2\n"


def test_a_proposal_creates_nothing(cli):
    """The table lists the address, each part and the reasons, without a request to the server."""
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
    assert lines[-1] == "nothing was created; add --apply to create the collection as proposed"


def test_a_proposal_as_json(cli):
    """All sizes in JSON are bytes."""
    answer = cli("create", *SERVER, "--for", "5000000", "--memory", "2GiB", "--sparse", "none", "--json").json

    assert answer["bytes"] == {"dense": 1_360_000_000, "graph": 320_000_000, "total": 1_680_000_000}
    assert (answer["memory"], answer["fits"], answer["made"]) == (2 * 2**30, True, False)
    assert answer["options"] == {"dense_index": "int8_hnsw"}


def test_apply_creates_the_proposed_layout(cli, tmp_path):
    """The address options and the quantization are the proposed ones."""
    where = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "books", "--for", "1000"]

    outcome = cli("create", *where, "--memory", "100MB", "--apply", "--json")

    assert (outcome.status, outcome.json["made"], outcome.json["quantization"]) == (0, True, "none")
    store = open_store(where[1], "books")
    try:
        assert store.schema.fields["dense"] == DenseField(256, quantization=Quantization.NONE)
    finally:
        store.close()


def test_too_little_memory(cli, target):
    """The message names the memory: 1.5 * 4 * 256 bytes per record, 12 per entry; ``--apply`` creates nothing."""
    arguments = [*target, "--for", "1000000", "--memory", "1GB"]

    assert (
        "the smallest layout needs 2.74 GB of memory for 1,000,000 records; only 1 GB is available"
        in cli("create", *arguments).out
    )
    outcome = cli("create", *arguments, "--apply")
    assert outcome.status == 2
    assert "not created: the smallest layout needs 2.74 GB" in outcome.error_line()
    assert "there is no collection" in cli("count", *target).error_line()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--for", "10", "--memory", "2XB"], "--memory '2XB': expected a size above 0 such as 2GB"),
        (["--for", "10", "--memory", "0GB"], "--memory '0GB': expected a size above 0"),
        (["--for", "10", "--memory", "-1GB"], "--memory '-1GB': expected a size above 0"),
        (["--for", "0"], "--for: expected at least 1 record, got 0"),
        (["--for", "10", "--terms", "0"], "--terms: expected at least 1 entry, got 0"),
        (["--apply"], "--apply needs --for N"),
        (["--memory", "2GB"], "--memory needs --for N"),
        (
            ["--dense", "none", "--sparse", "none"],
            "a collection needs at least one field; pass --dense, --sparse or --text",
        ),
    ],
)
def test_usage_errors(cli, target, options, message):
    """A usage error is one line and status 2, and creates nothing."""
    outcome = cli("create", *target, *options)

    assert outcome.status == 2
    assert message in outcome.error_line()
    assert "there is no collection" in cli("count", *target).error_line()


def test_an_option_that_no_layout_supports(cli):
    """The error lists the values that layouts support."""
    outcome = cli("create", "--in", "milvus+lite:x?index=ivf", "--collection", "c", "--for", "10")

    assert outcome.status == 2
    assert "agrees with index=ivf; expected one of flat, hnsw" in outcome.error_line()
