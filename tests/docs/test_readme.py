"""Every code block of the README runs; its numbers hold where the real checkpoint is at hand."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

# The Hub names that the README uses and what stands in for them here, where no Hub can be reached. Numbers printed under a block are
# compared only where every model of the block is the real one.
STAND_INS = {
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
    "naver/splade-cocondenser-ensembledistil": "tiny_splade",
    "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill": "tiny_inference_free",
    "cross-encoder/ms-marco-MiniLM-L6-v2": "tiny_cross_encoder",
}
REAL = {"sentence-transformers/all-MiniLM-L6-v2"}

BOOKS = """\
{"id": "sea", "text": "An old man goes fishing far out on the ocean.", "year": 1952}
{"id": "time", "text": "A traveller builds a machine and visits the future.", "year": 1895}
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, the line it starts on, and the output printed under it, if any."""

    language: str
    text: str
    line: int
    output: str | None = None

    @property
    def hub_names(self) -> set[str]:
        """The Hub names that the block mentions."""
        return {name for name in re.findall(r'"([\w.-]+/[\w.-]+)"', self.text) if name in STAND_INS or "/" in name}


def blocks() -> Iterator[Block]:
    """The blocks of the README, each ``text`` block joined to the block before it."""
    text = README.read_text(encoding="utf-8")
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    for block, after in zip(found, [*found[1:], None], strict=True):
        if block.language != "text":
            output = after.text if after is not None and after.language == "text" else None
            yield Block(block.language, block.text, block.line, output)


def of_language(language: str) -> list[pytest.param]:
    """The blocks of one language as parameters named by their line."""
    return [pytest.param(block, id=f"line-{block.line}") for block in blocks() if block.language == language]


def needs_torch(block: Block) -> bool:
    """Whether the block loads a checkpoint rather than a built-in model."""
    return bool(block.hub_names)


def test_every_block_is_of_a_kind_that_is_run():
    """There is no block that the tests below do not run."""
    assert {block.language for block in blocks()} == {"python", "console"}


def test_every_hub_name_has_a_stand_in():
    """The published table names every Hub model that the README loads."""
    named = {name for block in blocks() if block.language == "python" for name in block.hub_names}

    assert named == set(STAND_INS)


@pytest.mark.parametrize("block", [p for p in of_language("python") if not needs_torch(p.values[0])])
def test_light_python_block_runs(block, tmp_path, monkeypatch, capsys):
    """A block with built-in models runs as it stands, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    exec(compile(block.text, f"README.md:{block.line}", "exec"), {"__name__": "readme"})

    assert capsys.readouterr().out.strip()


@pytest.mark.torch
@pytest.mark.parametrize("block", [p for p in of_language("python") if needs_torch(p.values[0])])
def test_python_block_with_checkpoints_runs(block, tmp_path, monkeypatch, capsys, stand_ins):
    """A block with Hub names runs on the stand-ins; where they are the real models, it prints what the README says."""
    import huggingface_hub

    def local(repo_id: str, **_: object) -> str:
        return str(stand_ins[STAND_INS[repo_id]])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", local)
    monkeypatch.chdir(tmp_path)

    exec(compile(block.text, f"README.md:{block.line}", "exec"), {"__name__": "readme"})

    printed = capsys.readouterr().out
    assert printed.strip()
    if block.output is not None and block.hub_names <= REAL:
        assert printed.split() == block.output.split()


def commands() -> list[pytest.param]:
    """The command lines of the console blocks."""
    return [
        pytest.param(line, id=f"line-{block.line + 1 + number}")
        for block in blocks()
        if block.language == "console"
        for number, line in enumerate(block.text.splitlines())
    ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """A folder with the input file that the README's commands read; shared, since they follow one another."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "books.jsonl").write_text(BOOKS, encoding="utf-8")
    return folder


@pytest.mark.parametrize("line", commands())
def test_command_runs(line, shop):
    """Each command line works as printed: ours is run, make's targets exist, pip's extras are declared."""
    words = shlex.split(line)
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", words[1]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "pip":
        extra = re.fullmatch(r"st-connectors\[(\w+)\]", words[2])
        assert extra is not None
        assert re.search(rf"^{extra[1]} = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    else:
        assert words[0] == "st-connectors"
        program = Path(sys.executable).with_name("st-connectors")
        environment = os.environ | {"NO_COLOR": "1"}
        done = subprocess.run(
            [program, *words[1:]], cwd=shop, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_table_of_stores_is_current():
    """The table between the markers is what `st-connectors stores --markdown` prints."""
    text = README.read_text(encoding="utf-8")
    table = re.search(r"<!-- stores:begin[^>]*-->\n(.*?)<!-- stores:end -->", text, re.DOTALL)
    assert table is not None

    program = Path(sys.executable).with_name("st-connectors")
    printed = subprocess.run([program, "stores", "--markdown"], capture_output=True, text=True, check=True).stdout

    assert table[1].strip() == printed.strip()
