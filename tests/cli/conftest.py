"""Fixtures that run commands in this process, and the files they read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from st_connectors.cli import run


@dataclass(frozen=True)
class Outcome:
    """The exit status of a command and what it printed."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def error_line(self) -> str:
        """Return the single error line; any other output, such as a traceback, fails the test."""
        [line] = self.err.splitlines()
        assert line.startswith("st-connectors: ")
        assert self.out == ""
        return line.removeprefix("st-connectors: ")


Run = Callable[..., Outcome]

BOOKS = [
    {"id": "sea", "text": "an ageing fisherman struggles with a giant marlin", "year": 1952},
    {"id": "submarine", "text": "a voyage in a submarine under the ocean", "year": 1870},
    {"id": "time", "text": "a traveller visits the far future", "year": 1895},
]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(status, printed.out, printed.err)

    return call


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Write three books as JSONL."""
    path = tmp_path / "books.jsonl"
    path.write_text("".join(json.dumps(book) + "\n" for book in BOOKS), encoding="utf-8")
    return path


@pytest.fixture
def library(cli: Run, books: Path, tmp_path: Path) -> list[str]:
    """Ingest the three books and return the options that name their collection."""
    target = ["--in", f"qdrant+edge:{tmp_path / 'library'}", "--collection", "books"]
    outcome = cli("ingest", books, *target, "--create", "--filterable", "year:int")
    assert (outcome.status, outcome.err) == (0, "")
    return target
