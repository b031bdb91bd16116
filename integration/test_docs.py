"""The blocks of docs/lucene.md run as they stand, on real servers, and give what they are there to show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "lucene.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
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
