"""What the pages show is right, complete and reachable."""

import ast
import re
from pathlib import Path

import pytest
from pages import DOCS, PAGES, ROOT, blocks, run_python

from st_core.modules import supported_names

STORES = ("elasticsearch", "memory", "milvus", "opensearch", "qdrant")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def text_of(page: str) -> str:
    """The text of a page."""
    return (DOCS / page).read_text(encoding="utf-8")


def code_of(page: str) -> str:
    """All Python of a page."""
    return "\n".join(block.text for block in blocks(DOCS / page) if block.language == "python")


@pytest.mark.parametrize(("page", "module"), [("qdrant", "qdrant_client"), ("milvus", "milvus_lite")])
def test_the_searches_of_a_store_s_page_find_the_right_note(page, module, tmp_path, monkeypatch, capsys):
    """The hybrid search returns the renamed file first, and the search of the adopted collection the deleted folder."""
    pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page}
    for block in blocks(DOCS / "stores" / f"{page}.md"):
        run_python(block, names)

    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].startswith("['Renaming a file'")
    assert printed[-1] == "[('3', 'Deleting a folder')]"


@pytest.mark.parametrize("store", [store for store in STORES if store != "memory"])
def test_every_public_conversion_has_an_example(store):
    """Whatever a store's package publishes beside its plugin is imported from it and called on its page."""
    module = pytest.importorskip(f"st_connectors.{store}")
    code = code_of(f"stores/{store}.md")

    assert f"from st_connectors.{store} import" in code
    assert [name for name in module.__all__ if name != "PLUGIN" and f"{name}(" not in code] == []


def printed_by(page: str, capsys) -> list[object]:
    """The values that the blocks of a page print, those aside that need a server."""
    for block in blocks(DOCS / page):
        if block.language == "python" and block.needs is None:
            run_python(block, {})
    return list(map(ast.literal_eval, capsys.readouterr().out.splitlines()))


def test_elasticsearch_requests_are_as_described(capsys):
    """Keys with dots are escaped in rank features only, and the retrievers contain the queries."""
    features, clauses, fused, summed = printed_by("stores/elasticsearch.md", capsys)
    assert features == {"properties": {"splade": {"type": "rank_features"}}}
    boosts = {each["rank_feature"]["field"]: each["rank_feature"]["boost"] for each in clauses["bool"]["should"]}
    assert boosts == {"splade.kettle": 1.5, "splade.10%2E5": 0.25}
    first, second = (leg["standard"]["query"] for leg in fused["rrf"]["retrievers"])
    assert first["sparse_vector"]["query_vector"] == {"kettle": 1.5, "10.5": 0.25}
    assert second == {"match": {"text": "kettle"}}
    assert [(each["retriever"]["standard"]["query"], each["weight"]) for each in summed["linear"]["retrievers"]] == [
        (first, 0.75),
        (second, 0.25),
    ]


def test_opensearch_requests_are_as_described(capsys):
    """The SEISMIC field has the parameter of the page, and the query its tokens."""
    seismic, query = printed_by("stores/opensearch.md", capsys)
    method = seismic["properties"]["splade"]["method"]
    assert (method["name"], method["parameters"]) == ("seismic", {"n_postings": 300})
    assert query["neural_sparse"]["splade"]["query_tokens"] == {"7": 1.5, "2024": 0.25}


def test_a_saved_model_keeps_its_settings(tmp_path, monkeypatch, capsys):
    """The dimension and the ranges of the example survive, and the search among bits returns the text about names."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(DOCS / "models.md"):
        if block.language == "python" and ("save_pretrained" in block.text or "ubinary" in block.text):
            run_python(block, {})

    printed = capsys.readouterr().out.splitlines()
    assert "'corpus_id': 2" in printed[0]
    assert printed[1] == "64 (1, 64)"


def test_every_module_is_in_the_table_of_checkpoints():
    """Whatever ``modules.json`` may name has its line."""
    text = text_of("checkpoints.md")

    assert [name for name in supported_names() if f"`{name}`" not in text] == []


def test_the_readme_is_short():
    """At most 150 lines; everything else has a page."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_page_is_in_the_navigation():
    """No page is left out of the site's menu, and every decision is in the list of decisions."""
    navigation = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if f'"{page}"' not in navigation] == []

    decisions = text_of("decisions/index.md")
    assert [page.name for page in (DOCS / "decisions").glob("0*.md") if f"({page.name})" not in decisions] == []


def test_the_readme_leads_to_the_pages_of_the_menu():
    """The README links every page at the top of the menu and every store, but not the site's home and the API."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [str(page.relative_to(ROOT)) for page in [*DOCS.glob("*.md"), *(DOCS / "stores").glob("*.md")]]

    assert [page for page in pages if page != "docs/index.md" and f"({page}" not in readme] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_resolve(page):
    """Relative links lead to a file of the checkout, and links to a heading to one that is there."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_glossary_defines_each_term_once():
    """One meaning each."""
    terms = re.findall(r"^\*\*(.+)\*\*$", text_of("glossary.md"), re.MULTILINE)

    assert len(terms) > 50
    assert len(set(terms)) == len(terms)
