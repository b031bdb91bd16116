"""What each command prints and stores when it succeeds."""

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
    "sync",
    "replay",
    "search",
    "evaluate",
    "mine",
    "score",
    "train",
    "distill",
    "get",
    "count",
    "list",
    "info",
    "copy",
    "alter",
    "migrate",
    "relocate",
    "delete",
    "drop",
    "stores",
    "encode",
    "serve",
    "setup",
    "gateway",
    "export",
    "conform",
]


def test_search_as_json_has_query_and_hits(cli, library):
    """Each hit has an id, a score, a payload, and its rank and score in each leg."""
    outcome = cli("search", "a voyage under the ocean", *library, "--limit", "2", "--json")

    answer = outcome.json
    assert (outcome.status, outcome.err) == (0, "")
    assert answer["query"] == "a voyage under the ocean"
    best = answer["hits"][0]
    assert best.keys() == {"id", "score", "payload", "legs", "highlights"}
    assert (best["id"], best["payload"]["year"]) == ("submarine", 1870)
    assert best["legs"]["sparse"]["rank"] == best["legs"]["dense"]["rank"] == 1
    assert best["score"] == pytest.approx(1.0)
    assert len(answer["hits"]) == 2


def test_search_filters_and_explains(cli, library):
    """``--where`` limits the hits, and ``--explain`` adds legs and terms."""
    outcome = cli("search", "a voyage", *library, "--where", "year >= 1880", "--explain", "--mode", "hybrid")

    assert outcome.status == 0
    assert "submarine" not in outcome.out
    shown = cli("search", "voyage", *library, "--explain", "--limit", "1").out
    assert "submarine" in shown
    assert "matched voyage" in shown
    assert "sparse #1" in shown


def test_search_without_hits_says_so(cli, library):
    """An empty result is a success with status 0."""
    outcome = cli("search", "zebra", *library, "--mode", "sparse")

    assert (outcome.status, outcome.out) == (0, "no hits\n")


def test_get_shows_records_and_names_missing_ids(cli, library):
    """Records come in the requested order; the status is 1 if one does not exist."""
    outcome = cli("get", "time", "nope", "sea", *library, "--json")

    assert outcome.status == 1
    assert [(record["id"], record["payload"]["year"]) for record in outcome.json] == [("time", 1895), ("sea", 1952)]
    assert outcome.err == "no record 'nope' in 'books'\n"


def test_count_counts_all_or_some(cli, library):
    """``count`` works with and without a filter."""
    assert cli("count", *library).out == "3\n"
    assert cli("count", *library, "--where", "year < 1900", "--json").json == {"collection": "books", "count": 2}


def test_copy_keeps_payloads_and_vectors(cli, library, tmp_path):
    """The target has the schema, the payloads and the exact vectors of the source, and answers searches equally."""
    target = f"qdrant+edge:{tmp_path / 'copy'}"

    outcome = cli("copy", library[1], target, "--collection", "books", "--into", "again", "--json")

    assert (outcome.status, outcome.json["confirmed"]) == (0, 3)
    source, copied = open_store(library[1], "books"), open_store(target, "again")
    expected, actual = ({record.id: record for record in store.scan()} for store in (source, copied))
    assert expected.keys() == actual.keys()
    for key, record in expected.items():
        assert json.dumps(actual[key].payload) == json.dumps(record.payload)
        np.testing.assert_array_equal(actual[key].vectors["dense"], record.vectors["dense"])
        assert actual[key].vectors["sparse"] == record.vectors["sparse"]
    source.close()
    copied.close()
    again = ["--in", target, "--collection", "again"]
    assert cli("search", "ocean", *again, "--json").json == cli("search", "ocean", *library, "--json").json


def test_drop_removes_with_yes(cli, library):
    """After ``drop --yes`` the collection does not exist."""
    assert cli("drop", *library, "--yes").out == "dropped 'books' with 3 records\n"
    assert cli("count", *library).status == 3


def test_ingest_reads_csv_folders_and_standard_input(cli, tmp_path, monkeypatch):
    """One ingest reads several sources, each in its own format, and splits the texts of folders."""
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
    """The vectors equal the model's, as JSON lines, .npy or .npz."""
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
    """Without texts and with an empty standard input, ``encode`` is a usage error."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    outcome = cli("encode")

    assert outcome.status == 2
    assert "no text to encode" in outcome.error_line()


def test_encode_checks_the_file_suffix(cli, tmp_path):
    """Dense vectors are not written to a .txt file."""
    outcome = cli("encode", "x", "--out", tmp_path / "d.txt")

    assert outcome.status == 2
    assert "expected a .npy file for dense vectors, got 'd.txt'" in outcome.error_line()


def test_stores_shows_what_the_plugins_declare(cli):
    """``stores`` lists every installed store as text, Markdown and JSON."""
    installed = plugins()

    listed = cli("stores", "--json").json
    assert listed.keys() == installed.keys()
    for name, plugin in installed.items():
        assert listed[name]["extra"] == plugin.extra
        assert listed[name]["capabilities"]["sparse"] == plugin.capabilities.sparse
        assert set(listed[name]["capabilities"]["filters"]) == plugin.capabilities.filters
    header, rule, *rows = cli("stores", "--markdown").out.splitlines()
    assert header == "| capability | " + " | ".join(f"`{name}`" for name in installed) + " |"
    assert all(line.count("|") == len(installed) + 2 for line in (rule, *rows))
    assert all(name in cli("stores").out for name in installed)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_and_json(cli, command):
    """``--help`` shows an example of the command, and lists ``--json``."""
    outcome = cli(command, "--help")

    assert outcome.status == 0
    assert f"Example: st-connectors {command}" in " ".join(outcome.out.split())
    assert "--json" in outcome.out


def test_no_command_is_untested():
    """``COMMANDS`` lists every registered command."""
    assert [command.name for command in app.registered_commands] == COMMANDS


def test_version(cli):
    """``--version`` prints the version of the package."""
    from st_core import __version__

    assert cli("--version").out == f"{__version__}\n"


def test_split_tokens_implies_splitting(cli, tmp_path):
    """With ``--split-tokens`` rows are split too; together with ``--no-split`` it is a usage error."""
    source = tmp_path / "long.jsonl"
    source.write_text(json.dumps({"id": "a", "text": "a voyage under the sea " * 40}) + "\n")
    ingest = ["ingest", source, "--in", f"qdrant+edge:{tmp_path / 'store'}", "--collection", "c", "--create", "--json"]

    assert cli(*ingest).json["split"] == 0
    assert cli(*ingest, "--split-tokens", "50").json["split"] == 1
    refused = cli(*ingest, "--split-tokens", "50", "--no-split")
    assert (refused.status, refused.error_line()[:14]) == (2, "--split-tokens")


def test_ingest_warns_if_the_store_is_not_persistent(cli, books):
    """A store in memory loses its records when the command ends, so a line on standard error says so."""
    outcome = cli("ingest", books, "--in", "memory:lost", "--collection", "c", "--create")

    assert outcome.status == 0
    assert outcome.err == "st-connectors: memory:lost is not persistent: its records are lost when this command ends\n"


def test_copy_warns_if_the_target_is_not_persistent(cli, library):
    """As an ingest does; JSON has no such line."""
    outcome = cli("copy", library[1], "memory:lost-copy", "--collection", "books")

    assert outcome.out.startswith("3 of 3 documents confirmed")
    lost = "st-connectors: memory:lost-copy is not persistent: its records are lost when this command ends\n"
    assert outcome.err == lost
    assert cli("copy", library[1], "memory:lost-copy", "--collection", "books", "--json").err == ""


def test_a_single_file_is_a_document(cli, tmp_path: Path):
    """A single Markdown file is stored under its name."""
    (tmp_path / "readme.md").write_text("# Sea\nThe ocean.")

    assert cli("ingest", tmp_path / "readme.md", "--in", "memory:single", "--collection", "c", "--create").status == 0
    assert cli("get", "readme.md", "--in", "memory:single", "--collection", "c").status == 0
