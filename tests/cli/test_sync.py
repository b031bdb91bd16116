"""``sync``: a collection becomes equal to its source, and only what has changed is encoded."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from st_connectors.index import Index
from st_connectors.ingest.sources import Notes
from st_connectors.registry import open_store
from st_connectors.vectorise import FieldEncoder

STORES = {
    "qdrant+edge:{}/store": "qdrant_edge",
    "qdrant+memory:{}": "qdrant_client",
    "milvus+lite:{}/m.db": "milvus_lite",
}


@pytest.fixture
def target(tmp_path) -> list[str]:
    return ["--in", f"memory:{tmp_path}", "--collection", "c", "--create"]


@pytest.fixture
def source(tmp_path) -> Path:
    return tmp_path / "in.jsonl"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def rows_of(count: int, **changed: Any) -> list[dict[str, Any]]:
    """Return documents d0, d1, …, with other values for some."""
    return [{"id": f"d{n}", "text": f"red {n}", "n": n, **changed.get(f"d{n}", {})} for n in range(count)]


def contents(target: list[str]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return the payloads without hashes, and the vectors."""
    store = open_store(target[1], target[3])
    try:
        return {
            record.id: (
                {key: value for key, value in record.payload.items() if key != "_sync"},
                dict(record.vectors),
            )
            for record in store.scan()
        }
    finally:
        store.close()


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """Record the texts that the dense model encodes."""
    texts: list[str] = []
    encode = FieldEncoder.documents

    def record(self: FieldEncoder, inputs: list[str], tokens: Any = None) -> Any:
        if self.field == "dense":
            texts.extend(inputs)
        return encode(self, inputs, tokens)

    monkeypatch.setattr(FieldEncoder, "documents", record)
    return texts


@pytest.mark.parametrize("url", [pytest.param(url, id=url.partition(":")[0]) for url in STORES])
@pytest.mark.parametrize("before", ["sync", "ingest"])
def test_a_collection_becomes_equal_to_its_source(cli, tmp_path, source, encoded, url, before):
    """With windows: what is stored is what an ingest into an empty collection stores, number by number."""
    pytest.importorskip(STORES[url])
    long = "one two three four five six seven eight nine ten eleven twelve "
    options = ["--split-tokens", "8", "--sparse", "none", "--filterable", "n:int"]
    target, other = (
        ["--in", url.format(tmp_path / name), "--collection", "c", "--create", *options] for name in ("one", "two")
    )
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    old = [*rows_of(20), {"id": "a", "text": long * 3}, {"id": "b", "text": long * 2}, {"id": "c", "text": long}]
    assert cli(before, write(source, old), *target).status == 0
    encoded.clear()
    new = [
        *rows_of(18, d3={"text": "blue"}, d4={"n": 40}),
        {"id": "a", "text": long},
        {"id": "b", "text": long * 2, "n": 7},
        {"id": "new", "text": "green"},
    ]

    outcome = cli("sync", write(source, new), *target, "--delete-missing", "--yes", "--json", "--writers", "2")

    assert outcome.status == 0
    counts = {name: outcome.json[name] for name in ("read", "confirmed", "unchanged", "payload_only", "deleted")}
    assert counts == {"read": 21, "confirmed": 5, "unchanged": 16, "payload_only": 2, "deleted": 3}
    changed = list(encoded)
    assert cli("ingest", source, *other).status == 0
    stored, expected = contents(target), contents(other)
    assert {name: payload for name, (payload, _) in stored.items()} == {
        name: payload for name, (payload, _) in expected.items()
    }
    for name, (_, vectors) in expected.items():
        # The sum of a length depends on the batch in the last bit.
        np.testing.assert_allclose(stored[name][1]["dense"], vectors["dense"], rtol=0, atol=1e-7)
    assert sorted(changed) == sorted(
        payload["text"] for name, (payload, _) in expected.items() if name.partition("#")[0] in {"a", "d3", "new"}
    )
    again = cli("sync", source, *target, "--json").json
    assert (again["unchanged"], again["confirmed"]) == (21, 0)


# The sync stops for ever when it has confirmed as many documents as the first argument says, until it is killed.
@pytest.mark.parametrize("before", ["ingest", "sync"])
def test_a_sync_replaces_the_refused_documents_of_the_same_source(cli, target, source, before):
    """What is repaired in the source is not replayed, and nothing is there twice; those of other sources remain."""
    letters = source.with_name("refused.jsonl")
    cli("ingest", write(source.with_name("other.jsonl"), [{"id": "x"}]), *target, "--refused", letters)
    cli(before, write(source, [*rows_of(2), {"id": "a"}, {"id": "b"}]), *target, "--refused", letters)
    write(source, [*rows_of(2), {"id": "a", "text": "repaired"}, {"id": "b"}])

    for _ in range(2):
        assert cli("sync", source, *target, "--refused", letters).status == 1

    refused = [json.loads(line)["failedData"]["indexId"] for line in letters.read_text().splitlines()]
    assert refused == ["x", "b"]


STOPPING = """
import sys
import threading
from st_connectors.cli import run
from st_connectors.ingest import ledger

add = ledger.Ledger.add
limit = int(sys.argv.pop(1))

def add_and_stop(self, batch, report):
    total = add(self, batch, report)
    if total.confirmed >= limit:
        print("reached", flush=True)
        threading.Event().wait()
    return total

ledger.Ledger.add = add_and_stop
sys.exit(run(sys.argv[1:]))
"""


def test_a_killed_sync_is_finished_by_the_same_command(cli, tmp_path, source, encoded):
    """What is stored is not encoded again; nothing is deleted before everything is stored."""
    pytest.importorskip("qdrant_edge")
    target = ["--in", f"qdrant+edge:{tmp_path / 'store'}", "--collection", "c", "--create", "--batch", "20"]
    assert cli("ingest", write(source, [{"id": "old", "text": "old"}, *rows_of(5)]), *target).status == 0
    command = ["sync", str(write(source, rows_of(300))), *target, "--delete-missing", "--delete-limit", "50%", "--yes"]
    with subprocess.Popen([sys.executable, "-c", STOPPING, "100", *command], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"reached\n"
        child.send_signal(signal.SIGKILL)
    stored = contents(target)
    assert "old" in stored
    assert 100 <= len(stored) <= 300
    encoded.clear()

    outcome = cli(*command, "--json")

    assert outcome.status == 0
    assert (outcome.json["unchanged"], outcome.json["deleted"]) == (len(stored) - 1, 1)
    assert outcome.json["confirmed"] == len(encoded) == 300 - (len(stored) - 1)
    assert {name: payload["n"] for name, (payload, _) in contents(target).items()} == {f"d{n}": n for n in range(300)}
    assert not list((tmp_path / ".st-connectors").glob("*.state.json"))


def test_a_dry_run_is_alone_with_a_collection_that_does_not_exist(cli, tmp_path):
    """A collection in memory with its name is another one."""
    with Index.create("memory:", collection="alone", dense="builtin:dense", sparse=None) as other:
        other.ingest([{"id": "d1", "text": "red"}])

        plan = cli(
            "sync",
            write(tmp_path / "in.jsonl", rows_of(3)),
            "--in",
            f"memory:{tmp_path}",
            "--collection",
            "alone",
            "--create",
            "--dry-run",
            "--json",
        )

        other.store.drop()
    assert (plan.status, plan.json["new"], plan.json["missing"]) == (0, 3, 0)


def test_a_dry_run_changes_nothing(cli, target, source):
    """It shows the counts and the estimated time; a collection that does not exist is not created."""
    plan = cli("sync", write(source, rows_of(10)), *target, "--dry-run")
    assert plan.status == 0
    assert plan.out.startswith(
        "10 new, 0 with a changed text, 0 with a changed payload, 0 unchanged, 0 missing in the source; about "
    )
    assert cli("count", *target[:4]).status == 3

    assert cli("sync", source, *target).status == 0
    before = contents(target)
    write(source, [*rows_of(9, d3={"text": "blue"}, d4={"n": 40}), {"id": "new", "text": "green"}, "no JSON"])
    plan = cli("sync", source, *target, "--dry-run", "--delete-missing", "--json")

    assert plan.status == 1
    assert plan.json.pop("seconds") > 0
    counts = {name: value for name, value in plan.json.items() if name != "seconds"}
    assert counts == {
        "new": 1,
        "text_changed": 1,
        "payload_changed": 1,
        "unchanged": 7,
        "missing": 1,
        "refused": 1,
    }
    assert contents(target).keys() == before.keys()
    assert contents(target)["d3"][0] == before["d3"][0]
    assert not (source.parent / ".st-connectors").exists()
    missing = cli("sync", source, "--in", target[1], "--collection", "other", "--dry-run")
    assert "add --create" in missing.error_line()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("y\n", 9), ("n\n", 10)])
def test_the_deletion_is_asked_for(cli, target, source, monkeypatch, answer, left):
    """With the number of documents and of records; the report is printed in both cases."""
    cli("sync", write(source, rows_of(10)), *target)
    write(source, rows_of(9))
    assert cli("sync", source, *target, "--delete-missing").error_line() == (
        "cannot ask whether to delete documents: standard input is not a terminal; add --yes"
    )
    monkeypatch.setattr(sys, "stdin", Terminal(answer))

    outcome = cli("sync", source, *target, "--delete-missing", "--progress", "none")

    assert outcome.status == 0
    assert "Delete 1 document from 'c'? [y/N]" in outcome.err
    assert ("nothing was deleted" in outcome.err) == (left == 10)
    assert ("1 deleted" in outcome.out) == (left == 9)
    assert len(contents(target)) == left


def test_the_end_of_the_input_is_no_answer(cli, target, source, monkeypatch):
    """Nor is Ctrl-C: the sync is interrupted, nothing is deleted, and the line says how to go on."""
    cli("sync", write(source, rows_of(10)), *target)
    write(source, rows_of(9))
    monkeypatch.setattr(sys, "stdin", Terminal(""))

    outcome = cli("sync", source, *target, "--delete-missing", "--progress", "none")

    assert outcome.status == 130
    assert "interrupted: 9 of 9 documents read, 0 stored, 9 unchanged, 0 left; run the same sync" in outcome.err
    assert len(contents(target)) == 10


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "in.jsonl has no documents: nothing was deleted; "),
        ([*rows_of(9), "no JSON"], "in.jsonl has documents that cannot be read, whose ids are not known (record 10: "),
        (rows_of(5), "5 documents of the collection, 50.0%, would be deleted because "),
    ],
)
def test_a_deletion_that_may_be_a_mistake_is_refused(cli, target, source, rows, message):
    """With status 3, after the documents are stored."""
    cli("sync", write(source, rows_of(10)), *target)

    outcome = cli("sync", write(source, rows), *target, "--delete-missing", "--yes")

    assert outcome.status == 3
    assert message in outcome.err.splitlines()[-1]
    assert len(contents(target)) == 10


def test_a_higher_limit_is_an_option(cli, target, source):
    """A share in percent."""
    cli("sync", write(source, rows_of(10)), *target)
    write(source, rows_of(5))

    outcome = cli("sync", source, *target, "--delete-missing", "--yes", "--delete-limit", "50%")

    assert outcome.status == 0
    assert outcome.out.startswith("0 of 5 documents confirmed in ")
    assert outcome.out.endswith(", 5 unchanged, 5 deleted\n")
    assert len(contents(target)) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--yes"], "--delete-limit and --yes apply to --delete-missing; add it, or remove them"),
        (["--delete-limit", "30%"], "--delete-limit and --yes apply to --delete-missing; add it, or remove them"),
        (["--delete-missing", "--delete-limit", "30"], "--delete-limit '30': expected a share from 0% to 100%"),
        (["--delete-missing", "--delete-limit", "130%"], "--delete-limit '130%': expected a share from 0% to 100%"),
    ],
)
def test_options_that_do_not_fit(cli, target, source, options, message):
    """Before anything is read."""
    outcome = cli("sync", source, *target, *options)
    assert (outcome.status, outcome.error_line()) == (2, message)


def test_a_folder_that_cannot_be_read_prevents_the_deletion(cli, tmp_path, target, monkeypatch):
    """Its files may be the missing documents."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in ("a.md", "b.md"):
        (notes / name).write_text(name)
    cli("sync", notes, *target)
    (notes / "b.md").unlink()
    monkeypatch.setattr(Notes, "gap", "notes: skipped 1 unreadable", raising=False)
    monkeypatch.setattr(Notes, "__init__", lambda self, tell=None: self.__dict__.update(_tell=tell, _sentences={}))

    outcome = cli("sync", notes, *target, "--delete-missing", "--delete-limit", "100%", "--yes")

    assert outcome.status == 3
    assert "was not read completely (notes: skipped 1 unreadable): nothing was deleted" in outcome.err
    assert len(contents(target)) == 2


def test_a_source_that_changes_while_it_is_read_deletes_nothing(cli, target, source, monkeypatch):
    """The message names the same command, without options that sync does not have."""
    from st_connectors.cli import reading

    cli("sync", write(source, rows_of(10)), *target)
    write(source, rows_of(9))
    read = reading.read_inputs

    def read_and_append(inputs, options):
        yield from read(inputs, options)
        with source.open("a") as file:
            file.write('{"id": "d9", "text": "blue"}\n')

    monkeypatch.setattr(reading, "read_inputs", read_and_append)

    outcome = cli("sync", source, *target, "--delete-missing", "--yes")

    assert outcome.status == 3
    assert "what was read is stored; run the same command again (until then" in outcome.err
    assert len(contents(target)) == 10


def test_refused_documents_are_dead_letters(cli, target, source, tmp_path):
    """As those of an ingest; the document stays as it was."""
    cli("sync", write(source, rows_of(3)), *target, "--filterable", "n:int")
    letters = tmp_path / "refused.jsonl"

    outcome = cli(
        "sync", write(source, rows_of(3, d1={"n": "x"})), *target, "--filterable", "n:int", "--refused", letters
    )

    assert outcome.status == 1
    assert json.loads(letters.read_text())["failedData"]["document"] == {"id": "d1", "text": "red 1", "n": "x"}
    assert Index.open(target[1], collection="c").get(["d1"])[0].payload["n"] == 1
