"""The tests of gRPC statuses catch adapters with one bug each, and pass on the correct adapter."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("qdrant_client", reason="needs the qdrant extra")

import grpc

from st_connectors.testing.statuses import WORDS, StatusServer

pytestmark = pytest.mark.long

SUITE = """
import pytest
from st_connectors import _grpc
from st_connectors.errors import Unavailable
from st_connectors.qdrant import faults
from st_connectors.qdrant.client import ClientEngine
from st_connectors.testing import GrpcErrors

BUG = {bug!r}
count, from_client = ClientEngine.count, faults.from_client

@pytest.fixture(autouse=True)
def bug(monkeypatch):
    if BUG == "wrong-class":
        monkeypatch.setitem(_grpc.HTTP_STATUS, "RESOURCE_EXHAUSTED", 503)
    if BUG == "permanent-as-temporary":
        monkeypatch.setitem(_grpc.HTTP_STATUS, "PERMISSION_DENIED", 503)
    if BUG == "tries-twice":
        def twice(self, body):
            try:
                return count(self, body)
            except Exception:
                return count(self, body)
        monkeypatch.setattr(ClientEngine, "count", twice)
    if BUG == "tells-the-key":
        def loose(error, *, store, operation, place=""):
            mapped = from_client(error, store=store, operation=operation, place=place)
            return type(mapped)(f"{{mapped.message}} (s3cr3t-of-the-suite)", store=store, operation=operation)
        monkeypatch.setattr(faults, "from_client", loose)
    if BUG == "nameless":
        def nameless(error, *, store, operation, place=""):
            return from_client(error, store=store, operation="call", place=place)
        monkeypatch.setattr(faults, "from_client", nameless)
    if BUG == "prints":
        monkeypatch.setattr(ClientEngine, "count", lambda self, body: print("failed") or count(self, body))
    if BUG == "asks-before-it-looks":
        monkeypatch.setattr(ClientEngine, "__init__", eager)

begun = ClientEngine.__init__
def eager(self, opened, collection, capabilities):
    begun(self, opened, collection, capabilities)
    try:
        self._client.collection_exists(collection)
    except Exception:
        pass

@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
class TestQdrant(GrpcErrors):
    key_variable = "ST_QDRANT_API_KEY"

    @classmethod
    def through(cls, host, port):
        return f"qdrant+grpc://{{host}}:{{port}}"
"""

CAUGHT = {
    "wrong-class": "test_statuses_become_errors_of_their_class[RESOURCE_EXHAUSTED]",
    "permanent-as-temporary": "test_only_temporary_statuses_are_tried_again[PERMISSION_DENIED]",
    "tries-twice": "test_only_temporary_statuses_are_tried_again[UNAVAILABLE]",
    "tells-the-key": "test_statuses_become_errors_of_their_class[NOT_FOUND]",
    "nameless": "test_every_operation_tells_its_name[count]",
    "prints": "test_statuses_become_errors_of_their_class[UNAVAILABLE]",
    "asks-before-it-looks": "test_what_is_refused_sends_nothing",
}


class Ended:
    """A pytest plugin that records the outcomes of tests."""

    def __init__(self):
        self.outcomes = {}

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.outcomes[report.nodeid.rpartition("::")[2]] = report.outcome


def ended(folder, bug, *only):
    """Return the outcomes of the suite on an adapter with a bug."""
    file = folder / f"test_{bug.replace('-', '_')}.py"  # a name of its own: pytest keeps modules by name
    file.write_text(SUITE.format(bug=bug))
    apart = ["--import-mode=importlib", f"--rootdir={folder}", f"--config-file={os.devnull}"]
    plugin = Ended()
    chosen = [f"{file}::TestQdrant::{name}" for name in only] or [str(folder)]
    pytest.main([*chosen, "-q", *apart, "-p", "no:cacheprovider", "-p", "no:timeout"], plugins=[plugin])
    return plugin.outcomes


def test_the_correct_adapter_passes(tmp_path):
    """Without a bug no test fails."""
    outcomes = ended(tmp_path, "none")
    assert set(outcomes) >= set(CAUGHT.values())
    assert set(outcomes.values()) == {"passed"}


@pytest.mark.parametrize("bug", list(CAUGHT))
def test_the_bug_is_caught(bug, tmp_path):
    """An adapter with the bug fails the test that is listed for it."""
    assert ended(tmp_path, bug, CAUGHT[bug]) == {CAUGHT[bug]: "failed"}


def test_the_server_returns_its_status_and_counts_calls():
    """Every method returns the status, its message and trailing metadata; greetings are answered but not counted."""
    with StatusServer({"/a/Hello": b"hi"}) as server, grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        assert channel.unary_unary("/a/Hello")(b"") == b"hi"
        server.always(grpc.StatusCode.ABORTED, ("retry-after", "3"))
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/a/Else")(b"", metadata=[("key", "value")])
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ABORTED, WORDS)
    assert dict(caught.value.trailing_metadata()) == {"retry-after": "3"}
    assert server.seen == ["/a/Else"]
    assert server.metadata[0]["key"] == "value"
