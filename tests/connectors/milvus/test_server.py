"""A Milvus server that fails, simulated over gRPC, and the requests that it receives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="needs the milvus extra")

import grpc
from pymilvus import MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

from st_connectors.errors import NotFound, Permanent, Refused, SchemaMismatch, Throttled, Unavailable, Unsupported
from st_connectors.filters import Eq, Range
from st_connectors.layers.retry import NO_RETRY, RetryPolicy
from st_connectors.milvus import faults, wire
from st_connectors.milvus.client import open_client
from st_connectors.milvus.layout import StorageOptions
from st_connectors.registry import collections, open_store, parse_address
from st_connectors.schema import DenseField, FilterKind, Schema
from st_connectors.store import Exact, Near, SearchRequest

SECRET = "s3cr3t:of-the-test"
SCHEMA = Schema("books", {"dense": DenseField(2)}, {"tag": FilterKind.KEYWORD, "year": FilterKind.INT})
AT_ONCE = RetryPolicy(attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)


class Server(milvus_pb2_grpc.MilvusServiceServicer):
    """Returns configured responses and records the requests."""

    def __init__(self):
        self.version = "v2.6.4"
        self.code = (0, "")
        self.properties = {wire.METADATA: wire.format_metadata(SCHEMA, StorageOptions())}
        self.seen = []
        self.tokens = []

    def _answer(self, request, context):
        self.seen.append(request)
        self.tokens.append(dict(context.invocation_metadata()).get("authorization"))
        code, reason = self.code
        return common_pb2.Status(code=code, reason=reason)

    def Connect(self, request, context):  # noqa: N802  # gRPC's name
        return milvus_pb2.ConnectResponse(status=common_pb2.Status())

    def GetVersion(self, request, context):  # noqa: N802  # gRPC's name
        return milvus_pb2.GetVersionResponse(status=common_pb2.Status(), version=self.version)

    def DescribeCollection(self, request, context):  # noqa: N802  # gRPC's name
        status = self._answer(request, context)
        pairs = [common_pb2.KeyValuePair(key=key, value=value) for key, value in self.properties.items()]
        schema = schema_pb2.CollectionSchema(name=request.collection_name)
        return milvus_pb2.DescribeCollectionResponse(status=status, properties=pairs, schema=schema)

    def Query(self, request, context):  # noqa: N802  # gRPC's name
        return milvus_pb2.QueryResults(status=self._answer(request, context))

    def Search(self, request, context):  # noqa: N802  # gRPC's name
        return milvus_pb2.SearchResults(status=self._answer(request, context))

    def Delete(self, request, context):  # noqa: N802  # gRPC's name
        return milvus_pb2.MutationResult(status=self._answer(request, context))


@pytest.fixture
def server():
    """Yield the simulated server, with its address."""
    servicer = Server()
    running = grpc.server(ThreadPoolExecutor(4))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(servicer, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    servicer.url = f"milvus://127.0.0.1:{port}"
    yield servicer
    running.stop(0).wait()


def open_at(url, retry=NO_RETRY):
    return closing(open_store(url, "books", SCHEMA, retry=retry))


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (100, "collection not found[collection=books]", NotFound),
        (101, "collection not loaded", Unavailable),
        (8, "request is rejected by limiter", Throttled),
        (9, "quota exceeded, force deny", Throttled),
        (65535, "rate limit exceeded", Throttled),
        (1100, "invalid parameter", Refused),
        (6, "illegal argument", Refused),
        (1, "something broke", Permanent),
        (503, "node offline", Unavailable),
        (65535, "nobody knows", Permanent),
    ],
)
def test_codes_become_errors_of_their_class(server, code, reason, kind):
    """Milvus's own codes come in responses with a successful status; pymilvus's prefix is left out."""
    with open_at(server.url) as store:
        server.code = (code, reason)
        with pytest.raises(kind) as caught:
            store.count()
    assert type(caught.value) is kind
    assert reason in str(caught.value)
    assert "etry" not in str(caught.value)
    assert len(server.seen) == 1


def test_a_rate_limit_of_milvus_own_is_tried_again_and_a_wrong_argument_is_not(server):
    """The 75 repetitions of pymilvus, which also happen for codes, are off: three attempts are three calls."""
    with open_at(server.url, AT_ONCE) as store:
        server.code = (8, "request is rejected by grpc RateLimiter middleware, please retry later")
        with pytest.raises(Throttled):
            store.count()
        assert len(server.seen) == 3
        server.code = (1100, "invalid parameter")
        with pytest.raises(Refused):
            store.count()
    assert len(server.seen) == 4


def test_old_servers_are_told_apart(server):
    """With one sentence, before any other request."""
    server.version = "v2.4.17"
    with pytest.raises(Unsupported, match=r"Milvus v2\.4\.17; 2\.5 or newer"):
        open_store(server.url, "books", SCHEMA)
    assert server.seen == []


def test_values_travel_as_templates(server):
    """The expression contains only column names; reads have the requested consistency."""
    evil = '" or st_id != "'
    with open_at(f"{server.url}?consistency=strong") as store:
        server.code = (1100, "enough")
        with pytest.raises(Refused):
            store.count(Eq("tag", evil))
        with pytest.raises(Refused):
            store.get([evil])
        with pytest.raises(Refused):
            store.search([SearchRequest(Near("dense", np.array([1, 0], np.float32)), where=Range("year", gte=2000))])
        with pytest.raises(Refused):
            store.delete([evil])
    count, get, search, delete = server.seen
    assert count.expr == "array_contains(kw_tag, {p0})"
    assert count.expr_template_values["p0"].string_val == evil
    assert count.consistency_level == common_pb2.ConsistencyLevel.Strong
    assert get.expr == delete.expr == "st_id in {p0}"
    assert search.dsl == "hi_year >= {p0}"
    assert search.expr_template_values["p0"].int64_val == 2000


def test_the_token_is_sent_and_not_told(server, monkeypatch):
    """It is read from the environment and sent in the header that Milvus expects."""
    monkeypatch.setenv("ST_MILVUS_TOKEN", SECRET)
    with open_at(server.url) as store:
        server.code = (1, "no")
        with pytest.raises(Permanent):
            store.count()
    (token,) = server.tokens
    assert token
    assert SECRET not in token  # in base64


def test_other_peoples_collections_are_left_alone(server):
    """A collection without our property is neither opened nor created nor dropped."""
    server.properties = {"timezone": "UTC"}
    with open_at(server.url) as store:
        for call in (store.create, store.drop):
            with pytest.raises(SchemaMismatch, match=r"not created by st-connectors: .*Index\.adopt"):
                call()
    with pytest.raises(SchemaMismatch):
        open_store(server.url, "books")


def test_efforts_follow_the_index(server):
    """A graph cannot guarantee the true nearest; a flat index can, and has no candidates."""
    with open_at(server.url) as graph, open_at(f"{server.url}?index=flat") as flat:
        assert graph.capabilities.efforts == {"default", "candidates"}
        assert not graph.capabilities.fields["dense"].exact
        assert flat.capabilities.efforts == {"default", "exact"}
        assert flat.capabilities.fields["dense"].exact
        with pytest.raises(Unsupported):
            graph.search([SearchRequest(Near("dense", np.array([1, 0], np.float32)), effort=Exact())])


@pytest.mark.parametrize(
    "options", ["timeout=0", "timeout=soon", "index=ivf", "lists=both", "consistency=maybe", "colour=red"]
)
def test_options_are_checked(server, options):
    """Before anything is sent."""
    with pytest.raises(ValueError, match=options.partition("=")[0]):
        open_store(f"{server.url}?{options}", "books", SCHEMA)


class Late(grpc.RpcError):
    """The error of a call that has no answer before its deadline."""

    def code(self):
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self):
        return "Deadline Exceeded"


def test_an_answer_that_does_not_come_in_time_says_how_to_wait_longer():
    """The status alone does not say that a setting helps."""
    error = faults.from_client(Late(), store="milvus", operation="count")

    assert isinstance(error, Unavailable)
    assert error.message == "no answer in time (Deadline Exceeded); ?timeout=SECONDS in the address allows more"


@pytest.mark.parametrize(("options", "seconds"), [("", 30), ("?timeout=7", 7)])
def test_calls_to_a_server_end_after_the_timeout(server, options, seconds):
    """By default sooner than in Milvus Lite."""
    connection = open_client(parse_address(f"{server.url}{options}"), None)

    assert connection.call_options["timeout"] == seconds
    connection.close()


def test_a_server_needs_a_host():
    """A path alone is a file."""
    with pytest.raises(
        ValueError, match=r"milvus is a server: write milvus://HOST:PORT, or for a folder milvus\+lite:PATH"
    ):
        open_store("milvus:library.db", "books", SCHEMA)


def test_a_client_handed_in_stays_open(server):
    """Its owner closes it; objects of other types are refused."""
    client = MilvusClient(server.url.replace("milvus:", "http:"), dedicated=True)
    with closing(client):
        open_store("milvus://elsewhere", "books", SCHEMA, client=client).close()
        assert client.get_server_version() == "v2.6.4"
        with pytest.raises(TypeError, match="MilvusClient"):
            open_store("milvus://elsewhere", "books", SCHEMA, client=object())
        with pytest.raises(TypeError, match="MilvusClient"):
            collections("milvus://elsewhere", client=object())
