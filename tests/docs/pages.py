"""The README and the pages as data: their code blocks, in order, and how to run them.

Above a block may stand, after an empty line or directly:

- a file name in backquotes: the block is that file, written into the folder where the page's blocks run;
- ``<!-- needs: ENGINE -->``: the block needs a server, and the integration tests run it;
- ``<!-- not run: REASON -->``: nothing can run it.

A ``text`` block is the output of the block before it.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from stand_ins import STAND_INS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]
RUN = {"python", "console"}
"""Languages of blocks that are run."""

_BLOCK = re.compile(
    r"(?:^(?:<!-- (?P<mark>needs|not run): (?P<value>.+?) -->|`(?P<file>[\w./-]+)`\n)\n)?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block with the line it starts on, what stands above it, and the output below it."""

    page: Path
    line: int
    language: str
    text: str
    file: str | None = None
    needs: str | None = None
    not_run: str | None = None
    output: str | None = None

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def hub_names(self) -> set[str]:
        """The Hub models that the block loads."""
        return {name for name in STAND_INS if name in self.text}

    @property
    def is_run_here(self) -> bool:
        """Whether the tests without servers run the block."""
        return self.language in RUN and self.file is None and self.needs is None and self.not_run is None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order, outputs joined to the blocks that print them."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        marks = {"needs": None, "not run": None} | ({match["mark"]: match["value"]} if match["mark"] else {})
        block = Block(page, line, match["language"], match["text"], match["file"], marks["needs"], marks["not run"])
        if block.language == "text" and block.file is None and found:
            last = found.pop()
            block = Block(
                page, last.line, last.language, last.text, last.file, last.needs, last.not_run, output=block.text
            )
        found.append(block)
    return found


def commands(block: Block) -> Iterator[tuple[int, str]]:
    """Yield the command lines of a console block, each with its line in the page."""
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.strip():
            yield number, line


def run_python(block: Block, names: dict[str, object]) -> None:
    """Run a block of Python in the namespace of its page."""
    code = "\n" * block.line + block.text  # so that a traceback shows the line of the page
    exec(compile(code, str(block.page), "exec"), names)


def run_command(line: str, folder: Path, models: Mapping[str, Path]) -> str:
    """Run a command line as printed and return its output; check the parts of those that must not run here."""
    words = [str(models.get(word, word)) for word in shlex.split(line)]
    match words:
        case ["make", target, *_]:
            subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
        case ["pip", "install", package]:
            check_extra(package)
        case ["python", "-m", module, *_]:
            assert find_spec(module) is not None, line
        case ["st-connectors", *arguments]:
            return run_program(arguments, folder)
        case _:
            raise AssertionError(f"no test runs the command {line!r}")
    return ""


def check_extra(package: str) -> None:
    """Fail unless an extra that a page installs is declared."""
    extra = re.fullmatch(r"st-connectors\[(\w+)\]", package)
    assert extra is not None, package
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf"^{extra[1]} = \[", declared, re.MULTILINE), package


def run_program(arguments: list[str], folder: Path) -> str:
    """Run the command line program in a folder and return its output, which is never empty."""
    program = Path(sys.executable).with_name("st-connectors")
    done = subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(arguments)}: {done.stderr}"
    assert done.stdout.strip(), shlex.join(arguments)
    return done.stdout
