"""A real encoder server, and the command in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from st_connectors.cli import run


@pytest.fixture(scope="session")
def encoder_server() -> Iterator[str]:
    """Serve the built-in models."""
    pytest.importorskip("fastapi", reason="needs the extra server")
    from st_connectors.server import serving

    with serving() as address:
        yield address


@pytest.fixture
def setup(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command, and returns its status, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(["setup", *arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call
