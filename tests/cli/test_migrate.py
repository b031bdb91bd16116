"""``migrate``: estimate, fill, compare, switch, go back and drop, with the built-in models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from st_connectors import Index, collections, open_store
from st_connectors.index import Split
from st_core import SentenceTransformer, builtin

pytest.importorskip("qdrant_edge")


@pytest.fixture
def other(tmp_path):
    """Return the folder of another model: the built-in one, with the order of its dimensions reversed."""
    folder = tmp_path / "other"
    shutil.copytree(builtin.path("dense"), folder)
    [weights] = folder.rglob("*.safetensors")
    from safetensors.numpy import load_file, save_file

    save_file(
        {
            name: np.ascontiguousarray(value[:, ::-1]) if value.ndim == 2 else value
            for name, value in load_file(weights).items()
        },
        weights,
    )
    return folder


def vectors(address: str) -> dict[str, list[float]]:
    """Return the dense vectors of the current collection."""
    store = open_store(address, "books")
    try:
        return {record.id: np.asarray(record.vectors["dense"]).tolist() for record in store.scan()}
    finally:
        store.close()


def test_a_migration_and_its_way_back(cli, library, other):
    """The vectors are those of the new model, then again those of the old one; --drop-old drops the other."""
    address = library[1]
    before = vectors(address)

    outcome = cli("migrate", *library, "--dense", other, "--yes", "--json")

    assert (outcome.status, outcome.err) == (0, "")
    done = outcome.json
    assert (done["collection"], done["previous"], done["current"], done["written"]) == ("books", "books", "books~2", 3)
    assert (done["estimate"]["records"], done["comparison"]["queries"]) == (3, 3)
    texts = {record["id"]: record["payload"]["text"] for record in cli("get", *before, *library, "--json").json}
    model = SentenceTransformer(str(other))
    for key, vector in vectors(address).items():
        np.testing.assert_allclose(vector, model.encode_document(texts[key], normalize_embeddings=True), rtol=1e-5)
    assert vectors(address) != before
    assert cli("search", "fish", *library, "--limit", 1, "--json").json["hits"][0]["id"] == "sea"
    assert cli("info", *library, "--json").json["collection"] == "books~2"

    undone = cli("migrate", *library, "--back", "--yes")
    assert undone.status == 0
    assert undone.out.endswith("'books~2' stays until --drop-old, and the same migration undoes this\n")
    assert vectors(address) == before
    dropped = cli("migrate", *library, "--drop-old", "--yes")
    assert (dropped.status, dropped.out) == (0, "dropped 'books~2'\n")
    assert collections(address) == ["books"]


def test_the_output_names_what_was_done(cli, library, other, tmp_path):
    """An estimate, a table and the way back, in lines."""
    queries = tmp_path / "queries.tsv"
    queries.write_text("q1\tfishing on the ocean\nq2\ttravel in time\n")
    judgements = tmp_path / "qrels"
    judgements.write_text("q1 0 sea 2\nq1 0 submarine 1\nq2 0 time 1\n")

    estimated = cli("migrate", *library, "--dense", other, "--estimate")
    assert (estimated.status, collections(library[1])) == (0, ["books"])
    assert estimated.out.startswith("3 records with ")
    filled = cli(
        "migrate", *library, "--dense", other, "--no-switch", "--yes", "--queries", queries, "--judgements", judgements
    )
    assert filled.status == 0
    lines = filled.out.splitlines()
    assert lines[1] == "wrote 3 records to 'books~2'"
    assert [line[:24].strip() for line in lines[2:]] == [
        "overlap at 10",
        "rank correlation",
        "milliseconds per query",
        "nDCG at 10",
    ]
    assert lines[5].endswith("(2 queries)")
    assert cli("info", *library, "--json").json["collection"] == "books"
    switched = cli("migrate", *library, "--dense", other, "--yes")
    assert "wrote 0 records" in switched.out
    assert switched.out.splitlines()[-1] == (
        "'books' now opens 'books~2'; open it again in other programs. 'books' stays until --drop-old, and --back "
        "undoes this"
    )


def test_a_migration_that_is_done_may_be_repeated(cli, library, other):
    """A script runs a command again that was killed after the switch."""
    command = ["migrate", *library, "--dense", other, "--yes"]
    assert cli(*command).status == 0
    before = vectors(library[1])

    again, as_json = cli(*command), cli(*command, "--json")

    assert (again.status, again.out, again.err) == (0, "'books' has these models and settings already\n", "")
    assert (as_json.status, as_json.json) == (0, {"collection": "books", "current": "books~2"})
    assert (vectors(library[1]), collections(library[1])) == (before, ["books", "books~2"])


def test_it_asks_before_it_encodes(cli, library, other):
    """Without a terminal and --yes it says so, after the estimate."""
    outcome = cli("migrate", *library, "--dense", other)
    assert (outcome.status, collections(library[1])) == (2, ["books"])
    assert "add --yes" in outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to migrate: pass another model, metric, quantization, filterable field or split"),
        (["--back"], "'books' has no previous collection to go back to"),
        (["--drop-old", "--yes"], "'books' has no previous collection to drop"),
        (["--back", "--drop-old"], "--back excludes --drop-old; pass only one of them"),
        (["--back", "--estimate"], "--back excludes --estimate; pass only one of them"),
        (["--back", "--metric", "dot"], "--back and --drop-old take no sources, models and settings; remove these"),
        (["--judgements", "qrels"], "--judgements needs --queries, the queries that it judges"),
        (
            ["--no-split", "--split-tokens", "9"],
            "--split-tokens and --no-split exclude each other; pass only one of them",
        ),
        (["absent.jsonl"], "absent.jsonl: no such file or folder"),
        (["--metric", "hamming"], "unknown metric 'hamming'; expected one of cosine, dot, euclidean"),
    ],
)
def test_mistakes_are_one_line(cli, library, options, message):
    """Nothing is created."""
    outcome = cli("migrate", *library, *options)
    assert (outcome.status, outcome.error_line()) == (2, message)
    assert collections(library[1]) == ["books"]


def test_an_invalid_judgement_is_named_by_its_line(cli, library, tmp_path):
    """A line with another number of columns, or a gain that is no number."""
    (tmp_path / "queries.tsv").write_text("q1\tx\n")
    (tmp_path / "qrels").write_text("q1 0 sea 1\n\nq1 sea 1\n")
    outcome = cli("migrate", *library, "--queries", tmp_path / "queries.tsv", "--judgements", tmp_path / "qrels")
    assert outcome.status == 2
    assert outcome.error_line().endswith("qrels, line 3: expected QUERY-ID 0 DOCUMENT-ID GAIN, got 'q1 sea 1'")


def test_a_collection_without_texts_is_refused_in_one_line(cli, library, other):
    """The first record without a text is named, with what to do."""
    with Index.open(library[1], collection="books") as index:
        [record] = index.get(["sea"])
        del record.payload["text"]
        index.store.upsert([record])
    outcome = cli("migrate", *library, "--dense", other, "--yes")
    assert (outcome.status, outcome.out) == (3, "")
    assert outcome.error_line() == (
        "index migrate: record 'sea' has no complete text under 'text' in its payload, from which to compute new "
        "vectors: pass the source that has it (st-connectors migrate SOURCE, or documents=)"
    )


def test_texts_come_from_a_source(cli, library, other, tmp_path):
    """A CSV file with other column names; standard input, which cannot be read twice, is refused."""
    with Index.open(library[1], collection="books") as index:
        records = [replace(each, payload={"year": 1}) for each in index.store.scan()]
        texts = {each.id: each.payload["text"] for each in index.store.scan()}
        index.store.upsert(records)
    source = tmp_path / "texts.csv"
    rows = "".join(f"{key},{json.dumps(text)}\n" for key, text in texts.items())
    source.write_text(f"name,body\n{rows}")

    outcome = cli(
        *["migrate", source, *library, "--dense", other, "--id-field", "name", "--text-field", "body", "--yes"],
        "--json",
    )
    assert (outcome.status, outcome.err, outcome.json["written"]) == (0, "", 3)
    model = SentenceTransformer(str(other))
    for key, vector in vectors(library[1]).items():
        np.testing.assert_allclose(vector, model.encode_document(texts[key], normalize_embeddings=True), rtol=1e-5)
    assert cli("get", "sea", *library, "--json").json[0]["payload"] == {"year": 1}
    refused = cli("migrate", "-", *library, "--dense", other)
    assert (refused.status, refused.error_line()) == (
        2,
        "standard input cannot be read, because the sources are read several times: pass a file",
    )


def test_other_windows(cli, library):
    """Documents are split anew, and joined again by --no-split."""
    long = "a voyage under the sea " * 30
    with Index.open(library[1], collection="books") as index:
        index.ingest([{"id": "sea", "text": long}], split=Split(40))
    assert cli("count", *library).out.strip() != "3"

    assert cli("migrate", *library, "--split-tokens", 10, "--yes").status == 0
    windows = int(cli("count", *library).out)
    assert windows > 12
    assert cli("migrate", *library, "--drop-old", "--yes").status == 0
    assert cli("migrate", *library, "--no-split", "--yes").status == 0
    assert cli("count", *library).out == "3\n"
    assert cli("get", "sea", *library, "--json").json[0]["payload"]["text"] == long


def test_an_empty_collection_is_not_compared(cli, library):
    """There is nothing to search for, and the switch goes on."""
    assert cli("delete", "--where", "true", *library, "--yes").status == 0
    outcome = cli("migrate", *library, "--metric", "dot", "--yes", "--json")
    assert (outcome.status, outcome.json["comparison"], outcome.json["current"]) == (0, None, "books~2")


def test_another_model_of_the_same_name(cli, tmp_path, other):
    """A search says that the weights have changed; a migration to the new ones goes on without a comparison."""
    library = ["--in", f"qdrant+edge:{tmp_path / 'shelf'}", "--collection", "books"]
    model = tmp_path / "model"
    shutil.copytree(builtin.path("dense"), model)
    with Index.create(library[1], collection="books", dense=str(model)) as index:
        index.ingest([{"id": "a", "text": "a boat at sea"}, {"id": "b", "text": "time travel"}])
    shutil.copytree(other, model, dirs_exist_ok=True)

    assert "differs in weights" in cli("search", "boat", *library).error_line()
    outcome = cli("migrate", *library, "--dense", model, "--yes")
    assert outcome.status == 0
    assert outcome.err.startswith("st-connectors: searches are not compared: index open: the dense vectors of 'books'")
    assert cli("search", "boat", *library, "--limit", 1, "--json").json["hits"][0]["id"] == "a"
    back = cli("migrate", *library, "--back", "--yes")
    assert back.status == 0, back.err


def test_dropping_the_name_drops_both(cli, library, other):
    """After a migration the name is dropped as before it."""
    assert cli("migrate", *library, "--dense", other, "--yes").status == 0
    refused = cli("drop", *library[:3], "books~2", "--yes")
    assert (refused.status, "drop 'books'" in refused.error_line()) == (3, True)
    assert cli("drop", *library, "--yes").status == 0
    assert collections(library[1]) == []
    assert json.loads(cli("list", *library[:2], "--json").out) == []
