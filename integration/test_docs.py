"""The blocks of docs/lucene.md run as they stand, on real servers, and give what they are there to show."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from integration.stores import address_of
from st_connectors._lucene.vocabulary import read
from st_connectors.registry import open_store
from st_core import SparseEncoder

PAGE = Path(__file__).parents[1] / "docs" / "lucene.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
(COMMAND,) = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
COPYING, REMOVING = "Copying a directory tree", "Removing a folder"


@pytest.mark.parametrize(
    ("engine", "client", "printed"),
    [
        pytest.param(engine, client, printed, marks=pytest.mark.engine(engine), id=engine)
        for engine, client, printed in (
            ("elasticsearch-9", "Elasticsearch(", [COPYING]),
            ("opensearch", "OpenSearch(", [COPYING, REMOVING]),
        )
    ],
)
def test_the_page_s_block_runs(engine, client, printed, engines, capsys):
    """On an empty index of its own; the first question finds the right note, and the filter keeps the old one out."""
    (block,) = [block for block in BLOCKS if client in block]
    code = block.replace("http://localhost:9200", engines.url(engine)).replace('"notes"', '"notes-of-the-docs"')
    scope: dict = {}
    try:
        exec(compile(code, str(PAGE), "exec"), scope)
        out = capsys.readouterr().out
    finally:
        scope["client"].indices.delete(index="notes-of-the-docs", ignore_unavailable=True)
        scope["client"].close()

    assert all(text in out for text in printed)
    assert "Boiling" not in out
    assert out.splitlines()[0].startswith(f"['{COPYING}")


@pytest.mark.parametrize(
    "engine", [pytest.param(each, marks=pytest.mark.engine(each)) for each in ("elasticsearch-9", "opensearch")]
)
def test_the_page_s_command_keeps_tokens_as_keys(engine, engines, tmp_path):
    """The server's documents have the model's tokens, and the store gives its vectors back."""
    url = engines.url(engine)
    address = address_of(engine, url)
    (tmp_path / "notes.jsonl").write_text(json.dumps({"id": "1", "text": COPYING}))
    command = COMMAND.replace("elasticsearch://localhost:9200", address).replace("notes --sparse", "ingested --sparse")
    program, *arguments = shlex.split(command)
    program = str(Path(sys.executable).with_name(program))
    subprocess.run([program, *arguments], cwd=tmp_path, check=True, capture_output=True)

    with closing(open_store(f"{address}?vocabulary=builtin:sparse", "ingested")) as store:
        try:
            with urllib.request.urlopen(f"{url}/ingested/_doc/1") as answer:
                document = json.load(answer)["_source"]
            (record,) = store.get(["1"])
        finally:
            store.drop()
    (wanted,) = SparseEncoder("builtin:sparse").encode_document([COPYING]).rows()
    token_of = read("builtin:sparse").tokens
    assert set(document["vector"]["sparse"]) == {token_of[index] for index in wanted.indices.tolist()}
    assert record.vectors["sparse"] == wanted
