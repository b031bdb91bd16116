"""No result is lost where standard output cannot encode it, as in a Windows console."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from st_connectors.cli import run
from st_connectors.cli.output import print_json, print_line

TEXT = "naïve … 検索 🙂"


@pytest.fixture
def written(monkeypatch):
    """Return a function that gives standard output an encoding, calls a function, and returns the bytes written."""

    def call(encoding, function, *arguments):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
        monkeypatch.setattr(sys, "stdout", stream)
        function(*arguments)
        stream.flush()
        return stream.buffer.getvalue()

    return call


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", TEXT.encode()),
        ("cp1252", b"na\xefve \x85 ?? ?"),
        ("latin-1", b"na\xefve ? ?? ?"),
        ("cp437", b"na\x8bve ? ?? ?"),
        ("cp932", "na?ve … 検索 ?".encode("cp932")),
        ("utf-16-le", TEXT.encode("utf-16-le")),
    ],
)
def test_a_line_has_a_replacement_for_what_the_encoding_lacks(written, encoding, expected):
    """Every other character is written."""
    assert written(encoding, print_line, TEXT).removesuffix("\n".encode(encoding)) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "cp1252", "cp437", "cp932", "ascii"])
def test_json_is_readable_as_utf_8_whatever_the_encoding(written, encoding):
    """Programs read JSON as UTF-8; the escapes of JSON lose nothing."""
    line = written(encoding, print_json, {"text": TEXT})

    assert json.loads(line.decode("utf-8")) == {"text": TEXT}
    assert ("検索".encode() in line) == (encoding in {"utf-8", "UTF8"})


@pytest.mark.long
def test_commands_write_what_cp1252_lacks(library, cli, tmp_path):
    """The exit status is 0, in a process as users start it."""
    source = tmp_path / "more.jsonl"
    source.write_text(json.dumps({"id": "検索", "text": f"a submarine {TEXT}"}) + "\n", encoding="utf-8")
    assert cli("ingest", source, *library).status == 0
    code = "from st_connectors.cli import main; main()"

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *arguments, *library],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        )

    results, shown = call("search", "submarine", "--json"), call("search", "submarine")
    got = call("get", "検索", "--json")

    assert [done.returncode for done in (results, shown, got)] == [0, 0, 0], (results.stderr, shown.stderr, got.stderr)
    assert {hit["id"] for hit in json.loads(results.stdout)["hits"]} >= {"検索", "submarine"}
    assert b"na\xefve \x85 ?? ?" in shown.stdout
    assert "検索" in str(json.loads(got.stdout))


@pytest.mark.parametrize("command", ["--help", "search", "stores"])
def test_help_and_tables_are_printed_in_cp1252(written, command):
    """They contain dashes and ellipses."""
    arguments = [command] if command in {"--help", "stores"} else [command, "--help"]

    assert len(written("cp1252", run, arguments)) > 500
