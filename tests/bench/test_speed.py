"""What the benchmark of stores reports before it measures."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError

import pytest

from bench import speed


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing is encoded, and no client is installed."""

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(speed, "material", lambda: None)
    monkeypatch.setattr(speed, "version", absent)
    return lambda *arguments: monkeypatch.setattr(sys, "argv", ["speed", *arguments])


@pytest.mark.parametrize(("argument", "status", "says"), [("--help", 0, "STORE"), ("nope", 2, "unknown store nope")])
def test_help_and_wrong_names_measure_nothing(unmeasured, capsys, argument, status, says):
    """Help and unknown stores list the known stores and exit."""
    unmeasured(argument)

    with pytest.raises(SystemExit) as left:
        speed.main()

    printed = capsys.readouterr()
    assert left.value.code == status
    assert says in printed.out + printed.err
    assert "qdrant-edge" in printed.out + printed.err


def test_a_store_without_its_client_is_not_at_hand(unmeasured, capsys):
    """A line names the package to install, and the status is 1 because nothing was measured."""
    unmeasured("qdrant-edge", "--json")

    assert speed.main() == 1
    printed = capsys.readouterr()
    assert printed.err == "not available: qdrant-edge: the client is not installed; pip install qdrant-edge-py\n"
    assert printed.out == "{}\n"
