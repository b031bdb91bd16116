"""``--adopt``: a collection that another program created is searched, filled, counted and read as it is."""

from __future__ import annotations

import json

import pytest

from st_connectors.registry import parse_address
from st_core import SentenceTransformer, SparseEncoder

qdrant_client = pytest.importorskip("qdrant_client")
models = qdrant_client.models

TEXTS = {1: "a voyage in a submarine under the ocean", 2: "a traveller visits the far future"}


@pytest.fixture
def notes(request):
    """Somebody's collection with integer ids, vectors ``meaning`` and ``terms``, and texts under ``body``."""
    from st_connectors.qdrant.client import open_client

    address = f"qdrant+memory:{request.node.name}"
    client = open_client(parse_address(address), None).client
    client.create_collection(
        "notes",
        vectors_config={"meaning": models.VectorParams(size=256, distance=models.Distance.COSINE)},
        sparse_vectors_config={"terms": models.SparseVectorParams()},
    )
    texts = list(TEXTS.values())
    dense = SentenceTransformer("builtin:dense").encode_document(texts)
    sparse = SparseEncoder("builtin:sparse").encode_document(texts)
    client.upsert(
        "notes",
        [
            models.PointStruct(
                id=number,
                vector={
                    "meaning": row.tolist(),
                    "terms": models.SparseVector(indices=terms.indices.tolist(), values=terms.values.tolist()),
                },
                payload={"body": text, "year": 1870 + number},
            )
            for (number, text), row, terms in zip(TEXTS.items(), dense, sparse.rows(), strict=True)
        ],
    )
    return ["--in", address, "--collection", "notes"]


FIELDS = ("--adopt", "dense=meaning,sparse=terms,text=body")
MODELS = ("--dense", "builtin:dense", "--sparse", "builtin:sparse")


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_an_adopted_collection_is_searched(cli, notes, mode):
    """By their vectors, with their ids; the snippet comes from their key of texts."""
    outcome = cli("search", "submarine ocean", *notes, *FIELDS, *MODELS, "--mode", mode, "--limit", "1")

    assert (outcome.status, outcome.err) == (0, "")
    hit, snippet = outcome.out.splitlines()
    assert hit.endswith("  1")
    assert snippet.replace("*", "").strip() == TEXTS[1]


def test_an_adopted_collection_is_counted_read_and_filtered(cli, notes):
    """Their payload keys are filterable if they are declared."""
    year = ("--filterable", "year:int")

    assert cli("count", *notes, *FIELDS, *year, "--where", "year = 1871").out == "1\n"
    assert cli("get", "2", *notes, *FIELDS, "--json").json == [{"id": "2", "payload": {"body": TEXTS[2], "year": 1872}}]
    hits = cli("search", "a", *notes, *FIELDS, *MODELS, *year, "--where", "year = 1872", "--json").json["hits"]
    assert [hit["id"] for hit in hits] == ["2"]
    assert cli("delete", "--where", "year = 1871", *notes, *FIELDS, *year, "--yes").status == 0
    assert cli("count", *notes, *FIELDS).out == "1\n"


def test_an_adopted_collection_is_filled(cli, notes, tmp_path):
    """Texts are stored under their key only, and searches match them."""
    source = tmp_path / "more.jsonl"
    source.write_text(json.dumps({"id": 7, "text": "a giant marlin", "year": 1952}) + "\n")

    outcome = cli("ingest", source, *notes, *FIELDS, *MODELS, "--json")

    assert (outcome.status, outcome.json["confirmed"]) == (0, 1)
    assert cli("get", "7", *notes, *FIELDS, "--json").json[0]["payload"] == {"year": 1952, "body": "a giant marlin"}
    [hit] = cli("search", "marlin", *notes, *FIELDS, *MODELS, "--mode", "sparse", "--json").json["hits"]
    assert hit["id"] == "7"


@pytest.mark.parametrize("value", ["meaning", "dense", "vector=meaning", "dense=a,dense=b", "text=", ""])
def test_adopt_is_kinds_and_fields(cli, notes, value):
    """Anything else is a usage error that shows the form."""
    outcome = cli("search", "x", *notes, "--adopt", value, *MODELS)

    assert outcome.status == 2
    assert "expected dense=FIELD, sparse=FIELD or text=FIELD" in outcome.error_line()


def test_a_vector_and_its_model_belong_together(cli, notes, books):
    """Each alone is a usage error, and so are options that describe a new collection."""
    for arguments in (("--adopt", "dense=meaning"), ("--adopt", "text=body", "--dense", "builtin:dense")):
        outcome = cli("search", "x", *notes, *arguments)
        assert (outcome.status, "--adopt dense=FIELD and --dense MODEL" in outcome.error_line()) == (2, True)
    assert "nothing to search by" in cli("search", "x", *notes, "--adopt", "text=body").error_line()
    assert "--filterable is for --adopt" in cli("count", *notes, "--filterable", "year:int").error_line()
    assert "describe a new collection" in cli("ingest", books, *notes, *FIELDS, *MODELS, "--create").error_line()


def test_without_adopt_the_error_names_the_way(cli, notes):
    """A collection of another program is not opened by accident."""
    outcome = cli("count", *notes)

    assert outcome.status == 3
    assert "was not created by st-connectors" in outcome.error_line()
