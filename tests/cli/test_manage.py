"""``list``, ``info``, ``delete``, ``get --where`` and ``drop``: what a collection is, and what goes from it."""

from __future__ import annotations

import io
import json

import pytest

from st_connectors.registry import open_store
from st_connectors.schema import Schema, SparseField, TextField

pytest.importorskip("qdrant_edge")


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that makes standard input a terminal on which an answer is typed."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    return lambda answer: monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))


def test_list_shows_counts_and_models(cli, library):
    """A collection is a row with its number of records and the model of each field."""
    assert cli("list", "--in", library[1]).out.splitlines() == [
        "collection  records  models",
        "books       3        dense builtin:dense, sparse builtin:sparse",
    ]
    assert cli("list", "--in", library[1], "--json").json == [
        {"collection": "books", "count": 3, "models": {"dense": "builtin:dense", "sparse": "builtin:sparse"}}
    ]


def test_list_of_an_address_without_collections(cli, tmp_path):
    """It is a success that says so, and JSON is an empty list."""
    address = f"qdrant+edge:{tmp_path / 'nothing'}"

    assert cli("list", "--in", address).out == f"no collections at {address}\n"
    assert cli("list", "--in", address, "--json").json == []


def test_list_of_a_path_that_cannot_be_read(cli, tmp_path):
    """It is not the same as an address without collections."""
    (tmp_path / "books.jsonl").touch()

    outcome = cli("list", "--in", f"qdrant+edge:{tmp_path}/books.jsonl")

    assert outcome.status == 3
    assert outcome.error_line().startswith(
        f"qdrant+edge collections: the folder {tmp_path}/books.jsonl cannot be used: [Errno 20] Not a directory"
    )


def test_list_names_a_collection_that_cannot_be_opened(cli, library, tmp_path):
    """The others are listed, and the status is 1."""
    broken = tmp_path / "library" / "broken"
    broken.mkdir()
    (broken / "schema.json").write_text((tmp_path / "library" / "books" / "schema.json").read_text())

    outcome = cli("list", "--in", library[1])

    assert outcome.status == 1
    assert outcome.out.splitlines()[1].startswith("books ")
    [line] = outcome.err.splitlines()
    assert line.startswith("st-connectors: 'broken' cannot be opened: qdrant+edge")


def test_info_shows_fields_models_and_size(cli, library, tmp_path):
    """JSON has the stored schema with complete fingerprints; the text has their first digits."""
    known = cli("info", *library, "--json").json
    with open_edge(library) as schema:
        assert known | schema.to_json() == known
    assert (known["count"], known["address"], known["aliases"], known["alias"]) == (3, library[1], [], None)
    assert known["bytes"] > 10_000
    assert known["store"] == {"folder": str((tmp_path / "library" / "books").resolve())}
    assert known["persistent"] is True

    shown = cli("info", *library).out
    assert shown.splitlines()[:2] == [f"books in {library[1]}", "  records  3"]
    assert "dense   dense (dimension 256, metric cosine, quantization none, optional true)" in shown
    assert "year  int" in shown
    digest = known["models"]["dense"]["fingerprint"]["weights"]
    assert f"weights {digest[:12]}" in " ".join(shown.split())
    assert max(map(len, shown.splitlines()[1:-1])) <= 100
    assert digest not in shown


class open_edge:  # noqa: N801  # reads like a function
    """The schema of a collection, closed again."""

    def __init__(self, library):
        self.store = open_store(library[1], library[3])

    def __enter__(self):
        return self.store.schema

    def __exit__(self, *_):
        self.store.close()


def test_info_of_a_missing_collection(cli, library):
    """The status is 3, in one line."""
    outcome = cli("info", "--in", library[1], "--collection", "nope")

    assert outcome.status == 3
    assert "there is no collection 'nope'" in outcome.error_line()


def test_get_by_filter(cli, library):
    """``--where`` shows the records that match, at most ``--limit`` of them."""
    outcome = cli("get", "--where", "year < 1900", *library, "--json")

    assert outcome.status == 0
    assert sorted(record["id"] for record in outcome.json) == ["submarine", "time"]
    assert len(cli("get", "--where", "year < 1900", "--limit", "1", *library, "--json").json) == 1
    assert cli("get", "--where", "year > 2000", *library).out == "no records\n"


def test_get_takes_ids_or_a_filter(cli, library):
    """Neither and both are usage errors."""
    for arguments in ((), ("sea", "--where", "year = 1952")):
        outcome = cli("get", *arguments, *library)
        assert (outcome.status, outcome.error_line()[:22]) == (2, "pass the ids of record")


def test_get_prints_values_as_json(cli):
    """Payload values other than strings are JSON, not the notation of Python."""
    store = open_store("memory:cards", "c", Schema("c", {"text": TextField(), "sparse": SparseField()}))
    store.create()
    from st_connectors.store import Record

    payload = {"text": "first\nsecond", "draft": True, "none": None, "tags": ["ä", 1.0], "meta": {"year": 1952}}
    store.upsert([Record("a", {}, payload)])

    shown = cli("get", "a", "--in", "memory:cards", "--collection", "c").out
    store.drop()

    assert shown.splitlines() == [
        "a",
        "  text: first",
        "      second",
        "  draft: true",
        "  none: null",
        '  tags: ["ä", 1.0]',
        '  meta: {"year": 1952}',
    ]


def test_delete_by_id(cli, library):
    """The named documents go, a missing id is reported with status 1."""
    outcome = cli("delete", "sea", "nope", *library, "--yes")

    assert (outcome.status, outcome.out) == (1, "deleted 1 document from 'books'\n")
    assert outcome.err == "no record 'nope' in 'books'\n"
    assert cli("count", *library).out == "2\n"


def test_delete_by_filter_as_json(cli, library):
    """JSON has the numbers of documents and records."""
    outcome = cli("delete", "--where", "year < 1900", *library, "--yes", "--json")

    assert outcome.json == {"collection": "books", "deleted": 2, "records": 2, "missing": []}
    assert cli("get", "sea", *library).status == 0
    assert cli("count", *library).out == "1\n"


def test_delete_reads_ids_from_a_file_and_from_standard_input(cli, library, tmp_path, monkeypatch):
    """One id per line, after a byte order mark too; blank lines are skipped."""
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfsea\r\n\r\n  \r\ntime\r\n")
    assert cli("delete", "--from", tmp_path / "ids.txt", *library, "--yes").out == "deleted 2 documents from 'books'\n"

    monkeypatch.setattr("sys.stdin", io.StringIO("submarine\n"))
    assert cli("delete", "--from", "-", *library, "--yes").status == 0
    assert cli("count", *library).out == "0\n"


@pytest.mark.parametrize("line", ["sea\u2028time", "sea\x0btime", "sea\x85time", " sea", "time "])
def test_delete_takes_a_line_as_one_id(cli, library, tmp_path, line):
    """Other separators and spaces are part of an id, so that no other document is deleted."""
    (tmp_path / "ids.txt").write_text(f"{line}\nsubmarine\n", encoding="utf-8")

    outcome = cli("delete", "--from", tmp_path / "ids.txt", *library, "--yes")

    assert (outcome.status, outcome.out) == (1, "deleted 1 document from 'books'\n")
    assert cli("get", "sea", "time", *library).status == 0


def test_delete_shows_the_number_and_asks(cli, library, terminal):
    """Without a yes nothing is deleted."""
    terminal("n")
    outcome = cli("delete", "--where", "year < 1900", *library)
    assert outcome.status == 130
    assert "Delete 2 documents from 'books'? [y/N]" in outcome.err
    assert cli("count", *library).out == "3\n"

    terminal("y")
    assert cli("delete", "--where", "year < 1900", *library).status == 0
    assert cli("count", *library).out == "1\n"


def test_delete_without_a_terminal_needs_yes(cli, library, monkeypatch):
    """The error says how many documents it is about."""
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    outcome = cli("delete", "sea", *library)

    assert outcome.status == 2
    assert "cannot ask whether to delete 1 document from 'books'" in outcome.error_line()
    assert cli("count", *library).out == "3\n"


def test_delete_takes_one_way_to_name_documents(cli, library, tmp_path):
    """None and several are usage errors, and so is a file without ids."""
    for arguments in ((), ("sea", "--where", "year = 1952"), ("--where", "year = 1952", "--from", "x")):
        outcome = cli("delete", *arguments, *library, "--yes")
        assert (outcome.status, outcome.error_line()[:24]) == (2, "pass the ids of document")
    (tmp_path / "empty.txt").write_text("\n")
    assert "there is none" in cli("delete", "--from", tmp_path / "empty.txt", *library, "--yes").error_line()
    assert "cannot read the ids" in cli("delete", "--from", tmp_path / "no.txt", *library, "--yes").error_line()
    assert cli("count", *library).out == "3\n"


def test_delete_counts_the_windows_of_a_split_document(cli, tmp_path):
    """A split document is one document with several records, which all go."""
    source = tmp_path / "long.jsonl"
    source.write_text(json.dumps({"id": "a", "text": "a voyage under the sea " * 60}) + "\n")
    target = ["--in", f"qdrant+edge:{tmp_path / 'store'}", "--collection", "c"]
    records = cli("ingest", source, *target, "--create", "--split-tokens", "50", "--json").json["records"]
    assert records > 2

    assert cli("delete", "a", *target, "--yes").out == f"deleted 1 document ({records} records) from 'c'\n"
    assert cli("count", *target).out == "0\n"


@pytest.fixture
def aliased(cli, books, request):
    """The three books in a collection of Qdrant's local mode, with the alias ``live``."""
    pytest.importorskip("qdrant_client")
    from qdrant_client import models

    from st_connectors.qdrant.client import open_client
    from st_connectors.registry import parse_address

    address = f"qdrant+memory:{request.node.name}"
    assert cli("ingest", books, "--in", address, "--collection", "books", "--create").status == 0
    alias = models.CreateAlias(collection_name="books", alias_name="live")
    client = open_client(parse_address(address), None).client
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    return address


def test_drop_of_an_alias_names_it_as_one(cli, aliased):
    """Neither the alias nor the collection goes, with or without ``--yes``."""
    for options in ((), ("--yes",), ("--yes", "--with-aliases")):
        outcome = cli("drop", "--in", aliased, "--collection", "live", *options)
        assert outcome.status == 3
        assert "'live' is an alias of the collection 'books'" in outcome.error_line()
    assert cli("count", "--in", aliased, "--collection", "live").out == "3\n"


def test_drop_shows_the_aliases_that_would_go(cli, aliased, terminal):
    """The question lists them; ``--yes``, where nobody reads the question, is not enough."""
    target = ["--in", aliased, "--collection", "books"]
    outcome = cli("drop", *target, "--yes")
    assert outcome.status == 2
    assert "'books' with 3 records and its alias 'live' would be dropped; add --with-aliases" in outcome.error_line()

    terminal("n")
    assert "Drop 'books' with 3 records and its alias 'live'? [y/N]" in cli("drop", *target).err
    assert cli("count", *target).out == "3\n"

    dropped = cli("drop", *target, "--yes", "--with-aliases", "--json")
    assert dropped.json == {"collection": "books", "dropped": 3, "aliases": ["live"]}
    assert cli("count", *target).status == 3


def test_info_shows_an_alias_as_one(cli, aliased):
    """The collection has its own name, and the alias is named beside it."""
    target = ["--in", aliased, "--collection", "live"]

    known = cli("info", *target, "--json").json
    assert (known["collection"], known["alias"], known["aliases"]) == ("books", "live", ["live"])
    shown = cli("info", *target).out
    assert shown.startswith(f"books in {aliased}\n")
    assert "opened as   the alias live" in shown


def test_stores_are_readable_at_80_columns(cli):
    """No line is wider, and every store has every capability with its value."""
    from st_connectors.registry import plugins

    shown = cli("stores").out
    assert max(map(len, shown.splitlines())) <= 80
    paragraphs = dict(zip(plugins(), shown.split("\n\n"), strict=True))
    for name, plugin in plugins().items():
        lines = paragraphs[name].splitlines()
        assert lines[0] == name
        words = " ".join(paragraphs[name].split())
        assert f"dense metrics {', '.join(sorted(plugin.capabilities.metrics))}" in words
        assert "max query terms" in words
        assert all(f"{name}+{variant}:" in words for variant in plugin.variants if variant)
