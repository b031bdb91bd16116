"""``ingest --bulk``: the store is set for loading while documents are written, and set back whatever happens."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from st_connectors import memory, registry
from st_connectors.errors import Permanent


class Loads:
    """The plugin of memory as a store with a setting for loading; remembers whether each write came while that was set."""

    def __init__(self, plugin):
        self.now = "found"
        self.writes = []
        self.asked = []
        self.failing = None
        self.plugin = replace(plugin, connect=self.connect, loading=self.loading)

    def connect(self, address, collection, schema, client):
        held = memory.PLUGIN.connect(address, collection, schema, client)
        return _Store(held, self)

    @contextmanager
    def loading(self, address, collection, client):
        self.asked.append((str(address), collection))
        found, self.now = self.now, "loading"
        try:
            yield
        finally:
            self.now = found


class _Store:
    def __init__(self, held, loads):
        self._held, self._loads = held, loads

    def __getattr__(self, name):
        return getattr(self._held, name)

    @property
    def capabilities(self):
        return replace(self._held.capabilities, bulk_loading=frozenset({"graphs"}), persistent=True)

    def upsert(self, records):
        self._loads.writes.append(self._loads.now)
        if self._loads.failing is not None:
            raise self._loads.failing
        return self._held.upsert(records)


@pytest.fixture
def loads(monkeypatch):
    """A store with a setting for loading, in the place of memory."""
    stub = Loads(memory.PLUGIN)
    monkeypatch.setattr(registry, "_load", {**registry.plugins(), "memory": stub.plugin}.__getitem__)
    return stub


@pytest.fixture
def where(tmp_path):
    """The options that name a new collection in memory."""
    return ["--in", f"memory:{tmp_path.name}", "--collection", "books", "--create", "--dense", "none"]


def test_all_is_written_while_the_store_is_set_for_loading(cli, books, where, loads):
    """It is set back afterwards, and nothing is said."""
    outcome = cli("ingest", books, *where, "--bulk", "--batch", "1")

    assert (outcome.status, outcome.err) == (0, "")
    assert loads.asked == [(where[1], "books")]
    assert loads.writes == ["loading"] * 3
    assert loads.now == "found"


def test_nothing_is_set_without_the_flag(cli, books, where, loads):
    """The flag is the only thing that asks for it."""
    assert cli("ingest", books, *where).status == 0

    assert loads.asked == []
    assert loads.writes == ["found"]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Permanent("gone", store="memory", operation="upsert"), 3), (KeyboardInterrupt(), 130)],
    ids=["the store fails", "Ctrl-C"],
)
def test_what_was_found_is_set_back_after_a_failed_ingest(cli, books, where, loads, failure, status):
    """Whatever ended the ingest, the store is as it was found."""
    loads.failing = failure

    outcome = cli("ingest", books, *where, "--bulk")

    assert outcome.status == status
    assert set(loads.writes) == {"loading"}
    assert loads.now == "found"


def test_a_store_with_nothing_to_set_is_named_and_the_ingest_goes_on(cli, books, where):
    """A line on standard error, before that of a store which keeps nothing; the documents are in."""
    outcome = cli("ingest", books, *where, "--bulk")

    assert outcome.status == 0
    assert outcome.err.splitlines()[0] == "st-connectors: --bulk changes nothing: memory has no settings for loading"
    assert "3" in outcome.out


def test_capabilities_name_the_settings_just_where_a_plugin_can_set_them():
    """What a plugin says and what it can do are one thing."""
    said = {name: bool(plugin.capabilities.bulk_loading) for name, plugin in registry.plugins().items()}

    assert said == {name: plugin.loading is not None for name, plugin in registry.plugins().items()}
    assert said == {"elasticsearch": True, "memory": False, "milvus": False, "opensearch": True, "qdrant": True}
