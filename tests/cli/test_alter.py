"""``alter`` and ``relocate``, and ``search`` and ``ingest`` with a model that has moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from st_connectors import Index
from st_core import builtin

pytest.importorskip("qdrant_edge")


@pytest.fixture
def target(tmp_path):
    """Return the options of a collection in a folder."""
    return ["--in", f"qdrant+edge:{tmp_path / 'library'}", "--collection", "books"]


@pytest.fixture
def moved(cli, books, target, tmp_path):
    """Fill a collection by copies of the built-in models, move them, and return their new places."""
    places = {}
    for field in ("dense", "sparse"):
        shutil.copytree(builtin.path(field), tmp_path / "old" / field)
        places[field] = tmp_path / "new" / field
    models = [word for field in places for word in (f"--{field}", tmp_path / "old" / field)]
    assert cli("ingest", books, *target, "--create", "--filterable", "year:int", *models).status == 0
    (tmp_path / "old").rename(tmp_path / "new")
    return places


def names(target) -> dict[str, str]:
    """Return the recorded names of the models of a collection."""
    with Index.open(target[1], collection=target[3]) as index:
        return {field: ref.name for field, ref in index.schema.models.items()}


@pytest.mark.parametrize("command", ["search", "ingest"])
def test_a_model_that_has_moved_is_passed_by_its_new_place(cli, books, target, moved, command):
    """Without it the one line says what to do; with it the command works, and the collection records nothing new."""
    first = {"search": ["a voyage"], "ingest": [books]}[command]
    lost = cli(command, *first, *target)
    assert lost.status == 3
    assert "'books' records this name of its dense model" in lost.error_line()
    assert "(--dense), or record it with st-connectors relocate" in lost.error_line()

    results = cli(command, *first, *target, "--dense", moved["dense"], "--sparse", moved["sparse"], "--json")

    assert (results.status, results.err) == (0, "")
    assert results.json.get("confirmed", 3) == len(results.json.get("hits", [1, 2, 3])) == 3
    assert cli(command, *first, *target).status == 3


@pytest.mark.parametrize("command", ["search", "ingest", "relocate"])
def test_another_model_than_the_one_that_moved_is_refused(cli, books, target, moved, command):
    """Its fingerprint is compared; the line says what differs, and nothing is recorded."""
    settings = moved["dense"] / "config_sentence_transformers.json"
    changed = json.loads(settings.read_text("utf-8")) | {"prompts": {"document": "other: "}}
    settings.write_text(json.dumps(changed), "utf-8")
    first = {"search": ["a voyage"], "ingest": [books], "relocate": []}[command]
    before = names(target)

    outcome = cli(command, *first, *target, "--dense", moved["dense"], "--sparse", moved["sparse"])

    assert outcome.status == 3
    assert "differs in prompts" in outcome.error_line()
    assert names(target) == before


def test_relocate_records_the_new_place(cli, target, moved, tmp_path, monkeypatch):
    """Afterwards the name of the collection suffices, from any folder; a relative place is recorded whole."""
    monkeypatch.chdir(tmp_path)

    outcome = cli("relocate", *target, "--dense", "new/dense", "--sparse", moved["sparse"], "--json")

    assert (outcome.status, outcome.err) == (0, "")
    old = {field: str(tmp_path / "old" / field) for field in moved}
    assert outcome.json == {
        "collection": "books",
        "models": {field: {"from": old[field], "to": str(place)} for field, place in moved.items()},
    }
    monkeypatch.chdir("/")
    assert names(target) == {field: str(place) for field, place in moved.items()}
    assert [hit["id"] for hit in cli("search", "a voyage", *target, "--limit", 1, "--json").json["hits"]] == [
        "submarine"
    ]


def test_relocate_says_what_it_did(cli, target, moved, tmp_path):
    """One line for each model."""
    outcome = cli("relocate", *target, "--dense", moved["dense"])

    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out == f"dense: {tmp_path / 'old' / 'dense'} is now recorded as {moved['dense']}\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "nothing to record: pass the new place of a model as dense, sparse, reranker"),
        (["--reranker", "builtin:dense"], "records no reranker model; it records dense, sparse"),
    ],
)
def test_relocate_of_nothing(cli, library, options, says):
    """A usage error of one line."""
    outcome = cli("relocate", *library, *options)

    assert outcome.status == 2
    assert says in outcome.error_line()


def test_ingest_without_create_refuses_options_of_a_new_collection(cli, books, library):
    """A model that has moved is not one of them, but leaving one out is."""
    for options in (["--dense", "none"], ["--filterable", "pages:int"], ["--text"]):
        outcome = cli("ingest", books, *library, *options)
        assert outcome.status == 2
        assert f"{options[0]} describes a new collection; add --create" in outcome.error_line()


def test_alter_adds_a_filterable_field_for_stored_records(cli, library, tmp_path):
    """Records that were stored before match; the reranker and the fusion are recorded for later commands."""
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "new", "text": "a new book", "meta": {"pages": 90}}) + "\n", "utf-8")
    assert cli("ingest", more, *library).status == 0
    refused = cli("search", "a book", *library, "--where", "meta.pages < 100")
    assert refused.status == 2
    assert "'meta.pages' is not filterable" in refused.error_line()

    outcome = cli("alter", *library, "--filterable", "meta.pages:int", "--fusion", "rrf:60:1,2", "--json")

    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.json["changed"] == ["filterable fields", "fusion"]
    assert outcome.json["schema"]["fusion"] == {"method": "rrf", "k": 60, "weights": [1.0, 2.0]}
    results = cli("search", "a book", *library, "--where", "meta.pages < 100", "--json").json
    assert [hit["id"] for hit in results["hits"]] == ["new"]
    again = cli("alter", *library, "--filterable", "meta.pages:int")
    assert (again.status, again.out) == (0, "nothing to change in 'books'\n")


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ([], 2, "nothing to change: pass --filterable, --reranker, --fusion or --quantization"),
        (["--filterable", "year:keyword"], 2, "has the filterable field 'year' of kind int"),
        (["--filterable", "id"], 2, "'id' cannot be filterable"),
        (["--filterable", "text:int"], 2, "'text' cannot be filterable as int"),
        (["--fusion", "rrf:60:1,2,3"], 2, "the fusion has 3 weights for 2 legs"),
        (["--quantization", "int4"], 2, "unknown quantization 'int4'; expected one of none, int8, binary"),
        (["--quantization", "int8"], 3, "this store cannot change the quantization of 'books' in place; copy it"),
    ],
)
def test_alter_refuses_in_one_line(cli, library, options, status, says):
    """What cannot be altered is said, with what to do."""
    outcome = cli("alter", *library, *options)

    assert outcome.status == status
    assert says in outcome.error_line()


def test_a_value_of_another_kind_is_named(cli, books, library, tmp_path):
    """The record is named, and the collection is as it was."""
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "odd", "text": "a book", "pages": "many"}) + "\n", "utf-8")
    assert cli("ingest", more, *library).status == 0

    outcome = cli("alter", *library, "--filterable", "pages:int")

    assert outcome.status == 3
    assert "record 'odd': payload['pages'] is filterable as int, and 'many' is not" in outcome.error_line()
    assert cli("ingest", books, *library).status == 0


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("id", "'id' cannot be filterable: the id of a document is not in its payload"),
        ("_chunk", "'_chunk' cannot be filterable: it is an object"),
        ("text:int", "'text' cannot be filterable as int: it is the text of a document"),
    ],
)
@pytest.mark.parametrize("command", ["create", "ingest"])
def test_a_field_that_no_document_can_have_is_refused(cli, books, tmp_path, command, field, says):
    """At create, by either command, and nothing is created."""
    target = ["--in", f"qdrant+edge:{tmp_path / 'other'}", "--collection", "books", "--filterable", field]
    first = [books, "--create"] if command == "ingest" else []

    outcome = cli(command, *first, *target)

    assert outcome.status == 2
    assert says in outcome.error_line()
    assert not Path(tmp_path / "other").exists()


def test_what_a_store_cannot_change_in_place_is_copied_as_the_line_says(cli, books, tmp_path):
    """The line names the command; the copy has the field, with the vectors of the first collection."""
    pytest.importorskip("milvus_lite", reason="needs milvus-lite")
    address = f"milvus+lite:{tmp_path / 'shelf.db'}"
    target = ["--in", address, "--collection", "books"]
    assert cli("ingest", books, *target, "--create").status == 0

    refused = cli("alter", *target, "--filterable", "year:int")
    assert refused.status == 3
    assert "cannot change the filterable fields of 'books' in place" in refused.error_line()
    assert "st-connectors copy --into NAME --filterable" in refused.error_line()
    copied = cli(
        "copy", address, address, "--collection", "books", "--into", "dated", "--filterable", "year:int", "--json"
    )

    assert (copied.status, copied.json["confirmed"]) == (0, 3)
    search = ["search", "a voyage", "--in", address, "--json", "--collection"]
    results = cli(*search, "dated", "--where", "year < 1880").json["hits"]
    assert [hit["id"] for hit in results] == ["submarine"]
    every = [hit["legs"] for hit in cli(*search, "books").json["hits"]]
    assert [hit["legs"] for hit in cli(*search, "dated").json["hits"]] == every
