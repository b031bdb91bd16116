"""The blocks of the pages that need a server run as they stand, and give what they are there to show."""

from __future__ import annotations

import json
import shlex
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import replace

import pytest
from pages import PAGES, Block, blocks, commands, run_program, run_python
from stand_ins import build_stand_ins, use_stand_ins

from integration.stores import address_of
from st_connectors._lucene.vocabulary import read_vocabulary
from st_connectors.registry import open_store
from st_core import SparseEncoder

NEEDING = [block for page in PAGES for block in blocks(page) if block.needs is not None]
COPYING, REMOVING = "Copying a directory tree", "Removing a folder"
COLLECTION = "of-the-docs"


def with_engine(block: Block) -> pytest.param:
    """Return a block as a parameter that is marked with its engine."""
    return pytest.param(block, marks=pytest.mark.engine(block.needs), id=block.place)


def localized(text: str, engine: str, url: str) -> str:
    """Return a block with the server and collections of the test instead of localhost and the page's names."""
    scheme = engine.partition("-")[0]
    text = text.replace(f"{scheme}://localhost:9200", address_of(engine, url)).replace("http://localhost:9200", url)
    for name in ("notes", "books", "pages", "reports"):
        text = text.replace(f'"{name}"', f'"{name}-{COLLECTION}"').replace(
            f"--collection {name}", f"--collection {name}-{COLLECTION}"
        )
    return text


def drop(engine: str, url: str, *collections: str) -> None:
    """Remove what a block may have left, index by index, behind an alias or not."""
    for name in collections:
        for index in (f"{name}-{COLLECTION}", f"{name}-{COLLECTION}@1", f"{name}-{COLLECTION}@2"):
            request = urllib.request.Request(f"{url}/{index}?ignore_unavailable=true", method="DELETE")
            try:
                urllib.request.urlopen(request).close()
            except urllib.error.HTTPError:
                continue


BESIDE_OTHERS = [block for block in NEEDING if "reports" in block.text]
ALTERING = [block for block in NEEDING if block.language == "python" and "alter_by_copy" in block.text]
PYTHON = [
    block for block in NEEDING if block.language == "python" and block not in BESIDE_OTHERS and block not in ALTERING
]
CLIENT_BLOCKS = [block for block in PYTHON if "client" in block.text]
SUITE_BLOCKS = [block for block in PYTHON if "client" not in block.text]
PLANS = [block for block in NEEDING if block.language == "console" and "--for" in block.text]
VOCABULARIES = [block for block in NEEDING if block.language == "console" and "vocabulary" in block.text]


def test_every_block_with_a_server_is_run():
    """Each belongs to one of the tests below."""
    kinds = (CLIENT_BLOCKS, SUITE_BLOCKS, PLANS, VOCABULARIES, BESIDE_OTHERS, ALTERING)
    assert len(NEEDING) == sum(map(len, kinds))


@pytest.mark.parametrize("block", [with_engine(each) for each in CLIENT_BLOCKS])
def test_a_page_s_client_finds_the_right_notes(block, engines, capsys):
    """On an empty index of its own; the first query finds the right note, and the filter excludes the old one."""
    url = engines.url(block.needs)
    scope: dict = {}
    try:
        run_python(replace(block, text=localized(block.text, block.needs, url)), scope)
        out = capsys.readouterr().out
    finally:
        if "client" in scope:
            scope["client"].close()
        drop(block.needs, url, "notes")

    assert out.splitlines()[0].startswith(f"['{COPYING}")
    assert "Boiling" not in out
    assert block.needs != "opensearch" or REMOVING in out


@pytest.mark.parametrize("block", [with_engine(each) for each in SUITE_BLOCKS])
def test_a_page_s_index_answers(block, engines, tmp_path, monkeypatch, capsys):
    """With stand-ins for the Hub's models, on a collection of its own."""
    url = engines.url(block.needs)
    use_stand_ins(monkeypatch, build_stand_ins(tmp_path))
    try:
        run_python(replace(block, text=localized(block.text, block.needs, url)), {})
        out = capsys.readouterr().out
    finally:
        drop(block.needs, url, "books")

    assert "'sea'" in out


@pytest.mark.parametrize("block", [with_engine(each) for each in PLANS])
def test_a_page_s_plan_creates_nothing(block, engines, tmp_path):
    """The proposal is printed, with bytes."""
    url = engines.url(block.needs)
    for _, line in commands(block):
        printed = run_program(shlex.split(localized(line, block.needs, url))[1:], tmp_path)
        assert "MB" in printed or "GB" in printed


@pytest.mark.parametrize("block", [with_engine(each) for each in VOCABULARIES])
def test_a_page_s_command_stores_tokens_as_keys(block, engines, tmp_path):
    """The server's documents have the model's tokens, and the store returns its vectors."""
    url = engines.url(block.needs)
    (source,) = [each for each in blocks(block.page) if each.file == "notes.jsonl"]
    (tmp_path / "notes.jsonl").write_text(source.text, encoding="utf-8")
    name = f"notes-{COLLECTION}"
    for _, line in commands(block):
        run_program(shlex.split(localized(line, block.needs, url))[1:], tmp_path)

    with closing(open_store(f"{address_of(block.needs, url)}?vocabulary=builtin:sparse", name)) as store:
        try:
            with urllib.request.urlopen(f"{url}/{name}/_doc/1") as answer:
                document = json.load(answer)["_source"]
            (record,) = store.get(["1"])
        finally:
            store.drop()
    (expected,) = SparseEncoder("builtin:sparse").encode_document([COPYING]).rows()
    token_of = read_vocabulary("builtin:sparse").tokens
    assert set(document["vector"]["sparse"]) == {token_of[index] for index in expected.indices.tolist()}
    assert record.vectors["sparse"] == expected


@pytest.mark.parametrize("block", [with_engine(each) for each in BESIDE_OTHERS if each.language == "console"])
def test_a_page_s_other_client_reads_the_payload(block, engines, tmp_path, capsys):
    """The command stores payloads as fields, and the page's client finds the later date by its native type."""
    url = engines.url(block.needs)
    (source,) = [each for each in blocks(block.page) if each.file == "reports.jsonl"]
    (client,) = [each for each in BESIDE_OTHERS if each.page == block.page and each.language == "python"]
    (tmp_path / "reports.jsonl").write_text(source.text, encoding="utf-8")
    scope: dict = {}
    try:
        for _, line in commands(block):
            run_program(shlex.split(localized(line, block.needs, url))[1:], tmp_path)
        run_python(replace(client, text=localized(client.text, block.needs, url)), scope)
        out = capsys.readouterr().out
    finally:
        if "client" in scope:
            scope["client"].close()
        drop(block.needs, url, "reports")

    assert out.splitlines()[-1] == "['Kettles of the north']"


@pytest.mark.parametrize("block", [with_engine(each) for each in ALTERING])
def test_a_page_s_copy_takes_the_place(block, engines, capsys):
    """The collection then has the form of the address."""
    url = engines.url(block.needs)
    try:
        run_python(replace(block, text=localized(block.text, block.needs, url)), {})
        out = capsys.readouterr().out
        with urllib.request.urlopen(f"{url}/pages-{COLLECTION}/_doc/1") as answer:
            document = json.load(answer)["_source"]
    finally:
        drop(block.needs, url, "pages")

    assert out.splitlines()[-1] == "1 of 1 records copied"
    assert document["text"] == COPYING
