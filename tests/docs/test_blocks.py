"""Every code block of the README and of the pages runs: those of a page one after the other, in one empty folder."""

import importlib.util
import sys
from pathlib import Path

import pytest
from pages import DOCS, PAGES, ROOT, Block, blocks, commands, run_command, run_python
from stand_ins import REAL, STAND_INS, use_stand_ins

LANGUAGES = {"python", "console", "json", "toml", "text"}
CLIENTS = {
    "qdrant": "qdrant_client",
    "milvus": "milvus_lite",
    "elasticsearch": "elasticsearch",
    "opensearch": "opensearchpy",
}
BLOCKS = {page: blocks(page) for page in PAGES}
RUN = [page for page, found in BLOCKS.items() if any(block.is_run_here for block in found)]
WITH_CHECKPOINTS = [page for page in RUN if any(block.is_run_here and block.hub_names for block in BLOCKS[page])]
DEMO = "st-connectors demo"


def name_of(page: Path) -> str:
    """The path of a page in the checkout."""
    return str(page.relative_to(ROOT))


def needed_modules(block: Block) -> set[str]:
    """The client packages that a block imports or opens a store with."""
    return {
        module
        for store, module in CLIENTS.items()
        if module in block.text or f"st_connectors.{store}" in block.text or f"{store}+" in block.text
    }


@pytest.fixture(autouse=True)
def no_collections_in_memory(monkeypatch):
    """Begin each page without the collections of others, which blocks can alter."""
    monkeypatch.setattr("st_connectors.memory._COLLECTIONS", {})


def run_page(page: Path, folder: Path, capsys, models: dict[str, Path]) -> None:
    """Run the blocks of a page: those that load no checkpoint, or with ``models`` the others.

    Blocks of Python run both times, because later ones use their results.
    """
    names: dict[str, object] = {"__name__": page.stem}
    languages = {"python", "console"} if not models or depends_on_checkpoints(page) else {"python"}
    for block in BLOCKS[page]:
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        if not block.is_run_here or block.language not in languages or block.hub_names - models.keys():
            continue
        if block.language == "python":
            run_python(block, names)
            printed = capsys.readouterr().out
        else:
            lines = [line for _, line in commands(block) if line != DEMO or uses_demo(page)]
            printed = "".join(run_command(line, folder, models) for line in lines)
        if block.output is not None and block.hub_names <= REAL and DEMO not in block.text:
            assert printed.split() == block.output.split(), block.place


def uses_demo(page: Path) -> bool:
    """Whether a page searches the demo's collection.

    Elsewhere the demo, which takes seconds, is run for its transcript alone.
    """
    return any("qdrant+edge:demo-index" in block.text for block in BLOCKS[page] if block.language == "console")


@pytest.mark.long
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_blocks_without_checkpoints_run(page, tmp_path, monkeypatch, capsys):
    """With the built-in models, as they stand.

    Where a page needs a model from the Hub further up, the rest is run below.
    """
    for module in set().union(*map(needed_modules, BLOCKS[page])):
        pytest.importorskip(module)
    if page in WITH_CHECKPOINTS and depends_on_checkpoints(page):
        pytest.skip("its blocks use the results of blocks with checkpoints, and run with them")
    monkeypatch.chdir(tmp_path)

    run_page(page, tmp_path, capsys, {})


def depends_on_checkpoints(page: Path) -> bool:
    """Whether a page's commands use a folder that an earlier command exported."""
    return any("export" in block.text and block.hub_names and block.language == "console" for block in BLOCKS[page])


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.timeout(600)  # exporting a graph takes minutes on a busy machine
@pytest.mark.parametrize("page", WITH_CHECKPOINTS, ids=name_of)
def test_blocks_with_checkpoints_run(page, tmp_path, monkeypatch, capsys, stand_ins):
    """On the stand-ins; where these are the real models, a block prints what the page says."""
    use_stand_ins(monkeypatch, stand_ins)
    monkeypatch.chdir(tmp_path)

    run_page(page, tmp_path, capsys, stand_ins)


def test_every_block_is_of_a_known_kind():
    """No block escapes these tests by its language; each that is not run says why."""
    for found in BLOCKS.values():
        for block in found:
            assert block.language in LANGUAGES, block.place
            assert block.language not in {"json", "toml"} or block.file is not None, block.place
            assert block.not_run is None or len(block.not_run) > 20, block.place


def test_every_hub_name_is_used():
    """The table of stand-ins names the models of the pages and no others."""
    named = {name for found in BLOCKS.values() for block in found for name in block.hub_names}

    assert named == set(STAND_INS)


def test_no_code_is_indented_instead_of_fenced():
    """An indented block would not be run."""
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            assert not line.startswith(("    st-connectors ", "    pip ", "    make ")), f"{name_of(page)}:{number}"


@pytest.fixture(scope="module")
def generate():
    """The script that writes the generated parts."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_the_transcript_of_the_demo_is_current(generate):
    """The README shows what the demo prints, times aside; scores depend on the docstrings of a Python version."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- demo:begin")[1].split("```text\n")[1].split("```")[0]
    version = shown.split("Python ")[1].split(" ")[0]
    if version.rpartition(".")[0] != f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip(f"the transcript was written with Python {version}")

    printed = generate.transcript().split("```text\n")[1].split("```")[0]

    assert without_times(printed) == without_times(shown)


def without_times(transcript: str) -> list[str]:
    """The lines of a transcript without counts, versions and seconds, which differ from run to run."""
    head, *lines = transcript.split("\n\n")
    words = [word for word in head.split() if not any(map(str.isdigit, word))]
    return [*words, *lines]
