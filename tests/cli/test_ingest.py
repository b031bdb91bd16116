"""``ingest``: what the command says of its sources and of what became of them."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from st_connectors.cli import sources
from st_connectors.cli.output import progress_text
from st_connectors.ingest import IngestReport
from st_connectors.ingest.sources import Reading

pytest.importorskip("qdrant_edge")


@pytest.fixture
def target(tmp_path) -> list[str]:
    """Return the options that name a collection, which ``--create`` creates."""
    return ["--in", f"qdrant+edge:{tmp_path / 'store'}", "--collection", "c"]


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ADDRESSES = {
    "memory": "memory:{}",
    "qdrant-edge": "qdrant+edge:{}",
    "qdrant-memory": "qdrant+memory:{}",
    "milvus-lite": "milvus+lite:{}.db",
}


@pytest.mark.parametrize("store", ADDRESSES)
def test_an_ingest_by_a_column_with_few_distinct_values_warns(cli, tmp_path, store):
    """Of 200 documents, 190 were replaced: the summary counts them, and a line names the share and the cure."""
    address = ADDRESSES[store].format(tmp_path / "few")
    _skip_without(store)
    source = write(tmp_path / "in.jsonl", ({"genre": f"g{n % 10}", "text": f"red {n}"} for n in range(200)))
    options = ["--in", address, "--collection", "few", "--create", "--id-field", "genre", "--batch", "64"]

    outcome = cli("ingest", source, *options)

    assert outcome.status == 0
    assert outcome.out.startswith("200 of 200 documents confirmed in ")
    assert outcome.out.endswith(" s, 190 replaced by a later one with the same id\n")
    warning = (
        "st-connectors: warning: 190 of 200 documents (95.0%) were replaced by a later one with the same id; "
        "choose an id field with distinct values, such as with --id-field"
    )
    assert warning in outcome.err.splitlines()
    report = cli("ingest", source, *options, "--json").json
    assert (report["confirmed"], report["replaced"]) == (200, 190)


def _skip_without(store):
    module = {"qdrant-edge": "qdrant_edge", "qdrant-memory": "qdrant_client", "milvus-lite": "milvus_lite"}
    if store in module:
        pytest.importorskip(module[store])


def test_a_few_replaced_documents_are_counted_without_a_warning(cli, tmp_path, target):
    """One of 100 is not more than 1 %; one of 99 is."""
    rows = [{"id": str(n), "text": "red"} for n in range(99)]

    exact = cli("ingest", write(tmp_path / "in.jsonl", [*rows, rows[0]]), *target, "--create")
    more = cli("ingest", write(tmp_path / "in.jsonl", [*rows[:98], rows[0]]), *target)

    assert ", 1 replaced by a later one" in exact.out
    assert exact.err == ""
    assert more.err.startswith("st-connectors: warning: 1 of 99 documents (1.0%) were replaced")


def test_a_misspelled_filterable_field_is_named(cli, books, target):
    """Declared and never seen: one line, and a list in the JSON."""
    fields = ["--filterable", "sectoin:keyword", "--filterable", "year:int"]

    outcome = cli("ingest", books, *target, "--create", *fields)

    assert outcome.status == 0
    assert outcome.err == (
        "st-connectors: no document has a value under 'sectoin', declared as filterable; check the names\n"
    )
    report = cli("ingest", books, *target, "--create", *fields, "--json").json
    assert (report["unfilled"], report["filled"]) == (["sectoin"], {"sectoin": 0, "year": 3})


@pytest.mark.parametrize("store", ["qdrant-edge", "milvus-lite"])
def test_a_field_that_other_records_have_is_not_named(cli, tmp_path, store):
    """The sources of a collection may have different fields; a field that no source has is named each time."""
    _skip_without(store)
    options = ["--in", ADDRESSES[store].format(tmp_path / "two"), "--collection", "two", "--create"]
    options += ["--filterable", "sectoin", "--filterable", "year:int"]
    said = "st-connectors: no document has a value under {}, declared as filterable; check the names\n"

    first = cli("ingest", write(tmp_path / "a.jsonl", [{"id": "a", "text": "red"}]), *options)
    second = cli("ingest", write(tmp_path / "b.jsonl", [{"id": "b", "text": "red", "year": 3}]), *options)
    third = cli("ingest", tmp_path / "a.jsonl", *options)

    assert [first.err, second.err, third.err] == [
        said.format("'sectoin', 'year'"),
        said.format("'sectoin'"),
        said.format("'sectoin'"),
    ]


def test_no_field_is_named_after_an_empty_ingest(cli, tmp_path, target):
    """Nothing was ingested, so that nothing is known about the fields."""
    outcome = cli("ingest", write(tmp_path / "in.jsonl", []), *target, "--create", "--filterable", "year:int")

    assert (outcome.status, outcome.err) == (0, "")


def test_a_column_named_id_beside_the_chosen_one_is_kept_and_said_once(cli, tmp_path, target):
    """Every record is stored by the chosen field."""
    source = write(tmp_path / "in.jsonl", ({"id": n, "sku": f"s{n}", "text": "red"} for n in range(30)))

    outcome = cli("ingest", source, *target, "--create", "--id-field", "sku")

    assert outcome.status == 0
    assert outcome.err == f"st-connectors: {source}: the column 'id' is stored in the payload as 'original_id'\n"
    [record] = cli("get", "s7", *target, "--json").json
    assert record["payload"] == {"original_id": 7, "text": "red"}


INTERRUPTED = """
import os
import signal
import sys
from st_connectors.cli import ingest, run

signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt(report):
    if report.read == 40:
        os.kill(os.getpid(), signal.SIGINT)

module = sys.modules["st_connectors.cli.ingesting"]
original = module.progress_bar

def progress_bar(task, expected, **form):
    from contextlib import contextmanager

    @contextmanager
    def both():
        with original(task, expected, **form) as draw:
            yield lambda report: (draw and draw(report), interrupt(report))

    return both()

module.progress_bar = progress_bar
sys.exit(run(sys.argv[1:]))
"""
ROWS = 1234


def _interrupted(source, target) -> tuple[int, str]:
    """Interrupt an ingest after its fourth batch, at a terminal; return the status and what the terminal got."""
    command = [sys.executable, "-c", INTERRUPTED, "ingest", source, *target, "--create", "--batch", "10"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # what Linux gives for the end of a terminal
                break
            if not part:
                break
            shown += part
        os.close(ours)
    return child.returncode, shown.decode()


@pytest.mark.parametrize(
    "name",
    [
        "in.jsonl",
        "in.parquet",
        *(pytest.param(f"in.{kind}", marks=pytest.mark.long) for kind in ("csv", "json", "jsonl.gz", "feather")),
    ],
)
def test_ctrl_c_tells_what_was_read_stored_and_left(cli, tmp_path, target, name):
    """Exactly, on a line of its own: what is stored is what the collection has, and what is left is the rest."""
    source = _written(tmp_path / name, [{"id": f"d{n}", "text": f"red {n}"} for n in range(ROWS)])

    status, shown = _interrupted(source, target)

    assert status == 130
    before, _, message = shown.partition("st-connectors: interrupted: ")
    assert re.search(r"(\n|\r|\x1b\[2K)(\x1b\[[0-9;?]*[a-zA-Z])*\Z", before)
    counts = re.match(r"([\d,]+) of 1,234 documents read, ([\d,]+) stored, ([\d,]+) left; run the same", message)
    assert counts is not None, message
    read, stored, left = (int(count.replace(",", "")) for count in counts.groups())
    assert stored == int(cli("count", *target).out)
    assert 40 <= stored <= read <= ROWS
    assert left == ROWS - stored


@pytest.mark.parametrize(("name", "count"), [("in.jsonl", None), ("in.feather", None), ("in.parquet", 50)])
def test_documents_are_counted_only_if_that_takes_a_moment(tmp_path, monkeypatch, name, count):
    """Parquet states the number of its rows; other files are read if they are small."""
    path = _written(tmp_path / name, [{"id": f"d{n}", "text": f"red {n}"} for n in range(50)])
    inputs = sources.find_inputs([str(path)], None)
    assert sources.count_inputs(inputs, Reading()) == 50

    monkeypatch.setattr(sources, "MAX_COUNTED", 100)

    assert sources.count_inputs(inputs, Reading()) == count


def _written(path: Path, rows) -> Path:
    table = {key: [row[key] for row in rows] for key in rows[0]}
    match path.suffix:
        case ".jsonl":
            return write(path, rows)
        case ".gz":
            path.write_bytes(gzip.compress(write(path.with_suffix(""), rows).read_bytes()))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".csv":
            path.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows))
        case ".parquet":
            pa = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.parquet").write_table(pa.table(table), path)
        case ".feather":
            pa = pytest.importorskip("pyarrow")
            pytest.importorskip("pyarrow.feather").write_feather(pa.table(table), path)
    return path


@pytest.mark.parametrize(
    ("report", "expected", "text"),
    [
        (IngestReport(), None, "0 confirmed, 0/s"),
        (
            IngestReport(read=500, confirmed=490, refused_total=10, seconds=10.0),
            None,
            "490 confirmed, 10 refused, 50/s",
        ),
        (IngestReport(read=500, confirmed=500, seconds=10.0), 2000.0, "500 confirmed, 50/s, 25%, 0:00:30 left"),
        (IngestReport(read=500, confirmed=500, seconds=10.0), 499.0, "500 confirmed, 50/s, 100%, 0:00:00 left"),
        (IngestReport(read=1, confirmed=1, seconds=1.0), 100_000.0, "1 confirmed, 1/s, 0%, 1 day, 3:46:39 left"),
    ],
)
def test_the_progress_line_has_percent_and_time_left_if_the_size_is_known(report, expected, text):
    """Otherwise the count and the rate."""
    assert progress_text(report, expected) == text


def test_patterns_are_expanded_in_order(cli, tmp_path, target):
    """The files of a quoted pattern, at any depth with **; folders do not match."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("b", "a", "deep/c"):
        write(tmp_path / "data" / f"{name}.jsonl", [{"id": name, "text": "red"}, {"id": name}])

    outcome = cli("ingest", tmp_path / "data" / "**" / "*.jsonl", *target, "--create")

    assert outcome.out.startswith("3 of 6 documents confirmed")
    assert re.findall(r"(\w+)\.jsonl line 2: 'text' is missing", outcome.err) == ["a", "b", "c"]
    missing = cli("ingest", tmp_path / "data" / "*.csv", *target)
    assert missing.status == 2
    assert missing.error_line() == f"{tmp_path / 'data' / '*.csv'}: no file matches"


def test_columns_are_composed_with_map(cli, tmp_path, target):
    """The text from title and body, the id from two columns."""
    source = write(tmp_path / "in.jsonl", [{"sku": "s", "lang": "en", "title": "Title", "body": "Body"}])

    outcome = cli("ingest", source, *target, "--create", "--map", "text={title}. {body}", "--map", "id={sku}-{lang}")

    assert (outcome.status, outcome.err) == (0, "")
    [record] = cli("get", "s-en", *target, "--json").json
    assert record["payload"]["text"] == "Title. Body"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--map", "{title}"], "--map '{title}': expected NAME=TEMPLATE"),
        (["--map", "text={title"], "'{title': the brace at column 1 has no partner"),
        (["--map", "text={a}", "--text-field", "b"], "--text-field and --map text=... exclude each other"),
        (["--map", "id={a}", "--id-field", "b"], "--id-field and --map id=... exclude each other"),
        (["--delimiter", "ab"], "--delimiter 'ab': expected one character other than a quote, or tab"),
        (["--encoding", "utf-9"], "unknown encoding 'utf-9'; expected one such as utf-8"),
    ],
)
def test_invalid_options_for_sources(cli, books, library, arguments, message):
    """The status is 2, and the message says what is expected."""
    outcome = cli("ingest", books, *library, *arguments)

    assert outcome.status == 2
    assert message in outcome.error_line()


def test_delimiter_and_encoding(cli, tmp_path, target):
    """A table of a spreadsheet: semicolons, and umlauts in cp1252, which is guessed, or named."""
    source = tmp_path / "in.csv"
    source.write_bytes("id;text\n1;Das war grün\n".encode("cp1252"))

    guessed = cli("ingest", source, *target, "--create", "--delimiter", ";")
    named = cli("ingest", source, *target, "--delimiter", ";", "--encoding", "cp1252")

    assert guessed.err == (f"st-connectors: {source}: not UTF-8; read as cp1252, which is a guess: '1;Das war grün'\n")
    assert (named.status, named.err) == (0, "")
    assert cli("get", "1", *target, "--json").json[0]["payload"] == {"text": "Das war grün"}


def test_a_tsv_without_quoting(cli, tmp_path, target):
    """Its quotes are ordinary characters, also when Ctrl-C counts its rows."""
    source = tmp_path / "in.tsv"
    source.write_text('id\ttext\n1\t"red\n2\tblue\n')

    assert cli("ingest", source, *target, "--create", "--quote", "none").out.startswith("2 of 2 documents confirmed")
    assert [record["payload"]["text"] for record in cli("get", "1", "2", *target, "--json").json] == ['"red', "blue"]
    for quote, message in (("double", "--quote 'double': expected one character, or none"), (";", "are both ';'")):
        assert message in cli("ingest", source, *target, "--quote", quote, "--delimiter", ";").error_line()


def test_an_ingest_that_stores_nothing_shows_the_keys_there_are(cli, tmp_path, target):
    """The id field is misspelled: one line has the keys of the first document, and one where all refusals are."""
    source = write(tmp_path / "in.jsonl", ({"isbn": str(n), "text": "red"} for n in range(7)))
    keys = "no document was stored; the keys of the first one are isbn, text: --id-field, --text-field and --map"

    again = "st-connectors: repair and ingest refused documents again: st-connectors replay"

    outcome = cli("ingest", source, *target, "--create", "--id-field", "sku")

    assert outcome.status == 1
    [letters] = (tmp_path / ".st-connectors").iterdir()
    assert outcome.err.splitlines()[4:] == [
        f"refused: record 5: {source} line 5: 'sku' is missing",
        "refused: 2 more",
        f"{again} {letters}",
        f"st-connectors: {keys} choose the id and the text",
    ]
    assert len(letters.read_text().splitlines()) == 7
    file = tmp_path / "refused.jsonl"
    assert f"{again} {file}\n" in cli("ingest", source, *target, "--id-field", "sku", "--refused", file).err
    write(source, [{"isbn": "1", "text": "red"}, {"id": "2"}])
    assert "no document was stored" not in cli("ingest", source, *target, "--id-field", "isbn").err


def notes_of_two(tmp_path: Path) -> Path:
    """Return a folder with two text files of one name."""
    for name in ("a", "b/deep"):
        (tmp_path / "notes" / name).mkdir(parents=True)
        (tmp_path / "notes" / name / "README.md").write_text(f"red {name}")
    return tmp_path / "notes"


def test_text_files_of_a_pattern_have_their_paths_as_ids(cli, tmp_path, target, monkeypatch):
    """As in their folder, so that files of one name do not replace each other; also for a relative pattern."""
    folder = notes_of_two(tmp_path)

    assert cli("ingest", folder / "**" / "*.md", *target, "--create").out.startswith("2 of 2 documents confirmed")
    monkeypatch.chdir(folder)
    assert cli("ingest", "*/README.md", "b/**/*.md", *target).status == 0

    assert cli("count", *target).out == "3\n"
    records = cli("get", "a/README.md", "b/deep/README.md", "deep/README.md", *target, "--json").json
    assert [record["payload"]["text"] for record in records] == ["red a", "red b/deep", "red b/deep"]


def test_a_recursive_pattern_does_not_follow_links_to_folders(cli, tmp_path, target, monkeypatch):
    """As a folder does not, so that a link upwards does not repeat every file; one that the pattern names is read."""
    folder = notes_of_two(tmp_path)
    (folder / "a" / "up").symlink_to("..")

    assert cli("ingest", folder / "**" / "*.md", *target, "--create").out.startswith("2 of 2 documents confirmed")
    monkeypatch.chdir(folder)
    assert cli("ingest", "**/*.md", *target).out.startswith("2 of 2 documents confirmed")
    assert cli("count", *target).out == "2\n"
    assert cli("ingest", "a/up/b/**/*.md", *target).out.startswith("1 of 1 documents confirmed")


@pytest.mark.parametrize("names", [("a/README.md", "b/deep/README.md"), ("a", "b/deep"), ("a", "b/deep/*.md")])
def test_text_files_with_the_same_id_are_refused_before_anything_is_read(cli, tmp_path, target, names):
    """The line names both and the cure; the same file twice is no mistake."""
    folder = notes_of_two(tmp_path)
    first, second = folder / "a" / "README.md", folder / "b" / "deep" / "README.md"

    outcome = cli("ingest", *(folder / name for name in names), *target, "--create")

    assert outcome.status == 2
    assert outcome.error_line() == (
        f"{first} and {second} would have the same id 'README.md': "
        "pass a folder above both, or a pattern in quotes, whose ids are paths"
    )
    assert not (tmp_path / "store").exists()
    assert cli("ingest", first, first, *target, "--create").out.startswith("2 of 2 documents confirmed")


def test_what_was_skipped_in_a_folder_is_said(cli, tmp_path, target):
    """In a line, or with ``--json`` in the report."""
    folder = tmp_path / "notes"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "x.txt").write_text("x")
    (folder / "a.md").write_text("---\nyear: 2020\n---\nred")
    sentence = f"{folder}: skipped 1 hidden"

    outcome = cli("ingest", folder, *target, "--create")

    assert (outcome.status, outcome.err) == (0, f"st-connectors: {sentence}\n")
    assert cli("get", "a.md", *target, "--json").json[0]["payload"] == {"year": 2020, "text": "red"}
    assert cli("ingest", folder, *target, "--json").json["notes"] == [sentence]


def test_refused_documents_are_written_to_a_file(cli, tmp_path, target):
    """All of them, as JSON lines with document, error class and place; what was read of a line that is no JSON too."""
    source = tmp_path / "in.jsonl"
    source.write_bytes(
        b'{"id": "a", "text": "red", "year": "x"}\nnonsense \xff\n{"id": "c"}\n{"id": "d", "text": "red", "year": 3}\n'
        + b'{"id": "e"}\n' * 1200
    )
    refused = tmp_path / "refused.jsonl"

    outcome = cli("ingest", source, *target, "--create", "--filterable", "year:int", "--refused", refused)

    assert outcome.status == 1
    lines = [json.loads(line) for line in refused.read_text("utf-8").splitlines()]
    assert len(lines) == 1203
    assert [
        (line["stage"], line["error"]["type"], line["failedData"]["document"], line["source"]["position"])
        for line in lines[:3]
    ] == [
        ("write", "Refused", {"id": "a", "text": "red", "year": "x"}, 1),
        ("read", "DocumentError", "nonsense \udcff\n", 2),
        ("read", "DocumentError", {"id": "c"}, 3),
    ]
    assert {line["source"]["source"] for line in lines} == {str(source)}
    assert lines[2]["error"]["reason"] == lines[2]["failedData"]["message"] == "'text' is missing"
    assert cli("ingest", source, *target, "--refused", source).status == 2
    assert source.stat().st_size > 1200


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a disk that is full")
def test_a_full_disk_under_refused_documents_ends_with_status_3(cli, tmp_path, target):
    """As when the store fails, because the same command succeeds once there is space: it is not wrong usage."""
    source = write(tmp_path / "in.jsonl", [{"id": "a", "text": "red"}, {"id": "b"}])
    command = ["ingest", source, *target, "--create", "--refused"]

    outcome = cli(*command, "/dev/full")

    assert outcome.status == 3
    assert outcome.err.startswith(
        "st-connectors: refused documents cannot be written to /dev/full: No space left on device; free space, or "
    )
    assert cli(*command, tmp_path / "refused.jsonl").status == 1


@pytest.fixture
def shop(tmp_path) -> str:
    """Return the address of a database of four products."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE products (sku TEXT, title TEXT, body TEXT, price REAL, sold BOOLEAN, id INTEGER)"
        )
        rows = [
            ("a", "Kettle", "boils water", 19.5, 0, 7),
            ("b", "Boat", None, None, 1, 8),
            ("c", None, None, 3, 1, 9),
            ("d", "Lamp", b"\xff", 3, 1, 10),
        ]
        connection.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    return f"sqlite:{path}"


def test_rows_of_a_query_are_documents(cli, tmp_path, target, shop):
    """With all options of other sources: fields, templates, kinds and refused documents; the report is the same."""
    refused = tmp_path / "refused.jsonl"
    options = ["--id-field", "sku", "--map", "text={title}: {body}", "--filterable", "sold:bool", "--refused", refused]

    outcome = cli("ingest", "--sql", shop, "SELECT * FROM products", *target, "--create", *options)

    assert outcome.status == 1
    assert outcome.out.startswith("2 of 4 documents confirmed in ")
    said, *refusals, hint = outcome.err.splitlines()
    assert hint.endswith(f"st-connectors replay {refused}")
    assert said == f"st-connectors: {shop}: the column 'id' is stored in the payload as 'original_id'"
    reasons = ["'text' is missing", "the value of 'body' cannot be read: 'utf-8' codec can't decode byte 0xff"]
    assert [
        line.partition(f"{shop} row ")[2].startswith(f"{row}: {reason}")
        for row, reason, line in zip((3, 4), reasons, refusals, strict=True)
    ] == [True, True]
    kettle, boat = (record["payload"] for record in cli("get", "a", "b", *target, "--json").json)
    more = {"title": "Kettle", "body": "boils water", "price": 19.5}
    assert kettle == {"text": "Kettle: boils water", "sold": False, "original_id": 7, **more}
    assert boat == {"text": "Boat: ", "sold": True, "original_id": 8, "title": "Boat"}
    assert cli("count", *target, "--where", "sold = true").out == "1\n"
    lines = [json.loads(line) for line in refused.read_text("utf-8").splitlines()]
    assert [(line["failedData"]["indexId"], line["source"]) for line in lines] == [
        (name, {"source": shop, "position": row, "unit": "row"}) for name, row in (("c", 3), ("d", 4))
    ]


def test_a_query_is_read_after_the_files(cli, books, target, shop):
    """In one ingest, whose size is unknown."""
    query = "SELECT sku AS id, title AS text FROM products WHERE title IS NOT NULL"

    outcome = cli("ingest", books, "--sql", shop, query, *target, "--create", "--json")

    assert (outcome.status, outcome.json["confirmed"]) == (0, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a SOURCE to read, or pass --sql URL QUERY"),
        (["--sql", "shop.db", "SELECT 1"], "expected an address such as sqlite:PATH"),
        (["--sql", "sqlite:nowhere.db", "SELECT 1"], "sqlite:nowhere.db: no such file"),
        (["--sql", "duckdb:", "SELEC 1"], 'duckdb: Parser Error: syntax error at or near "SELEC"'),
        (["--sql", "postgresql://me:s3cret@127.0.0.1:1/shop", "SELECT 1"], "postgresql://127.0.0.1:1/shop: "),
    ],
)
def test_mistakes_with_a_query_cost_a_line(cli, library, arguments, message):
    """The status is 2, and the password is not in it."""
    for module in ("duckdb", "psycopg"):
        pytest.importorskip(module, reason="a driver of the databases")

    outcome = cli("ingest", *arguments, *library)

    assert outcome.status == 2
    line = outcome.error_line()
    assert line.startswith(message)
    assert "s3cret" not in line


def test_letters_of_other_sources_stay_and_no_other_file_is_touched(cli, books, tmp_path, target):
    """The file grows; one of another program is refused by name, unchanged."""
    refused = tmp_path / "refused.jsonl"
    for name in ("x", "y"):
        bad = write(tmp_path / f"{name}.jsonl", [{"id": name}])
        assert cli("ingest", bad, *target, "--create", "--refused", refused).status == 1
    assert cli("ingest", books, *target, "--refused", refused).status == 0
    assert len(refused.read_text().splitlines()) == 2

    refused.write_text("old\n")
    outcome = cli("ingest", books, *target, "--refused", refused)

    assert outcome.status == 2
    assert "line 1 is not a dead letter of this package" in outcome.error_line()
    assert refused.read_text() == "old\n"
