"""A mistake is reported as one line that says what to do, and a status.

Nothing confirmed is lost, and no traceback is shown.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest

from st_connectors.registry import open_store
from st_connectors.schema import DenseField, Schema
from st_core.install import install_command

pytest.importorskip("qdrant_edge")


def test_an_unknown_built_in_model(cli, books, tmp_path):
    """The status is 3, the message lists the built-in names, and no collection is left behind."""
    target = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]

    outcome = cli("ingest", books, *target, "--create", "--dense", "builtin:nope")

    assert outcome.status == 3
    assert "builtin:nope" in outcome.error_line()
    assert "builtin:dense" in outcome.error_line()
    assert "there is no collection 'c'" in cli("count", *target).error_line()


def test_a_wrong_url_scheme(cli):
    """The status is 2, and the message suggests the closest scheme."""
    outcome = cli("search", "x", "--in", "qdrnt://localhost", "--collection", "c")

    assert outcome.status == 2
    assert "unknown scheme 'qdrnt'; did you mean qdrant:" in outcome.error_line()


def test_a_wrong_url_variant(cli):
    """The status is 2, and the message lists every variant of a scheme, such as gRPC with TLS."""
    outcome = cli("count", "--in", "qdrant+grcp+https://localhost", "--collection", "c")

    assert outcome.status == 2
    assert "did you mean qdrant+grpc+https:; expected one of" in outcome.error_line()
    assert "qdrant+grpc:, qdrant+grpc+https:, " in outcome.error_line()


def test_an_unreachable_server(cli):
    """The status is 3, and the message names the store."""
    outcome = cli("count", "--in", "qdrant://127.0.0.1:1", "--collection", "c")

    assert outcome.status == 3
    assert "qdrant" in outcome.error_line()
    assert "cannot be reached" in outcome.error_line()


@pytest.mark.long
def test_retries_are_not_reported(books, library):
    """A call that is retried before it fails is one line too, in a process that configures no logging."""
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


def test_a_model_of_another_kind_is_one_line(books, library):
    """Only the error is printed, without a warning, in a process that configures no logging."""
    code = "from st_connectors.cli import main; main()"
    for arguments in (
        ["search", "x", *library, "--reranker", "builtin:dense"],
        ["ingest", books, "--in", "memory:", "--collection", "c", "--create", "--sparse", "builtin:dense"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)

        [line] = done.stderr.splitlines()
        assert "load it with SentenceTransformer" in line
        assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.long
@pytest.mark.torch
def test_a_folder_of_another_kind_is_one_line(checkpoints, library):
    """Only the error is printed if the weights of a checkpoint do not fit the model class."""
    code = "from st_connectors.cli import main; main()"
    arguments = ["search", "x", *library, "--reranker", str(checkpoints.folder("bert-mean"))]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)

    [line] = done.stderr.splitlines()
    assert "the checkpoint lacks classifier" in line
    assert (done.returncode, done.stdout) == (3, "")


@pytest.mark.long
@pytest.mark.torch
def test_a_model_of_another_kind_that_loads_warns_once(checkpoints, books):
    """A single warning is printed, and the command succeeds."""
    code = "from st_connectors.cli import main; main()"
    folder = str(checkpoints.folder("splade-max"))
    options = ["--in", "memory:", "--collection", "c", "--create", "--sparse", "none", "--dense", folder]
    done = subprocess.run(
        [sys.executable, "-c", code, "ingest", books, *options], check=False, capture_output=True, text=True
    )

    assert done.stderr.splitlines() == [
        f"{folder} is a SparseEncoder loaded as a SentenceTransformer",
        "st-connectors: memory: is not persistent: its records are lost when this command ends",
    ]
    assert done.returncode == 0


def test_a_missing_extra(cli, monkeypatch):
    """The status is 2, and the message has the command that installs the extra."""
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    monkeypatch.delitem(sys.modules, "st_connectors.qdrant.embedded", raising=False)

    outcome = cli("count", "--in", "qdrant+edge:x", "--collection", "c")

    assert outcome.status == 2
    assert install_command("qdrant") in outcome.error_line()


def test_lines_that_do_not_parse_or_lack_id_or_text(cli, tmp_path):
    """The status is 1: each bad line is reported by its number, and the others are stored."""
    source = tmp_path / "in.jsonl"
    source.write_text(
        '{"id": "a", "text": "red"}\n{"id": "b", "text"\n{"text": "no id"}\n{"id": "d"}\n{"id": "e", "text": "blue"}\n'
    )
    target = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]

    outcome = cli("ingest", source, *target, "--create")

    assert outcome.status == 1
    [letters] = (tmp_path / ".st-connectors").iterdir()
    assert outcome.err.splitlines() == [
        f"refused: record 2: {source} line 2: not JSON: Expecting ':' delimiter at column 19",
        f"refused: record 3: {source} line 3: 'id' is missing",
        f"refused: record 4 'd': {source} line 4: 'text' is missing",
        f"st-connectors: repair and ingest refused documents again: st-connectors replay {letters}",
    ]
    assert outcome.out.startswith("2 of 5 documents confirmed")
    assert cli("get", "a", "e", *target).status == 0


def test_stored_text_does_not_control_the_terminal(cli, tmp_path):
    """Control characters are printed as escapes, which keep their value in JSON."""
    text = "red\x1b[2J\x9b\rgone"
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"id": "a", "text": text}))
    target = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]
    assert cli("ingest", source, *target, "--create").status == 0

    assert r"red\u001b[2J\u009b" in cli("get", "a", *target).out
    assert r"*red*\u001b[2J\u009b gone" in cli("search", "red", *target).out
    as_json = cli("get", "a", *target, "--json")
    assert "\x9b" not in as_json.out
    assert as_json.json[0]["payload"]["text"] == text


def test_an_id_stays_on_its_line(cli, tmp_path):
    """With a newline it would look like another hit; so would a key."""
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"id": "a\n  2.   1.0000  b\tc", "text": "red", "x\ny": 1}))
    target = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]
    assert cli("ingest", source, *target, "--create").status == 0

    shown = r"a\u000a  2.   1.0000  b\u0009c"
    assert cli("search", "red", *target).out.splitlines() == [f"  1.   1.0000  {shown}", "     *red*"]
    [hit] = cli("search", "red", *target, "--json").json["hits"]
    assert cli("get", hit["id"], *target).out.splitlines() == [shown, r"  x\u000ay: 1", "  text: red"]


def test_refusals_as_json(cli, tmp_path):
    """With ``--json`` the complete report is on standard output, and standard error is empty."""
    source = tmp_path / "in.jsonl"
    source.write_text("nonsense\n" * 8 + '{"id": "a", "text": "red"}\n')

    outcome = cli("ingest", source, "--in", "memory:json", "--collection", "c", "--create", "--json")

    assert (outcome.status, outcome.err) == (1, "")
    assert (outcome.json["confirmed"], outcome.json["refused_total"], len(outcome.json["refused"])) == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "absent.jsonl: no such file or folder"),
        ("data.xyz", "", "pass one of jsonl, csv, parquet, text"),
        ("t.csv", "id,body\n1,x\n", "no column 'text'; the columns are id, body"),
        ("t.parquet", "no parquet", "Parquet"),
        ("binary.csv", b"\x89PNG\x1b[2J\xff,\n", "binary.csv line 1: not UTF-8"),
        ("quoted.csv", '"id"x,text\n1,x\n', "quoted.csv line 1: not CSV"),
        ("escape.csv", "\x1b[2Jid,text\n1,x\n", r"no column 'id'; the columns are \u001b[2Jid, text"),
    ],
)
def test_a_file_that_cannot_be_read_at_all(cli, tmp_path, name, content, message):
    """The status is 2, and the message says what was expected."""
    pytest.importorskip("pyarrow")
    source = tmp_path / name
    if content is not None:
        source.write_bytes(content if isinstance(content, bytes) else content.encode())

    outcome = cli("ingest", source, "--in", "memory:unreadable", "--collection", name, "--create")

    assert outcome.status == 2
    assert message in outcome.error_line()


def test_a_model_with_another_dimension(cli, books, tmp_path):
    """The status is 3, and the message has both dimensions."""
    address = f"qdrant+edge:{tmp_path / 'x'}"
    store = open_store(address, "c", Schema("c", {"dense": DenseField(16)}))
    store.create()
    store.close()

    outcome = cli("ingest", books, "--in", address, "--collection", "c", "--create", "--sparse", "none")

    assert outcome.status == 3
    assert "16" in outcome.error_line()
    assert "256" in outcome.error_line()


def test_a_model_with_another_fingerprint(cli, library):
    """The status is 3, and the message says what differs; commands that need no model still work."""
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
    assert "made by 'builtin:dense', which has changed since: it differs in weights" in outcome.error_line()
    assert cli("search", "ocean", "--in", address, "--collection", "old", "--trust-model").status == 0
    assert cli("count", "--in", address, "--collection", "old").out == "0\n"


LOCK_HOLDER = """
import sys
from st_connectors.registry import open_store
store = open_store(sys.argv[1], "books")
print("opened", store.count(), flush=True)
sys.stdin.read()
store.close()
"""


def test_an_edge_folder_opened_by_another_process(cli, library):
    """The status is 3 while another process has the folder open; afterwards the command succeeds."""
    command = [sys.executable, "-c", LOCK_HOLDER, library[1]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "opened 3\n"

        outcome = cli("search", "ocean", *library)

    assert outcome.status == 3
    assert "another process" in outcome.error_line()
    assert cli("count", *library).out == "3\n"


# A background parent process passes on an ignored Ctrl-C to its children; a terminal does not.
INTERRUPTED = """
import signal
import sys
from contextlib import contextmanager
from st_connectors import cli
from st_connectors.cli import ingest

signal.signal(signal.SIGINT, signal.default_int_handler)

@contextmanager
def print_progress(task, expected, **form):
    yield lambda report: print(report.confirmed, flush=True)

sys.modules["st_connectors.cli.ingesting"].progress_bar = print_progress
sys.exit(cli.run(sys.argv[1:]))
"""


def test_ctrl_c_in_the_middle_of_an_ingest(cli, tmp_path):
    """The status is 130; exactly the documents reported as confirmed are stored, and the ingest can be run again."""
    target = ["--in", f"qdrant+edge:{tmp_path / 'x'}", "--collection", "c"]
    lines = [json.dumps({"id": f"d{n}", "text": "red"}) + "\n" for n in range(25)]
    command = [sys.executable, "-c", INTERRUPTED, "ingest", "-", *target, "--create", "--batch", "10"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True) as child:
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
    assert re.fullmatch(
        "st-connectors: interrupted: 2[0-5] documents read, 20 stored; run the same ingest again to store the rest",
        line,
    )
    assert cli("count", *target).out == "20\n"
    assert cli("get", *(f"d{n}" for n in range(20)), *target).status == 0
    (tmp_path / "again.jsonl").write_text("".join(lines))
    assert cli("ingest", tmp_path / "again.jsonl", *target).status == 0
    assert cli("count", *target).out == "25\n"


def test_ingest_into_a_missing_collection(cli, books, library):
    """The status is 3: without ``--create`` a misspelled name creates nothing."""
    outcome = cli("ingest", books, "--in", library[1], "--collection", "boks")

    assert outcome.status == 3
    assert "'boks'" in outcome.error_line()
    assert "add --create to create it" in outcome.error_line()
    assert cli("count", "--in", library[1], "--collection", "boks").status == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "year >> 3"], "column 7"),
        (["--where", "genre == 'x'"], "genre"),
        (["--mode", "fuzzy"], "unknown mode 'fuzzy'; expected one of dense, sparse, text, hybrid"),
        (["--mode", "text"], "has no text field; its fields are 'dense', 'sparse'"),
        (["--fusion", "magic"], "--fusion 'magic': expected rrf"),
        (["--fusion", "weighted:1"], "the fusion has 1 weight for 2 legs: dense, sparse"),
        (["--rerank"], "the collection records no reranker; pass one with --reranker MODEL"),
    ],
)
def test_invalid_searches(cli, library, arguments, message):
    """The status is 2, and the message says what is accepted."""
    outcome = cli("search", "ocean", *library, *arguments)

    assert outcome.status == 2
    assert message in outcome.error_line()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--filterable", "year"], "--filterable describes a new collection; add --create"),
        (["--create", "--filterable", "year:integer"], "expected FIELD or FIELD:KIND with KIND one of keyword, int"),
        (["--format", "xml"], "unknown --format 'xml'; expected one of jsonl, csv, parquet, text"),
        (["--create", "--dense", "none", "--sparse", "none"], "nothing to search by"),
    ],
)
def test_invalid_ingests(cli, books, library, arguments, message):
    """The status is 2, and the message says what is accepted."""
    outcome = cli("ingest", books, *library, *arguments)

    assert outcome.status == 2
    assert message in outcome.error_line()


def test_a_misspelled_field_is_named(cli, books, library):
    """The status is 1, and the reason names the missing field."""
    outcome = cli("ingest", books, *library, "--id-field", "isbn")

    assert outcome.status == 1
    assert outcome.err.splitlines()[0] == f"refused: record 1: {books} line 1: 'isbn' is missing"


def test_an_error_before_the_first_record_has_no_counts(cli, library, tmp_path):
    """The message of an error before the first record does not report zero documents."""
    table = tmp_path / "semicolons.csv"
    table.write_text("id;text\n1;red\n")

    outcome = cli("ingest", table, *library)

    assert outcome.status == 2
    assert outcome.error_line().endswith(
        "the columns are id;text: pass the right ones; the cells seem to be separated by ';': pass it as the delimiter"
    )


def test_a_reader_that_leaves_early(library):
    """The status is 141, as for any program that ``head`` cuts off, and nothing is printed."""
    code = "from st_connectors.cli import main; main()"
    command = [sys.executable, "-c", code, "search", "ocean", *library, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()

        assert child.stderr.read() == ""
    assert child.returncode == 141


def test_drop_without_a_terminal_needs_yes(cli, library):
    """The status is 2 without ``--yes`` if standard input is not a terminal, and the collection stays."""
    outcome = cli("drop", *library)

    assert outcome.status == 2
    assert (
        "cannot ask whether to drop 'books' with 3 records: standard input is not a terminal; add --yes"
        in outcome.error_line()
    )
    assert cli("count", *library).out == "3\n"


def test_copying_onto_itself(cli, library):
    """The status is 2: the copy would replace the records it reads."""
    outcome = cli("copy", library[1], library[1], "--collection", "books")

    assert outcome.status == 2
    assert "the same collection" in outcome.error_line()


def test_copying_onto_itself_by_another_spelling(cli, library, monkeypatch, tmp_path):
    """A relative path to the same folder is recognised as the same address."""
    monkeypatch.chdir(tmp_path)

    outcome = cli("copy", library[1], "qdrant+edge:./library/", "--collection", "books")

    assert outcome.status == 2
    assert "the same collection" in outcome.error_line()


def test_copying_a_missing_collection(cli, library, tmp_path):
    """The status is 3, and no target is created."""
    target = f"qdrant+edge:{tmp_path / 'new'}"

    outcome = cli("copy", library[1], target, "--collection", "boks")

    assert outcome.status == 3
    assert "there is no collection 'boks'" in outcome.error_line()
    assert not (tmp_path / "new").exists()


def test_copying_into_a_collection_of_another_schema(cli, library):
    """The status is 3: the message says what differs, and the target stays unchanged."""
    other = open_store("memory:other-schema", "books", Schema("books", {"dense": DenseField(16)}))
    other.create()

    outcome = cli("copy", library[1], "memory:other-schema", "--collection", "books")

    assert outcome.status == 3
    assert "dimension 16" in outcome.error_line()
    assert other.count() == 0
    other.drop()


def test_ctrl_c_in_the_middle_of_a_copy(cli, tmp_path):
    """The status is 130; confirmed records are stored, and the copy with ``--skip-existing`` writes only the rest."""
    source, target = f"qdrant+edge:{tmp_path / 'one'}", f"qdrant+edge:{tmp_path / 'two'}"
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id": "d{n}", "text": "red {n}"}}\n' for n in range(95)))
    assert cli("ingest", tmp_path / "in.jsonl", "--in", source, "--collection", "c", "--create").status == 0
    copy = ["copy", source, target, "--collection", "c", "--batch", "10"]
    program = INTERRUPTED.replace("cli.ingesting", "cli.copy").replace(
        "print(report.confirmed, flush=True)", "pause_after_30(report)"
    )
    command = [sys.executable, "-c", PAUSE + program, *copy]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True) as child:
        assert child.stdout is not None
        # Once the third batch is confirmed, the child waits.
        assert [child.stdout.readline() for _ in range(3)] == ["10\n", "20\n", "30\n"]

        child.send_signal(signal.SIGINT)
        _, err = child.communicate()

    assert child.returncode == 130
    [line] = err.splitlines()
    assert "interrupted: 30 of 95 documents read, 30 stored, 65 left; " in line
    assert "--skip-existing" in line
    assert cli("count", "--in", target, "--collection", "c").out == "30\n"
    again = cli(*copy, "--skip-existing", "--json").json
    assert (again["confirmed"], again["skipped"]) == (65, 30)
    assert cli("count", "--in", target, "--collection", "c").out == "95\n"


PAUSE = """
import sys

def pause_after_30(report):
    print(report.confirmed, flush=True)
    if report.confirmed == 30:
        sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["copy"], "'FROM'; see st-connectors copy --help"),
        (["search"], "'--in'; see st-connectors search --help"),
        (["search", "x"], "'--in'; see st-connectors search --help"),
        (["nope"], "'nope'; see st-connectors --help"),
        (["count", "--in"], "'--in'"),
        (["count", "--nope"], "--nope"),
        (["demo", "extra"], "extra"),
        (["create", "--in", "memory:", "--collection", "c", "--for", "5m"], "'--for'"),
        (["search", "x", "--in", "memory:", "--collection", "c", "--limit", "0"], "'--limit'"),
    ],
)
def test_wrong_options(cli, arguments, message):
    """The status is 2, and one line names the option or argument and the help to read."""
    outcome = cli(*arguments)

    assert outcome.status == 2
    assert message in outcome.error_line()
    assert outcome.error_line().endswith(" --help")


def test_no_command_prints_the_help(cli):
    """Without a command the help is printed."""
    outcome = cli()

    assert "Usage: st-connectors [OPTIONS] COMMAND" in outcome.out + outcome.err


def test_a_bug_keeps_its_traceback(cli, monkeypatch):
    """An error that no user can fix is raised with its traceback."""
    monkeypatch.setattr("st_connectors.registry.open_store", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        cli("count", "--in", "memory:", "--collection", "c")


def test_a_warning_is_one_line(cli, monkeypatch):
    """Python would add the place in the source code and the line of code."""

    def warn(*_):
        warnings.warn("the models\nmay differ", stacklevel=1)
        return True

    monkeypatch.setattr("st_connectors.copying.same_place", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        outcome = cli("copy", "memory:a", "memory:b", "--collection", "c")

    [warned, _] = outcome.err.splitlines()
    assert warned == "st-connectors: warning: the models may differ"


def test_a_key_without_encryption_is_one_line():
    """The warning of qdrant-client would show its source code."""
    code = "from st_connectors.cli import main; main()"
    arguments = ["count", "--in", "qdrant://127.0.0.1:1", "--collection", "c"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "ST_QDRANT_API_KEY": "s3cret"},
    )

    told, failed = done.stderr.splitlines()
    assert told == (
        "qdrant: the key in ST_QDRANT_API_KEY is sent to 127.0.0.1:1 without encryption; "
        "if the server speaks TLS, write qdrant+https://"
    )
    assert "cannot be reached" in failed
    assert "s3cret" not in done.stderr
