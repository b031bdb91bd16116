"""Identities of sources: equal as long as nothing changes, and one sentence on what did."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from st_connectors.cli.sources import Input, check_unchanged, describe_inputs, find_sources, make_reading
from st_connectors.ingest.sources import Identity, Reading, Source, difference, parse_template

MORNING, NOON = 1_767_261_600_000_000_000, 1_767_268_800_000_000_001
"""2026-01-01, ten o'clock and twelve, in nanoseconds."""


def write(path: Path, content: str, at: int = MORNING) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    os.utime(path, ns=(at, at))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with two files and a folder of texts."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "books.jsonl", '{"id": 1}')
    write(tmp_path / "more.jsonl", '{"id": 2}')
    write(tmp_path / "texts" / "a.txt", "a")
    write(tmp_path / "texts" / "b.md", "bb", NOON)
    return tmp_path


def find(*sources: str, form: str | None = None, sql: tuple[str, str] | None = None) -> list[Input]:
    return find_sources(sources, form, sql)


def reading(**options: str | Sequence[str]) -> Reading:
    base = {"id_field": None, "text_fields": None, "maps": None, "delimiter": None, "quote": None, "encoding": None}
    return make_reading(**{**base, **options})


def test_an_identity_is_what_is_known_without_reading(folder: Path):
    """Paths are absolute, and a folder is one source with the sum of its files."""
    inputs = find("books.jsonl", "texts", "-", sql=("sqlite:shop.db", "SELECT 1"))

    identity = describe_inputs(inputs, reading())

    *_, texts, _stdin, _query = identity.sources
    assert identity.sources == (
        Source(f"{folder}/books.jsonl", "jsonl", 9, MORNING),
        Source(f"{folder}/texts", "text", 3, NOON, 2, texts.digest),
        Source("standard input", "jsonl"),
        Source(f"sqlite:{folder}/shop.db", query="SELECT 1"),
    )
    assert difference(identity, describe_inputs(inputs, reading())) is None
    assert Identity.from_json(json.loads(json.dumps(identity.to_json()))) == identity


def test_the_content_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Describing 10 TB takes as long as describing 10 bytes."""
    inputs = find("books.jsonl", "texts")
    opened = []
    original = io.open
    monkeypatch.setattr(
        io, "open", lambda path, *rest, **options: opened.append(path) or original(path, *rest, **options)
    )

    describe_inputs(inputs, reading())
    read = [path for path in opened if path.suffix in {".jsonl", ".txt", ".md"}]
    (folder / "books.jsonl").read_bytes()

    assert not read
    assert opened[-1] == folder / "books.jsonl"


CHANGES = {
    "books.jsonl has another size: 14 bytes, not 9": lambda folder: write(folder / "books.jsonl", '{"id": "book"}'),
    "books.jsonl was modified at 2026-01-01 12:00:00.000000001 UTC, not at 2026-01-01 10:00:00.000000000 UTC": (
        lambda folder: write(folder / "books.jsonl", '{"id": 9}', NOON)
    ),
    "texts has another number of text files: 3, not 2": lambda folder: write(folder / "texts" / "c.txt", "c"),
    "texts has another size: 4 bytes, not 3": lambda folder: write(folder / "texts" / "a.txt", "aa"),
    "texts has text files with other names, sizes or times": (
        lambda folder: (folder / "texts" / "a.txt").rename(folder / "texts" / "z.txt")
    ),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_changed_source_is_named_with_its_change(folder: Path, sentence):
    """Also while it is read."""
    inputs = find("books.jsonl", "texts")
    before = describe_inputs(inputs, reading())
    assert check_unchanged(before, inputs, reading()) is None

    CHANGES[sentence](folder)

    assert check_unchanged(before, inputs, reading()) == sentence


def test_a_source_that_disappears_is_named(folder: Path):
    """A file, and the last file of a folder."""
    inputs = find("books.jsonl", "texts")
    before = describe_inputs(inputs, reading())
    for path in ("texts/a.txt", "texts/b.md"):
        (folder / path).unlink()
    assert check_unchanged(before, inputs, reading()) == "texts: no file ends in .markdown, .md, .rst, .text, .txt"

    (folder / "books.jsonl").unlink()
    assert check_unchanged(before, inputs, reading()) == "[Errno 2] No such file or directory: 'books.jsonl'"


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        (["books.jsonl"], ["*.jsonl"], "1 source is new: more.jsonl"),
        (["*.jsonl", "texts"], ["books.jsonl"], "2 sources are missing: more.jsonl, texts"),
        (["books.jsonl"], ["more.jsonl"], "1 source is new: more.jsonl; 1 source is missing: books.jsonl"),
        (["books.jsonl", "books.jsonl"], ["books.jsonl"], "1 source is missing: books.jsonl"),
        (["books.jsonl", "more.jsonl"], ["more.jsonl", "books.jsonl"], "the sources have another order"),
        (["texts/a.txt"], ["*/a.txt"], "texts/a.txt has another id: 'texts/a.txt', not 'a.txt'"),
    ],
)
def test_other_sources_are_named(folder: Path, before, now, sentence):
    """With their number, and relative to the current folder."""
    assert difference(describe_inputs(find(*before), reading()), describe_inputs(find(*now), reading())) == sentence


def test_many_new_sources_are_counted(folder: Path):
    """Three are named."""
    for number in range(1200):
        write(folder / "many" / f"{number:04}.jsonl", "")
    before = describe_inputs(find("books.jsonl"), reading())

    sentence = difference(before, describe_inputs(find("books.jsonl", "many/*.jsonl"), reading()))

    assert sentence == "1,200 sources are new: many/0000.jsonl, many/0001.jsonl, many/0002.jsonl, …"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"id_field": "isbn"}, "--id-field is 'isbn', not 'id'"),
        ({"text_fields": ["title", "body"]}, "--text-field is 'title', 'body', not 'text'"),
        ({"maps": ["text={{{title}}}: {body}"]}, "--map is 'text={{{title}}}: {body}', and was not set"),
        ({"delimiter": "tab"}, "--delimiter is '\\t', and was not set"),
        ({"quote": "none"}, "--quote is 'none', not '\"'"),
        ({"encoding": "latin1"}, "--encoding is 'iso8859-1', and was not set"),
    ],
)
def test_options_that_decide_the_documents_are_compared(folder: Path, options, sentence):
    """With the name of the option and both values."""
    inputs = find("books.jsonl")
    before = describe_inputs(inputs, reading())

    assert difference(before, describe_inputs(inputs, reading(**options))) == sentence


def test_another_format_and_an_option_that_is_gone_are_differences(folder: Path):
    """The format belongs to the source."""
    inputs = find("books.jsonl")
    before = describe_inputs(inputs, reading(encoding="cp1252"))

    assert difference(before, describe_inputs(inputs, reading())) == "--encoding is not set, and was 'cp1252'"
    assert difference(before, describe_inputs(find("books.jsonl", form="csv"), reading(encoding="cp1252"))) == (
        "books.jsonl is read as csv, not as jsonl"
    )


def test_a_query_is_compared_and_its_password_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch):
    """The user and the options of the address are."""
    pytest.importorskip("psycopg", reason="finds the driver")
    monkeypatch.setenv("ST_SQL_PASSWORD", "s3cret")

    def describe(url: str, query: str) -> Identity:
        return describe_inputs(find(sql=(url, query)), reading())

    old = describe("postgresql://me:hush@db/shop?sslmode=require&sslpassword=quiet", "SELECT 1")

    assert old.sources == (Source("postgresql://me@db/shop?sslmode=require&sslpassword=***", query="SELECT 1"),)
    assert difference(old, describe("postgresql://me@db/shop?sslmode=require&sslpassword=other", "SELECT 1")) is None
    assert difference(old, describe("postgresql://me@db/shop?sslmode=require&sslpassword=x", "SELECT 2 " * 20)) == (
        "postgresql://me@db/shop?sslmode=require&sslpassword=*** is read by the query "
        "'SELECT 2 SELECT 2 SELECT 2 SELECT 2 SELECT 2 SELECT 2 SELEC…', not 'SELECT 1'"
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"sources": []},
        {"sources": [{}], "options": {}},
        {"sources": [{"name": "a", "size": "9"}], "options": {}},
        {"sources": [{"name": "a", "colour": "red"}], "options": {}},
        {"sources": [], "options": {"--id-field": "id"}},
    ],
)
def test_json_of_another_form_is_refused(value):
    """As a ValueError, whatever a file of state contains."""
    with pytest.raises(ValueError, match=r"expected an object|unexpected '"):
        Identity.from_json(value)


@pytest.mark.parametrize("text", ["{a}", "x {a}. {{b}} {c}", "", "}}{{"])
def test_a_template_is_its_own_text(text):
    """So that it can be stored and shown."""
    assert str(parse_template(text)) == text
