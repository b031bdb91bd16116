"""An ingest that is killed continues when the same command is run again; nothing is lost or stored twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from st_connectors.ingest.state import read_state
from st_connectors.registry import open_store

pytest.importorskip("qdrant_edge")

COUNT = 600
# The ingest stops for ever when it has confirmed as many documents as the first argument says, until it is killed.
STOPPING = """
import sys
import threading
from st_connectors.cli import run
from st_connectors.ingest import ledger, state

state.SAVE_EVERY = 0.0
add = ledger.Ledger.add
limit = int(sys.argv.pop(1))

def add_and_stop(self, batch, report):
    total = add(self, batch, report)
    if total.read - total.resumed >= limit:
        print("reached", flush=True)
        threading.Event().wait()
    return total

ledger.Ledger.add = add_and_stop
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "in.jsonl"
    rows = ({"id": f"d{n}", "text": f"red {n}", "n": n} for n in range(COUNT))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def command(tmp_path, source) -> list[str]:
    target = ["--in", f"qdrant+edge:{tmp_path / 'store'}", "--collection", "c", "--create", "--batch", "20"]
    return ["ingest", str(source), *target]


def kill_after(count: int, command: list[str]) -> None:
    """Run an ingest, and kill it when it has confirmed a number of documents."""
    arguments = [sys.executable, "-c", STOPPING, str(count), *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"reached\n"
        child.send_signal(signal.SIGKILL)


def state_of(tmp_path: Path) -> Path:
    [path] = (tmp_path / ".st-connectors").glob("*.state.json")
    return path


def stored(tmp_path: Path) -> dict[str, object]:
    store = open_store(f"qdrant+edge:{tmp_path / 'store'}", "c")
    try:
        records = list(store.scan())
    finally:
        store.close()
    assert len(records) == len({record.id for record in records})
    return {record.id: record.payload for record in records}


def test_a_killed_ingest_continues(cli, tmp_path, command):
    """Twice; the last run says where it continues, and leaves no state behind."""
    kill_after(200, command)
    kill_after(200, command)
    found = read_state(state_of(tmp_path))
    assert found is not None
    read = found[0].report.read
    assert 400 <= read < COUNT

    outcome = cli(*command)

    assert outcome.status == 0
    assert outcome.err.startswith(f"st-connectors: continuing after {read} documents (state: ")
    assert outcome.out.startswith(f"{COUNT} of {COUNT} documents confirmed in ")
    assert f"{read} confirmed by an earlier run" in outcome.out
    assert stored(tmp_path) == {f"d{n}": {"text": f"red {n}", "n": n} for n in range(COUNT)}
    assert not (tmp_path / ".st-connectors").exists()
    assert cli(*command).err == ""


def test_a_source_that_changed_since_is_named(cli, tmp_path, command, source):
    """With the options that help; each of them ends with the input as it is now."""
    kill_after(200, command)
    with source.open("a") as file:
        file.write('{"id": "new", "text": "blue", "n": 0}\n')

    refused = cli(*command)

    assert refused.status == 2
    line = refused.err.splitlines()[-1]
    assert "in.jsonl has another size: " in line
    assert "--restart (restart=True), or go on anyway with --accept-changes" in line
    assert cli(*command, "--accept-changes").status == 0
    assert len(stored(tmp_path)) == COUNT + 1


def test_a_source_that_changes_while_it_is_read_is_named(cli, tmp_path, command, source, monkeypatch):
    """What was read is stored, and the status is 3."""
    from st_connectors.cli import reading

    read = reading.read_inputs

    def read_and_append(inputs, options):
        yield from read(inputs, options)
        with source.open("a") as file:
            file.write('{"id": "new", "text": "blue"}\n')

    monkeypatch.setattr(reading, "read_inputs", read_and_append)

    outcome = cli(*command)

    assert outcome.status == 3
    assert "the source changed while it was read (" in outcome.err
    assert "run the same command again with --restart" in outcome.err
    assert len(stored(tmp_path)) == COUNT
    monkeypatch.setattr(reading, "read_inputs", read)
    assert cli(*command, "--restart").status == 0
    assert len(stored(tmp_path)) == COUNT + 1


def test_the_second_of_two_ingests_is_refused(cli, tmp_path, command):
    """Across processes, with the number of the first; killing the first frees the source."""
    arguments = [sys.executable, "-c", STOPPING, "200", *command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"reached\n"
        # Embedded Qdrant has a lock of its own, so that the state is that of a collection elsewhere.
        other = [*command[:3], f"qdrant+edge:{tmp_path / 'other'}", *command[4:], "--state", str(state_of(tmp_path))]
        outcome = cli(*other)
        child.send_signal(signal.SIGKILL)

    assert outcome.status == 3
    line = outcome.err.splitlines()[-1]
    assert f"another ingest of {command[1]} into 'c' is running" in line
    assert f"(process {child.pid})" in line
    assert cli(*command).status == 0


def test_no_state_starts_over(cli, tmp_path, command):
    """An option for ingests that are quick to repeat."""
    kill_after(200, [*command, "--no-state"])
    assert not (tmp_path / ".st-connectors").exists()
    outcome = cli(*command, "--no-state")
    assert outcome.status == 0
    assert "earlier run" not in outcome.out
    assert cli(*command, "--no-state", "--restart").status == 2


INVALID = {
    "limit": (["--max-refused", "x"], "such as 100 or 1%, not 'x'"),
    "progress": (["--progress", "x"], "--progress 'x': expected auto, json or none"),
    "state": (["--state", "in.jsonl"], "--state in.jsonl: the file is read by this ingest"),
    "refused": (["--refused", "in.jsonl"], "--refused in.jsonl: the file is read by this ingest"),
    "both": (["--state", "f.json", "--refused", "./f.json"], "--state and --refused are the same file, f.json"),
}


@pytest.mark.parametrize(("options", "message"), INVALID.values(), ids=INVALID)
def test_an_invalid_option_creates_no_collection(cli, tmp_path, command, monkeypatch, options, message):
    """Options are checked before the collection is opened or created."""
    monkeypatch.chdir(tmp_path)

    outcome = cli(*command, *options)

    assert outcome.status == 2
    assert message in outcome.error_line()
    assert not (tmp_path / "store").exists()


def test_the_default_file_of_refused_documents_is_no_state(cli, tmp_path, command, source):
    """The state would replace the letters."""
    with source.open("a") as file:
        file.write("no JSON\n")
    cli(*command)
    [letters] = (tmp_path / ".st-connectors").glob("*.refused.jsonl")

    outcome = cli(*command, "--state", letters)

    assert (outcome.status, outcome.error_line()) == (
        2,
        f"--state and --refused are the same file, {letters}; choose another one for the state",
    )


def test_an_ingest_that_is_run_again_replaces_its_refused_documents(cli, tmp_path, command, source):
    """Those of the same file; a file that has changed may be another one, whose letters are added."""
    with source.open("a") as file:
        file.write("no JSON\n")
    cli(*command)
    [letters] = (tmp_path / ".st-connectors").glob("*.refused.jsonl")
    for _ in range(2):
        cli(*command)
    assert len(letters.read_text().splitlines()) == 1

    source.write_text("no JSON either\n")
    cli(*command)

    assert len(letters.read_text().splitlines()) == 2


def test_progress_as_json(command):
    """A line of JSON to standard error; the result stays the only line of standard output."""
    program = "import sys; from st_connectors.cli import run; sys.exit(run(sys.argv[1:]))"
    arguments = [sys.executable, "-c", program, *command, "--progress", "json", "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["confirmed"] == COUNT
    first = json.loads(done.stderr.splitlines()[0])
    assert 0 < first["confirmed"] <= COUNT
    assert {"documents_per_second", "encoder_share", "store_share", "retries", "seconds_left"} <= set(first)
