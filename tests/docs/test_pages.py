"""Every Python block of the stores' pages runs, one after the other, and finds what the page is about."""

import ast
import re
from pathlib import Path

import pytest

from st_core.modules import KINDS

DOCS = Path(__file__).parents[2] / "docs"
FOUND = {
    "qdrant": ("qdrant_client", ["Renaming a file", "[('3', 'Deleting a folder')]"]),
    "milvus": ("milvus_lite", ["Renaming a file", "[('3', 'Deleting a folder')]"]),
}


@pytest.mark.parametrize("page", list(FOUND))
def test_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch, capsys):
    """In an empty folder; the last two searches find the note that was asked for, first."""
    module, (hybrid, adopted) = FOUND[page]
    pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    names: dict[str, object] = {"__name__": page}
    for block in blocks:
        exec(compile(block[1], f"{page}.md:{text.count(chr(10), 0, block.start()) + 1}", "exec"), names)

    printed = capsys.readouterr().out.splitlines()
    assert len(blocks) == 4
    assert printed[-2].startswith(f"['{hybrid}'")
    assert printed[-1] == adopted


@pytest.mark.parametrize(
    ("package", "page"),
    [("qdrant", "qdrant"), ("milvus", "milvus"), ("elasticsearch", "lucene"), ("opensearch", "lucene")],
)
def test_every_public_conversion_has_an_example(package, page):
    """Whatever a store's package publishes beside its plugin is imported from it and used on its page."""
    module = pytest.importorskip(f"st_connectors.{package}")
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = "\n".join(block for block in blocks if f"from st_connectors.{package} import" in block)

    assert [name for name in module.__all__ if name != "PLUGIN" and f"{name}(" not in code] == []


def test_blocks_of_the_page_of_lucene_that_need_no_server_run(capsys):
    """The others are run by the integration tests. Keys with dots are escaped in rank features only, and each form is the one that was asked for."""
    text = (DOCS / "lucene.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if "client" not in block:
            exec(compile(block, "lucene.md", "exec"), {})

    features, clauses, fused, summed, seismic, query = map(ast.literal_eval, capsys.readouterr().out.splitlines())
    assert features == {"properties": {"splade": {"type": "rank_features"}}}
    found = {each["rank_feature"]["field"]: each["rank_feature"]["boost"] for each in clauses["bool"]["should"]}
    assert found == {"splade.kettle": 1.5, "splade.10%2E5": 0.25}
    first, second = (leg["standard"]["query"] for leg in fused["rrf"]["retrievers"])
    assert first["sparse_vector"]["query_vector"] == {"kettle": 1.5, "10.5": 0.25}
    assert second == {"match": {"text": "kettle"}}
    assert [(each["retriever"]["standard"]["query"], each["weight"]) for each in summed["linear"]["retrievers"]] == [
        (first, 0.75),
        (second, 0.25),
    ]
    method = seismic["properties"]["splade"]["method"]
    assert (method["name"], method["parameters"]) == ("seismic", {"n_postings": 300})
    assert query["neural_sparse"]["splade"]["query_tokens"] == {"7": 1.5, "2024": 0.25}


def test_the_readme_leads_to_every_page():
    """No page is left alone."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")

    assert [page.name for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in readme] == []


def test_blocks_of_the_page_of_checkpoints_run(tmp_path, monkeypatch, capsys):
    """A saved model keeps what was set, and the search among bits finds the text about names."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "checkpoints.md").read_text(encoding="utf-8")
    names: dict[str, object] = {"__name__": "checkpoints"}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "checkpoints.md", "exec"), names)

    saved, found = capsys.readouterr().out.splitlines()
    assert saved == "64 (1, 64)"
    assert "'corpus_id': 2" in found


def test_every_module_is_in_the_table_of_checkpoints():
    """Whatever ``modules.json`` may name has its line."""
    text = (DOCS / "checkpoints.md").read_text(encoding="utf-8")

    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []
