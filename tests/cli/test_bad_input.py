"""Every mistake costs one line that says what to do, and a status; nothing confirmed is lost, and no traceback is shown."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Schema

pytest.importorskip("qdrant_edge")


def test_an_unknown_built_in_model(cli, books, tmp_path):
    """Status 3, the built-in names are told, and no collection is left behind."""
    where = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]

    outcome = cli("ingest", books, *where, "--create", "--dense", "builtin:nope")

    assert outcome.status == 3
    assert "builtin:nope" in outcome.complaint()
    assert "builtin:dense" in outcome.complaint()
    assert "there is no collection 'c'" in cli("count", *where).complaint()


def test_a_wrong_url_scheme(cli):
    """Status 2, with the schemes there are and the nearest."""
    outcome = cli("search", "x", "--in", "qdrnt://localhost", "--collection", "c")

    assert outcome.status == 2
    assert "no store has the scheme 'qdrnt'; did you mean qdrant:" in outcome.complaint()


def test_a_wrong_url_variant(cli):
    """Status 2, and the schemes that are told hold every way to connect, gRPC with TLS among them."""
    outcome = cli("count", "--in", "qdrant+grcp+https://localhost", "--collection", "c")

    assert outcome.status == 2
    assert "did you mean qdrant+grpc+https:; known are" in outcome.complaint()
    assert "qdrant+grpc:, qdrant+grpc+https:, " in outcome.complaint()


def test_a_server_that_is_not_there(cli):
    """Status 3; the store and what was tried are named."""
    outcome = cli("count", "--in", "qdrant://127.0.0.1:1", "--collection", "c")

    assert outcome.status == 3
    assert "qdrant" in outcome.complaint()
    assert "cannot be reached" in outcome.complaint()


def test_repeating_is_not_told(books, library):
    """A call that is repeated before it fails costs one line as well, in a process that sets up no logging."""
    code = "from st_connectors.cli import main; main()"
    server = "qdrant://127.0.0.1:1"
    for arguments in (
        ["ingest", books, "--in", server, "--collection", "c", "--create"],
        ["copy", library[1], server, "--collection", "books"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)

        [line] = done.stderr.splitlines()
        assert "the server at 127.0.0.1:1 cannot be reached" in line
        assert (done.returncode, done.stdout) == (3, "")


def test_a_model_of_another_kind_costs_one_line(books, library):
    """The error alone: that it is loaded as another is warned of where it is, in a process that sets up no logging."""
    code = "from st_connectors.cli import main; main()"
    for arguments in (
        ["search", "x", *library, "--reranker", "builtin:dense"],
        ["ingest", books, "--in", "memory:", "--collection", "c", "--create", "--sparse", "builtin:dense"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)

        [line] = done.stderr.splitlines()
        assert "load it with SentenceTransformer" in line
        assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.torch
def test_a_folder_of_another_kind_costs_one_line(checkpoints, library):
    """The error alone too, where only the weights tell that nothing can be made of it."""
    code = "from st_connectors.cli import main; main()"
    arguments = ["search", "x", *library, "--reranker", str(checkpoints.folder("bert-mean"))]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)

    [line] = done.stderr.splitlines()
    assert "the checkpoint lacks classifier" in line
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.torch
def test_a_model_of_another_kind_that_loads_is_warned_of(checkpoints, books):
    """Once, and the command does its work."""
    code = "from st_connectors.cli import main; main()"
    folder = str(checkpoints.folder("splade-max"))
    where = ["--in", "memory:", "--collection", "c", "--create", "--sparse", "none", "--dense", folder]
    done = subprocess.run(
        [sys.executable, "-c", code, "ingest", books, *where], check=False, capture_output=True, text=True
    )

    assert done.stderr.splitlines() == [
        f"{folder} is a SparseEncoder loaded as a SentenceTransformer",
        "st-connectors: memory: keeps nothing: what was ingested is gone when this command ends",
    ]
    assert done.returncode == 0


def test_a_missing_extra(cli, monkeypatch):
    """Status 2, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    monkeypatch.delitem(sys.modules, "st_connectors.qdrant.edge", raising=False)

    outcome = cli("count", "--in", "qdrant+edge:x", "--collection", "c")

    assert outcome.status == 2
    assert "pip install 'st-connectors[qdrant]'" in outcome.complaint()


def test_lines_that_do_not_parse_or_lack_id_or_text(cli, tmp_path):
    """Status 1: each bad line is named by its number, the others are in."""
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"id": "a", "text": "red"}\n{"id": "b", "text"\n{"text": "no id"}\n{"id": "d"}\n{"id": "e", "text": "blue"}\n'
    )
    where = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]

    outcome = cli("ingest", source, *where, "--create")

    assert outcome.status == 1
    assert outcome.err.splitlines() == [
        f"refused: record 2: {source} line 2: not JSON: Expecting ':' delimiter at column 19",
        f"refused: record 3: {source} line 3: 'id' is missing",
        f"refused: record 4 'd': {source} line 4: 'text' is missing",
    ]
    assert outcome.out.startswith("2 of 5 documents confirmed")
    assert cli("get", "a", "e", *where).status == 0


def test_a_stored_text_does_not_steer_the_terminal(cli, tmp_path):
    """Its control characters come as escapes, which in JSON are the same value."""
    steering = "red\x1b[2J\x9b\rgone"
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"id": "a", "text": steering}))
    where = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]
    assert cli("ingest", source, *where, "--create").status == 0

    assert r"red\u001b[2J\u009b" in cli("get", "a", *where).out
    assert r"red\u001b[2J\u009b gone" in cli("search", "red", *where).out
    as_json = cli("get", "a", *where, "--json")
    assert "\x9b" not in as_json.out
    assert as_json.json[0]["payload"]["text"] == steering


def test_refusals_as_json(cli, tmp_path):
    """With --json the report is on standard output, whole, and standard error is empty."""
    source = tmp_path / "in.jsonl"
    source.write_text("nonsense\n" * 8 + '{"id": "a", "text": "red"}\n')

    outcome = cli("ingest", source, "--in", "memory:json", "--collection", "c", "--create", "--json")

    assert (outcome.status, outcome.err) == (1, "")
    assert (outcome.json["confirmed"], outcome.json["refused_total"], len(outcome.json["refused"])) == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.jsonl", None, "absent.jsonl: no such file or folder"),
        ("data.xyz", "", "pass one of jsonl, csv, parquet, text"),
        ("t.csv", "id,body\n1,x\n", "no column 'text'; the columns are id, body"),
        ("t.parquet", "no parquet", "Parquet"),
        ("binary.csv", b"\x89PNG\x1b[2J\xff,\n", "binary.csv line 1: not UTF-8"),
        ("quoted.csv", '"id"x,text\n1,x\n', "quoted.csv line 1: not CSV"),
        ("steering.csv", "\x1b[2Jid,text\n1,x\n", r"no column 'id'; the columns are \u001b[2Jid, text"),
    ],
)
def test_a_file_that_cannot_be_read_at_all(cli, tmp_path, name, content, says):
    """Status 2, with what was expected."""
    pytest.importorskip("pyarrow")
    source = tmp_path / name
    if content is not None:
        source.write_bytes(content if isinstance(content, bytes) else content.encode())

    outcome = cli("ingest", source, "--in", "memory:unreadable", "--collection", name, "--create")

    assert outcome.status == 2
    assert says in outcome.complaint()


def test_another_dimension_than_the_collections(cli, books, tmp_path):
    """Status 3, with both dimensions."""
    address = f"qdrant+edge:{tmp_path / 'x'}"
    store = open_store(address, "c", Schema("c", {"dense": DenseField(16)}))
    store.create()
    store.close()

    outcome = cli("ingest", books, "--in", address, "--collection", "c", "--create", "--sparse", "none")

    assert outcome.status == 3
    assert "16" in outcome.complaint()
    assert "256" in outcome.complaint()


def test_another_model_than_the_collections(cli, library):
    """Status 3: the model is named, and what differs in it; what needs no model still works."""
    address, name = library[1], library[3]
    store = open_store(address, name)
    other = replace(store.schema.models["dense"], fingerprint={"weights": "0" * 32})
    copy = open_store(
        address, "old", replace(store.schema, collection="old", models={**store.schema.models, "dense": other})
    )
    copy.create()
    copy.close()
    store.close()

    outcome = cli("search", "ocean", "--in", address, "--collection", "old")

    assert outcome.status == 3
    assert "made by 'builtin:dense', which has changed since: it differs in weights" in outcome.complaint()
    assert cli("search", "ocean", "--in", address, "--collection", "old", "--trust-model").status == 0
    assert cli("count", "--in", address, "--collection", "old").out == "0\n"


HOLD = """
import sys
from st_connectors.registry import open_store
store = open_store(sys.argv[1], "books")
print("held", store.count(), flush=True)
sys.stdin.read()
store.close()
"""


def test_an_edge_folder_that_another_process_holds(cli, library):
    """Status 3 while it is held, and fine afterwards."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, library[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held 3\n"

    outcome = cli("search", "ocean", *library)
    holder.communicate("")

    assert outcome.status == 3
    assert "another process" in outcome.complaint()
    assert cli("count", *library).out == "3\n"


# A parent that runs in the background hands down Ctrl-C ignored; a terminal does not.
INTERRUPTED = """
import signal
import sys
from contextlib import contextmanager
from st_connectors import cli
from st_connectors.cli import ingest

signal.signal(signal.SIGINT, signal.default_int_handler)

@contextmanager
def told(what):
    yield lambda report: print(report.confirmed, flush=True)

sys.modules["st_connectors.cli.ingest"].progress_of = told
sys.exit(cli.run(sys.argv[1:]))
"""


def test_ctrl_c_in_the_middle_of_an_ingest(cli, tmp_path):
    """Status 130: the line says how many are confirmed, exactly those are there, and the same ingest can be run again."""
    where = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]
    lines = [json.dumps({"id": f"d{n}", "text": "red"}) + "\n" for n in range(25)]
    command = [sys.executable, "-c", INTERRUPTED, "ingest", "-", *where, "--create", "--batch", "10"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("".join(lines))
    child.stdin.flush()
    # Once the second batch is confirmed, the child waits for the rest of the third.
    assert [child.stdout.readline() for _ in range(2)] == ["10\n", "20\n"]

    child.send_signal(signal.SIGINT)
    out, err = child.communicate()

    assert child.returncode == 130
    assert out == ""
    [line] = err.splitlines()
    assert line.startswith("st-connectors: interrupted; what is confirmed stays: 20 of 20 documents confirmed")
    assert cli("count", *where).out == "20\n"
    assert cli("get", *(f"d{n}" for n in range(20)), *where).status == 0
    (tmp_path / "again.jsonl").write_text("".join(lines))
    assert cli("ingest", tmp_path / "again.jsonl", *where).status == 0
    assert cli("count", *where).out == "25\n"


def test_ingest_into_a_collection_that_is_not_there(cli, books, library):
    """Status 3: without --create a misspelt name makes nothing."""
    outcome = cli("ingest", books, "--in", library[1], "--collection", "boks")

    assert outcome.status == 3
    assert "'boks'" in outcome.complaint()
    assert "to make it, add --create" in outcome.complaint()
    assert cli("count", "--in", library[1], "--collection", "boks").status == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--where", "year >> 3"], "column 7"),
        (["--where", "genre == 'x'"], "genre"),
        (["--mode", "fuzzy"], "mode is one of dense, sparse, text, hybrid, not 'fuzzy'"),
        (["--mode", "text"], "has no text field to search; its fields: 'dense', 'sparse'"),
        (["--fusion", "magic"], "--fusion 'magic': write rrf"),
        (["--fusion", "weighted:1"], "the fusion has 1 weight for 2 legs: dense, sparse"),
        (["--rerank"], "this index has no reranker: name one by --reranker MODEL"),
    ],
)
def test_searches_that_cannot_be(cli, library, arguments, says):
    """Status 2, with what would be right."""
    outcome = cli("search", "ocean", *library, *arguments)

    assert outcome.status == 2
    assert says in outcome.complaint()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--filterable", "year"], "--filterable says how a collection is made: add --create"),
        (["--create", "--filterable", "year:integer"], "write FIELD:KIND, KIND one of keyword, int"),
        (["--format", "xml"], "--format 'xml': one of jsonl, csv, parquet, text"),
        (["--create", "--dense", "none", "--sparse", "none"], "nothing to search by"),
    ],
)
def test_ingests_that_cannot_be(cli, books, library, arguments, says):
    """Status 2, with what would be right."""
    outcome = cli("ingest", books, *library, *arguments)

    assert outcome.status == 2
    assert says in outcome.complaint()


def test_a_misspelt_field_is_named(cli, books, library):
    """Status 1, and the reason is the name that is not there."""
    outcome = cli("ingest", books, *library, "--id-field", "isbn")

    assert outcome.status == 1
    assert outcome.err.splitlines()[0] == f"refused: record 1: {books} line 1: 'isbn' is missing"


def test_nothing_read_is_not_counted(cli, library, tmp_path):
    """An error before the first record speaks of itself alone."""
    table = tmp_path / "semicolons.csv"
    table.write_text("id;text\n1;red\n")

    outcome = cli("ingest", table, *library)

    assert outcome.status == 2
    assert outcome.complaint().endswith("the columns are id;text: pass the right ones")


def test_a_reader_that_leaves_early(library):
    """Status 141, as for any program that ``head`` cuts off, and not that of refused records; nothing is said."""
    code = "from st_connectors.cli import main; main()"
    command = [sys.executable, "-c", code, "search", "ocean", *library, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()

        assert child.stderr.read() == ""
    assert child.returncode == 141


def test_dropping_with_nobody_to_ask(cli, library, monkeypatch):
    """Status 2 without --yes where standard input is no terminal, and the collection stays."""
    outcome = cli("drop", *library)

    assert outcome.status == 2
    assert "'books' holds 3 records and nobody is there to ask: add --yes" in outcome.complaint()
    assert cli("count", *library).out == "3\n"


def test_copying_onto_itself(cli, library):
    """Status 2: it would replace what it reads."""
    outcome = cli("copy", library[1], library[1], "--collection", "books")

    assert outcome.status == 2
    assert "the same collection" in outcome.complaint()


def test_copying_onto_itself_by_another_spelling(cli, library, monkeypatch, tmp_path):
    """The same folder written as a relative path is the same."""
    monkeypatch.chdir(tmp_path)

    outcome = cli("copy", library[1], "qdrant+edge:./library/", "--collection", "books")

    assert outcome.status == 2
    assert "the same collection" in outcome.complaint()


def test_copying_a_collection_that_is_not_there(cli, library, tmp_path):
    """Status 3, and no target is made."""
    target = f"qdrant+edge:{tmp_path / 'new'}"

    outcome = cli("copy", library[1], target, "--collection", "boks")

    assert outcome.status == 3
    assert "there is no collection 'boks'" in outcome.complaint()
    assert not (tmp_path / "new").exists()


def test_copying_into_a_collection_of_another_schema(cli, library):
    """Status 3: what differs is told, and the target is left as it is."""
    other = open_store("memory:other-schema", "books", Schema("books", {"dense": DenseField(16)}))
    other.create()

    outcome = cli("copy", library[1], "memory:other-schema", "--collection", "books")

    assert outcome.status == 3
    assert "dimension 16" in outcome.complaint()
    assert other.count() == 0
    other.drop()


def test_ctrl_c_in_the_middle_of_a_copy(cli, tmp_path):
    """Status 130: what is confirmed is told and there, and the same copy with --skip-existing writes only the rest."""
    source, target = f"qdrant+edge:{tmp_path / 'one'}", f"qdrant+edge:{tmp_path / 'two'}"
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id": "d{n}", "text": "red {n}"}}\n' for n in range(95)))
    assert cli("ingest", tmp_path / "in.jsonl", "--in", source, "--collection", "c", "--create").status == 0
    copy = ["copy", source, target, "--collection", "c", "--batch", "10"]
    program = INTERRUPTED.replace("cli.ingest", "cli.copy").replace(
        "print(report.confirmed, flush=True)", "held(report)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", HELD + program, *copy],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    # Once the third batch is confirmed, the child waits.
    assert [child.stdout.readline() for _ in range(3)] == ["10\n", "20\n", "30\n"]

    child.send_signal(signal.SIGINT)
    _, err = child.communicate()

    assert child.returncode == 130
    [line] = err.splitlines()
    assert "what is confirmed stays: 30 of 30 documents confirmed" in line
    assert "--skip-existing" in line
    assert cli("count", "--in", target, "--collection", "c").out == "30\n"
    again = cli(*copy, "--skip-existing", "--json").json
    assert (again["confirmed"], again["skipped"]) == (65, 30)
    assert cli("count", "--in", target, "--collection", "c").out == "95\n"


HELD = """
import sys

def held(report):
    print(report.confirmed, flush=True)
    if report.confirmed == 30:
        sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search"], "'QUERY'; see st-connectors search --help"),
        (["search", "x"], "'--in'; see st-connectors search --help"),
        (["nope"], "'nope'; see st-connectors --help"),
        (["count", "--in"], "'--in'"),
        (["count", "--nope"], "--nope"),
        (["demo", "extra"], "extra"),
        (["create", "--in", "memory:", "--collection", "c", "--for", "5m"], "'--for'"),
        (["search", "x", "--in", "memory:", "--collection", "c", "--limit", "0"], "'--limit'"),
    ],
)
def test_wrong_options(cli, arguments, says):
    """Status 2 and one line, which names the option or argument and where to read on."""
    outcome = cli(*arguments)

    assert outcome.status == 2
    assert says in outcome.complaint()
    assert outcome.complaint().endswith(" --help")


def test_no_command_at_all(cli):
    """Gets the help."""
    outcome = cli()

    assert "Usage: st-connectors [OPTIONS] COMMAND" in outcome.out + outcome.err


def test_a_fault_of_our_own_is_not_hidden(cli, monkeypatch):
    """What no user can mend comes through whole, for a report."""
    monkeypatch.setattr("st_connectors.registry.open_store", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        cli("count", "--in", "memory:", "--collection", "c")
