"""``replay``: refused documents are ingested again, repaired or as they are; those that succeed leave the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st_connectors.ingest.dead_letters import read_letters
from st_connectors.ingest.locks import locked

pytest.importorskip("qdrant_edge")

ROWS = (
    '{"id": "a", "text": "red", "year": "x"}\n{"id": "b", "text": "blue", "year": 3}\n{"id": "c", "year": 3}\n'
    "nonsense \\u00e9\n"
)
REPAIR = """
def repair(document):
    if isinstance(document, str):
        return None
    year = document["year"] if isinstance(document["year"], int) else 0
    return {"text": "none", **document, "year": year}
"""


@pytest.fixture
def target(tmp_path) -> list[str]:
    return ["--in", f"qdrant+edge:{tmp_path / 'store'}", "--collection", "c"]


@pytest.fixture
def letters(cli, tmp_path, target) -> Path:
    """Ingest four lines, of which one is stored."""
    source = tmp_path / "in.jsonl"
    source.write_text(ROWS)
    path = tmp_path / "refused.jsonl"
    outcome = cli("ingest", source, *target, "--create", "--filterable", "year:int", "--refused", path)
    assert (outcome.status, outcome.out[:6]) == (1, "1 of 4")
    return path


def reasons(path: Path) -> list[tuple[str, int, str]]:
    return [(each["failedData"]["indexId"], each["attempts"], each["error"]["reason"]) for each in read_letters(path)]


def test_repaired_documents_are_stored_and_leave_the_file(cli, tmp_path, target, letters):
    """The function leaves a line that is no JSON as it is."""
    (tmp_path / "repair.py").write_text(REPAIR)

    outcome = cli("replay", letters, "--repair", tmp_path / "repair.py", "--json")

    assert (outcome.status, outcome.json["confirmed"], outcome.json["remaining"]) == (1, 2, 1)
    stored = cli("get", "a", "b", "c", *target, "--json").json
    assert [record["payload"] for record in stored] == [
        {"text": "red", "year": 0},
        {"text": "blue", "year": 3},
        {"text": "none", "year": 3},
    ]
    [letter] = read_letters(letters)
    assert letter["failedData"]["document"] == "nonsense \\u00e9\n"


def test_documents_that_are_refused_again_remain_with_the_new_reason(cli, tmp_path, target, letters):
    """And with the number of attempts, and the document as it was."""
    before = list(read_letters(letters))
    (tmp_path / "repair.py").write_text("def repair(document):\n    return {**document, 'year': 2.5}\n")

    outcome = cli("replay", letters, "--repair", tmp_path / "repair.py")

    assert outcome.status == 1
    assert outcome.out.startswith("0 documents confirmed in ")
    assert reasons(letters) == [
        ("a", 2, "payload['year'] is filterable as int, and 2.5 is not"),
        ("c", 0, "'text' is missing"),
        ("", 0, "repair raised TypeError: 'str' object is not a mapping"),
    ]
    after = list(read_letters(letters))
    for name in ("source", "position", "target", "ingest"):
        assert [each[name] for each in after] == [each[name] for each in before]
    assert [each["failedData"]["document"] for each in after] == [each["failedData"]["document"] for each in before]


def test_what_the_store_takes_now_needs_no_repair(cli, tmp_path, target, letters):
    """Into a collection without the filterable field, named by options; columns are named as for ingest."""
    other = ["--in", target[1], "--collection", "other"]
    assert cli("create", *other).status == 0

    outcome = cli("replay", letters, *other, "--map", "text=in {year}")

    assert outcome.status == 1
    assert [letter["failedData"]["document"] for letter in read_letters(letters)] == ["nonsense \\u00e9\n"]
    assert cli("get", "a", *other, "--json").json[0]["payload"] == {"text": "red", "year": "x"}


def test_split_documents_are_split_again(cli, tmp_path, target):
    """By the options of their ingest."""
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps({"id": "a", "text": "one word after another. " * 40, "year": "x"}) + "\n")
    path = tmp_path / "refused.jsonl"
    options = ["--create", "--filterable", "year:int", "--split-tokens", "16", "--refused", path]
    assert cli("ingest", source, *target, *options).status == 1
    (tmp_path / "repair.py").write_text("def repair(document):\n    return {**document, 'year': 1}\n")

    assert cli("replay", path, "--repair", tmp_path / "repair.py").status == 0
    assert path.read_text() == ""
    again = cli("ingest", source, *target, "--split-tokens", "16", "--refused", path)
    assert again.status == 1
    assert int(cli("count", *target).out) > 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no dead-letter file"),
        ("old\n", "line 1 is not a dead letter of this package"),
    ],
)
def test_a_file_that_is_none_is_named(cli, tmp_path, content, message):
    """And stays as it is."""
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content)

    outcome = cli("replay", path)

    assert outcome.status == 2
    assert message in outcome.error_line()
    assert content is None or path.read_text() == content


@pytest.mark.parametrize(
    ("code", "message"),
    [(None, "no such file"), ("x = 1", "has no function repair(document)"), ("1/0", "ZeroDivisionError: division by")],
)
def test_a_repair_file_that_cannot_be_used_is_named(cli, tmp_path, letters, code, message):
    """Before anything is ingested."""
    file = tmp_path / "repair.py"
    if code is not None:
        file.write_text(code)
    before = letters.read_text()

    outcome = cli("replay", letters, "--repair", file)

    assert outcome.status == 2
    assert message in outcome.error_line()
    assert letters.read_text() == before


def test_a_file_in_use_is_refused(cli, letters):
    """By an ingest or another replay."""
    with locked(letters, "taken"):
        outcome = cli("replay", letters)

    assert outcome.status == 3
    assert "is in use by another ingest, sync or replay" in outcome.error_line()
