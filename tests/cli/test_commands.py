"""What each command does when all is well."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from st_connectors.cli import app
from st_connectors.registry import open_store, plugins
from st_core import SentenceTransformer, SparseEncoder

pytest.importorskip("qdrant_edge")
COMMANDS = [
    "demo",
    "create",
    "ingest",
    "search",
    "get",
    "count",
    "copy",
    "drop",
    "stores",
    "encode",
    "export",
    "conform",
]


def test_search_as_json_has_query_and_hits(cli, library):
    """Each hit has id, score, payload, and what each leg found."""
    outcome = cli("search", "a voyage under the ocean", *library, "--limit", "2", "--json")

    answer = outcome.json
    assert (outcome.status, outcome.err) == (0, "")
    assert answer["query"] == "a voyage under the ocean"
    best = answer["hits"][0]
    assert best.keys() == {"id", "score", "payload", "legs"}
    assert (best["id"], best["payload"]["year"]) == ("submarine", 1870)
    assert best["legs"]["sparse"]["rank"] == best["legs"]["dense"]["rank"] == 1
    assert best["score"] == pytest.approx(1.0)
    assert len(answer["hits"]) == 2


def test_search_filters_and_explains(cli, library):
    """--where keeps what it says, and --explain adds legs and terms."""
    outcome = cli("search", "a voyage", *library, "--where", "year >= 1880", "--explain", "--mode", "hybrid")

    assert outcome.status == 0
    assert "submarine" not in outcome.out
    shown = cli("search", "voyage", *library, "--explain", "--limit", "1").out
    assert "submarine" in shown
    assert "matched voyage" in shown
    assert "sparse #1" in shown


def test_search_that_finds_nothing_says_so(cli, library):
    """No hits is an answer, status 0."""
    outcome = cli("search", "zebra", *library, "--mode", "sparse")

    assert (outcome.status, outcome.out) == (0, "nothing found\n")


def test_get_shows_records_and_names_the_absent(cli, library):
    """In the order asked; status 1 where one is not there."""
    outcome = cli("get", "time", "nope", "sea", *library, "--json")

    assert outcome.status == 1
    assert [(record["id"], record["payload"]["year"]) for record in outcome.json] == [("time", 1895), ("sea", 1952)]
    assert outcome.err == "no record 'nope' in 'books'\n"


def test_count_counts_all_or_some(cli, library):
    """With and without a filter."""
    assert cli("count", *library).out == "3\n"
    assert cli("count", *library, "--where", "year < 1900", "--json").json == {"collection": "books", "count": 2}


def test_copy_keeps_payloads_and_vectors(cli, library, tmp_path):
    """The target has the schema, the payloads and the very vectors of the source, and answers alike."""
    target = f"qdrant+edge:{tmp_path / 'copy'}"

    outcome = cli("copy", library[1], target, "--collection", "books", "--into", "again", "--json")

    assert (outcome.status, outcome.json["confirmed"]) == (0, 3)
    source, made = open_store(library[1], "books"), open_store(target, "again")
    ours, theirs = ({record.id: record for record in store.scan()} for store in (source, made))
    assert ours.keys() == theirs.keys()
    for key, record in ours.items():
        assert json.dumps(theirs[key].payload) == json.dumps(record.payload)
        np.testing.assert_array_equal(theirs[key].vectors["dense"], record.vectors["dense"])
        assert theirs[key].vectors["sparse"] == record.vectors["sparse"]
    source.close()
    made.close()
    again = ["--in", target, "--collection", "again"]
    assert cli("search", "ocean", *again, "--json").json == cli("search", "ocean", *library, "--json").json


def test_drop_removes_with_yes(cli, library):
    """Afterwards the collection is not there."""
    assert cli("drop", *library, "--yes").out == "removed 'books' with 3 records\n"
    assert cli("count", *library).status == 3


def test_ingest_reads_csv_folders_and_standard_input(cli, tmp_path, monkeypatch):
    """Several sources at once, each in its own format; texts of folders are split."""
    (tmp_path / "a.csv").write_text("id,text,year\nc1,red,1990\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "long.md").write_text("\n\n".join(f"Paragraph {n} speaks of the sea." for n in range(80)))
    where = ["--in", "memory:several", "--collection", "c"]

    outcome = cli(
        "ingest", tmp_path / "a.csv", tmp_path / "docs", *where, "--create", "--filterable", "year:int", "--json"
    )

    assert (outcome.status, outcome.json["confirmed"], outcome.json["split"]) == (0, 2, 1)
    assert cli("count", *where, "--where", "year == 1990").out == "1\n"
    assert outcome.json["records"] == int(cli("count", *where).out) > 2
    folded = cli("search", "sea", *where, "--fold", "--mode", "sparse", "--json").json
    assert [hit["id"] for hit in folded["hits"]] == ["long.md"]


def test_encode_prints_or_writes_vectors(cli, tmp_path):
    """The vectors are the model's own, as JSON lines, .npy or .npz."""
    texts = ["copy a directory", "boil an egg"]
    dense = SentenceTransformer("builtin:dense").encode_document(texts)
    sparse = SparseEncoder("builtin:sparse").encode_query(texts)

    lines = cli("encode", *texts).out.splitlines()
    np.testing.assert_allclose(np.array([json.loads(line) for line in lines], np.float32), dense, rtol=1e-6)
    assert cli("encode", *texts, "--out", tmp_path / "d.npy").status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), dense)
    printed = [
        json.loads(line) for line in cli("encode", *texts, "--model", "builtin:sparse", "--query").out.splitlines()
    ]
    assert [dict(zip(row["indices"], row["values"], strict=True)) for row in printed] == [
        row.to_mapping() for row in sparse.rows()
    ]
    assert cli("encode", *texts, "--model", "builtin:sparse", "--query", "--out", tmp_path / "s.npz").status == 0
    saved = np.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(saved["indices"], sparse.indices)
    np.testing.assert_array_equal(saved["data"], sparse.values)
    assert tuple(saved["shape"]) == sparse.shape


def test_encode_needs_a_text(cli, monkeypatch):
    """Nothing on standard input either is a mistake, not an empty result."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    outcome = cli("encode")

    assert outcome.status == 2
    assert "no text to encode" in outcome.complaint()


def test_encode_checks_the_files_ending(cli, tmp_path):
    """A dense array does not go into a .txt."""
    outcome = cli("encode", "x", "--out", tmp_path / "d.txt")

    assert outcome.status == 2
    assert "dense vectors go to a .npy file, not 'd.txt'" in outcome.complaint()


def test_stores_shows_what_the_plugins_declare(cli):
    """As text, Markdown and JSON, with every installed store."""
    known = plugins()

    told = cli("stores", "--json").json
    assert told.keys() == known.keys()
    for name, plugin in known.items():
        assert told[name]["extra"] == plugin.extra
        assert told[name]["capabilities"]["sparse"] == plugin.capabilities.sparse
        assert set(told[name]["capabilities"]["filters"]) == plugin.capabilities.filters
    header, rule, *rows = cli("stores", "--markdown").out.splitlines()
    assert header == "| ability | " + " | ".join(f"`{name}`" for name in known) + " |"
    assert all(line.count("|") == len(known) + 2 for line in (rule, *rows))
    assert all(name in cli("stores").out for name in known)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_json(cli, command):
    """--help shows an example of that very command, and --json is there."""
    outcome = cli(command, "--help")

    assert outcome.status == 0
    assert f"Example: st-connectors {command}" in " ".join(outcome.out.split())
    assert "--json" in outcome.out


def test_no_command_is_untested():
    """The list above is complete."""
    assert [command.callback.__name__ for command in app.registered_commands if command.callback] == COMMANDS


def test_version(cli):
    """--version prints the package's."""
    from st_core import __version__

    assert cli("--version").out == f"{__version__}\n"


def test_a_size_of_windows_asks_for_windows(cli, tmp_path):
    """Of rows too, which are else not split; where splitting is ruled out, the size is an error."""
    source = tmp_path / "long.jsonl"
    source.write_text(json.dumps({"id": "a", "text": "a voyage under the sea " * 40}) + "\n")
    ingest = ["ingest", source, "--in", f"qdrant+edge:{tmp_path / 'store'}", "--collection", "c", "--create", "--json"]

    assert cli(*ingest).json["split"] == 0
    assert cli(*ingest, "--split-tokens", "50").json["split"] == 1
    refused = cli(*ingest, "--split-tokens", "50", "--no-split")
    assert (refused.status, refused.complaint()[:14]) == (2, "--split-tokens")


def test_a_store_that_keeps_nothing_says_so(cli, books):
    """The command's process ends, and with it what was ingested."""
    outcome = cli("ingest", books, "--in", "memory:lost", "--collection", "c", "--create")

    assert outcome.status == 0
    assert outcome.err == "st-connectors: memory:lost keeps nothing: what was ingested is gone when this command ends\n"


def test_a_folder_of_one_file_is_a_document(cli, tmp_path: Path):
    """A single Markdown file goes in under its name."""
    (tmp_path / "readme.md").write_text("# Sea\nThe ocean.")

    assert cli("ingest", tmp_path / "readme.md", "--in", "memory:single", "--collection", "c", "--create").status == 0
    assert cli("get", "readme.md", "--in", "memory:single", "--collection", "c").status == 0
