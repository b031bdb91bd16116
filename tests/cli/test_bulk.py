"""``ingest --bulk`` applies the store's loading settings while it writes, and restores them in every case."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from st_connectors import memory, registry
from st_connectors.errors import Permanent


class LoadingStub:
    """The memory plugin with a bulk-loading setting; records the value of the setting at each write."""

    def __init__(self, plugin):
        self.setting = "original"
        self.writes = []
        self.requests = []
        self.failure = None
        self.plugin = replace(plugin, connect=self.connect, loading=self.loading)

    def connect(self, address, collection, schema, client):
        inner = memory.PLUGIN.connect(address, collection, schema, client)
        return _Store(inner, self)

    @contextmanager
    def loading(self, address, collection, client):
        self.requests.append((str(address), collection))
        original, self.setting = self.setting, "loading"
        try:
            yield
        finally:
            self.setting = original


class _Store:
    def __init__(self, inner, stub):
        self._inner, self._stub = inner, stub

    def __getattr__(self, name):
        return getattr(self._inner, name)

    @property
    def capabilities(self):
        return replace(self._inner.capabilities, bulk_loading=frozenset({"graphs"}), persistent=True)

    def upsert(self, records):
        self._stub.writes.append(self._stub.setting)
        if self._stub.failure is not None:
            raise self._stub.failure
        return self._inner.upsert(records)


@pytest.fixture
def stub(monkeypatch):
    """Replace the memory plugin with one that has a bulk-loading setting."""
    stub = LoadingStub(memory.PLUGIN)
    monkeypatch.setattr(registry, "_load", {**registry.plugins(), "memory": stub.plugin}.__getitem__)
    return stub


@pytest.fixture
def target(tmp_path):
    """Return the options that name a new collection in memory."""
    return ["--in", f"memory:{tmp_path.name}", "--collection", "books", "--create", "--dense", "none"]


def test_all_writes_happen_with_the_loading_settings(cli, books, target, stub):
    """The settings are restored afterwards, without a message."""
    outcome = cli("ingest", books, *target, "--bulk", "--batch", "1")

    assert (outcome.status, outcome.err) == (0, "")
    assert stub.requests == [(target[1], "books")]
    assert stub.writes == ["loading"] * 3
    assert stub.setting == "original"


def test_settings_stay_without_the_flag(cli, books, target, stub):
    """Only ``--bulk`` changes the settings."""
    assert cli("ingest", books, *target).status == 0

    assert stub.requests == []
    assert stub.writes == ["original"]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Permanent("gone", store="memory", operation="upsert"), 3), (KeyboardInterrupt(), 130)],
    ids=["the store fails", "Ctrl-C"],
)
def test_settings_are_restored_after_a_failed_ingest(cli, books, target, stub, failure, status):
    """The original settings return, whatever ended the ingest."""
    stub.failure = failure

    outcome = cli("ingest", books, *target, "--bulk")

    assert outcome.status == status
    assert set(stub.writes) == {"loading"}
    assert stub.setting == "original"


def test_a_store_without_loading_settings_is_reported(cli, books, target):
    """A line on standard error says that ``--bulk`` has no effect, and the documents are stored."""
    outcome = cli("ingest", books, *target, "--bulk")

    assert outcome.status == 0
    assert outcome.err.splitlines()[0] == "st-connectors: --bulk has no effect: memory has no bulk-loading settings"
    assert "3" in outcome.out


def test_capabilities_list_loading_settings_exactly_if_a_plugin_has_them():
    """``Capabilities.bulk_loading`` is non-empty exactly for plugins with ``loading``."""
    declared = {name: bool(plugin.capabilities.bulk_loading) for name, plugin in registry.plugins().items()}

    assert declared == {name: plugin.loading is not None for name, plugin in registry.plugins().items()}
    assert declared == {"elasticsearch": True, "memory": False, "milvus": False, "opensearch": True, "qdrant": True}
