"""Writes that fail as a whole or for single documents: what is sent again, what is refused, and what ends the work."""

from __future__ import annotations

from contextlib import closing
from socketserver import BaseRequestHandler

import pytest
from reading_smile import read_bulk

from st_connectors import open_store
from st_connectors.errors import NotFound, Permanent, Refused, Throttled, Unavailable
from st_connectors.layers.retry import NO_RETRY, RetryPolicy
from st_connectors.schema import Schema, TextField
from st_connectors.store import Record
from st_connectors.testing.serving import Serving

ENGINES = {"elasticsearch": "elasticsearch", "opensearch": "opensearchpy"}
SCHEMA = Schema("books", {"text": TextField()})
AT_ONCE = RetryPolicy(attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)
LIMIT = 4000
"""Bytes of a request."""
BULK = ("POST", "/books/_bulk")
BLOCK = "index [books@1] blocked by: [{}];"
FULL_DISK = "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block"


@pytest.fixture(params=ENGINES)
def engine(request):
    """The name of an engine whose client is installed."""
    pytest.importorskip(ENGINES[request.param], reason=f"needs the {request.param} extra")
    return request.param


@pytest.fixture
def stub(lucene_stub, engine):
    """A scripted server."""
    return lucene_stub(engine)


@pytest.fixture
def upsert(stub):
    """Return what an upsert of records returns, with a policy for retries."""

    def call(records, retry=NO_RETRY):
        with closing(open_store(stub.address, "books", SCHEMA, retry=retry)) as store:
            return store.upsert(records)

    return call


def records(count):
    return [Record(f"r{at}", payload={"text": "sea " * 100}) for at in range(count)]


def item(status, kind=None, reason="no"):
    """Return the result of one line of a bulk request."""
    return {"index": {"status": status, **({"error": {"type": kind, "reason": reason}} if kind else {})}}


class Bulk:
    """Answers to bulk requests as the servers do, and the stored ids."""

    def __init__(self):
        self.stored = []

    def __call__(self, body):
        if len(body) > LIMIT:
            return 413, {"Content-Type": "text/html"}, b"<html>413 Request Entity Too Large</html>"
        ids = [action["index"]["_id"] for action in read_bulk(body)[::2]]
        self.stored += ids
        return 200, {}, {"errors": False, "items": [item(201) for _ in ids]}


def test_one_document_that_is_too_large_is_refused_and_its_neighbours_are_stored(stub, upsert):
    """A batch that is too large only as a whole is stored in parts."""
    bulk = Bulk()
    stub.answers[BULK] = [bulk]
    batch = records(12)
    batch[5] = Record("r5", payload={"text": "sea " * 2000})

    rejected = upsert(batch)

    assert [(each.position, each.id, type(each.error), each.error.status) for each in rejected] == [
        (5, "r5", Refused, 413)
    ]
    assert "413 Request Entity Too Large" in str(rejected[0].error)
    assert bulk.stored == [f"r{at}" for at in range(12) if at != 5]


class Pressure(Bulk):
    """A server whose memory for all operations is too small for a request: each item of it is rejected with 429."""

    def __call__(self, body):
        if len(body) <= LIMIT:
            return super().__call__(body)
        kind = "rejected_execution_exception"
        reason = (
            "rejected execution of coordinating operation [coordinating_and_primary_bytes=0, replica_bytes=0, "
            f"all_bytes=0, coordinating_operation_bytes={len(body)}, max_coordinating_and_primary_bytes={LIMIT}]"
        )
        return 200, {}, {"errors": True, "items": [item(429, kind, reason) for _ in read_bulk(body)[::2]]}


def test_a_request_that_needs_more_memory_than_there_is_is_halved(stub, upsert):
    """It would be rejected each time; the document that alone needs too much is refused."""
    pressure = Pressure()
    stub.answers[BULK] = [pressure]
    batch = records(12)
    batch[5] = Record("r5", payload={"text": "sea " * 2000})

    rejected = upsert(batch, AT_ONCE)

    assert [(each.position, each.id, type(each.error)) for each in rejected] == [(5, "r5", Refused)]
    assert "indexing_pressure.memory.limit" in str(rejected[0].error)
    assert pressure.stored == [f"r{at}" for at in range(12) if at != 5]


def test_a_request_for_which_memory_is_not_free_now_is_throttled(stub, upsert):
    """It fits as soon as other operations are done."""
    reason = "[all_bytes=292134, primary_operation_bytes=18259, max_primary_bytes=307200]"
    stub.on(*BULK, {"errors": True, "items": [item(429, "es_rejected_execution_exception", reason)]})

    (rejected,) = upsert(records(1))
    assert (type(rejected.error), rejected.error.status) == (Throttled, 429)


@pytest.mark.parametrize("cut", [b'{"errors":false,"items":[{"ind', b"{", '{"errors":false,"items":[{"é'.encode()[:-1]])
def test_a_bulk_answer_that_was_cut_off_is_sent_again(stub, upsert, cut):
    """Its length is right, its JSON ends early; the server may have stored the records, whose ids stay the same."""
    whole = Bulk()
    stub.answers[BULK] = [(200, {}, cut), whole]

    with pytest.raises(Unavailable):
        upsert(records(2))
    stub.answers[BULK] = [(200, {}, cut), whole]
    assert upsert(records(2), AT_ONCE) == []

    assert whole.stored == ["r0", "r1"]
    assert [len(lines) // 2 for _, lines in stub.asked(*BULK)] == [2, 2, 2]


@pytest.mark.parametrize("page", [b"<html>welcome</html>", b"[1, 2", b""])
def test_a_page_of_another_server_ends_the_work(stub, upsert, page):
    """It is not sent again."""
    stub.answers[BULK] = [(200, {}, page)]

    with pytest.raises(Permanent, match="is this the right address") as caught:
        upsert(records(1), AT_ONCE)
    assert not isinstance(caught.value, Refused)
    assert len(stub.seen) == 1


@pytest.mark.parametrize("content_type", ["application/json", "application/xml", "application/octet-stream"])
@pytest.mark.parametrize(("status", "kind"), [(429, Throttled), (502, Unavailable), (503, Unavailable)])
def test_the_status_decides_whatever_the_page_of_a_gateway_is(stub, upsert, status, kind, content_type):
    """Also one that is not what its content type says."""
    stub.answers[BULK] = [(status, {"Content-Type": content_type}, b"upstream is gone")]

    with pytest.raises(kind, match=f"{status}: upstream is gone") as caught:
        upsert(records(1))
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "document_parsing_exception", Refused),
        (400, "strict_dynamic_mapping_exception", Refused),
        (404, "document_missing_exception", Refused),
        (409, "version_conflict_engine_exception", Refused),
        (422, "illegal_argument_exception", Refused),
        (401, "security_exception", Permanent),
        (403, "security_exception", Permanent),
        (408, "timeout_exception", Unavailable),
        (429, "es_rejected_execution_exception", Throttled),
        (429, "circuit_breaking_exception", Throttled),
        (500, "i_o_exception", Unavailable),
        (503, "unavailable_shards_exception", Unavailable),
    ],
)
def test_each_item_is_sent_again_refused_or_ends_the_work(stub, upsert, status, kind, expected):
    """The other records of the batch are stored."""
    stub.on(*BULK, {"errors": True, "items": [item(201), item(status, kind), item(201)]})

    (rejected,) = upsert(records(3))

    assert (rejected.position, rejected.id) == (1, "r1")
    assert (type(rejected.error), rejected.error.status) == (expected, status)


@pytest.mark.parametrize("status", [401, 403])
def test_a_request_without_permission_ends_the_work(stub, upsert, status):
    """No record is at fault."""
    stub.fail(*BULK, status, {"error": {"type": "security_exception", "reason": "not allowed"}})

    with pytest.raises(Permanent, match="set ST_") as caught:
        upsert(records(2), AT_ONCE)
    assert (type(caught.value), caught.value.status) == (Permanent, status)
    assert len(stub.seen) == 1


def test_a_missing_collection_ends_the_work(stub, upsert):
    """Whether the request or each item says so."""
    stub.on(*BULK, {"errors": True, "items": [item(404, "index_not_found_exception", "no such index [books]")] * 2})
    for _ in range(2):
        with pytest.raises(NotFound, match="create the collection first") as caught:
            upsert(records(2), AT_ONCE)
        assert caught.value.status == 404
        stub.answers.pop(BULK, None)
    assert len(stub.seen) == 2


@pytest.mark.parametrize(
    ("status", "block"), [(429, FULL_DISK), (403, "FORBIDDEN/12/index read-only / allow delete (api)")]
)
def test_a_full_disk_of_the_server_passes(stub, upsert, status, block):
    """The records are sent again; the message says what to do, and not to change the key."""
    reason = BLOCK.format(block)
    full = {"errors": True, "items": [item(status, "cluster_block_exception", reason)]}
    stub.on(*BULK, full, full, {"errors": False, "items": [item(201)]})

    (rejected,) = upsert(records(1))
    assert type(rejected.error) is Unavailable
    assert "]; the disk of the server is full: free space on it" in str(rejected.error)
    assert "remove index.blocks.read_only_allow_delete" in str(rejected.error)
    assert "set ST_" not in str(rejected.error)
    assert upsert(records(1), AT_ONCE) == []

    stub.fail(*BULK, status, {"error": {"type": "cluster_block_exception", "reason": reason}})
    with pytest.raises(Unavailable, match="free space"):
        upsert(records(1))


def test_a_block_of_the_index_by_its_owner_does_not_pass(stub, upsert):
    """Only the server lifts the block of a full disk by itself."""
    stub.on(*BULK, {"items": [item(403, "cluster_block_exception", BLOCK.format("FORBIDDEN/5/index read-only (api)"))]})

    (rejected,) = upsert(records(1))
    assert type(rejected.error) is Permanent


def test_an_item_without_an_error_is_stored_only_if_its_status_says_so(stub, upsert):
    """A record is confirmed or rejected."""
    stub.on(*BULK, {"errors": True, "items": [item(201), item(200), item(503), item(400)]})

    assert [(each.id, type(each.error)) for each in upsert(records(4))] == [("r2", Unavailable), ("r3", Refused)]


@pytest.mark.parametrize(
    "items", [[], [item(201)], [{"index": {}}] * 2, [{}, {}], [{"index": None}] * 2, [{"index": {"error": 1}}] * 2, 7]
)
def test_an_answer_in_another_form_is_no_confirmation(stub, upsert, items):
    """Too few items, or others."""
    stub.on(*BULK, {"errors": False, "items": items})

    with pytest.raises(Permanent, match="it has another form"):
        upsert(records(2))


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([{"delete": {"status": 200}}, {"delete": {"status": 404}}], None),
        ([{"delete": {"status": 200}}, {"delete": {"status": 503}}], Unavailable),
        ([{"delete": {"status": 200}}], Permanent),
        ([{"delete": {"status": 200}}, {"delete": {}}], Permanent),
        (7, Permanent),
    ],
)
def test_a_deletion_is_done_only_if_each_item_says_so(stub, items, expected):
    """An absent id is not an error, an absent item is."""
    stub.on(*BULK, {"errors": False, "items": items})
    with closing(open_store(stub.address, "books", SCHEMA, retry=NO_RETRY)) as store:
        if expected is None:
            store.delete(["a", "b"])
        else:
            with pytest.raises(expected):
                store.delete(["a", "b"])


def test_a_tls_connection_that_ends_early_may_be_tried_again(engine):
    """It was reset, or the server without TLS closed it."""

    class HangUp(BaseRequestHandler):
        def handle(self):
            self.request.recv(65_536)

    with Serving(HangUp) as server:
        address = f"{engine}+https://{server.host}:{server.port}"
        with (
            closing(open_store(address, "books", SCHEMA, retry=NO_RETRY)) as store,
            pytest.raises(Unavailable, match=r"TLS failed: .*does the server speak TLS|cannot be reached: .*EOF"),
        ):
            store.count()
