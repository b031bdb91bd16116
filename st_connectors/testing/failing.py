"""Test that each failure over HTTP raises an error of this package whose class states whether a retry can help.

For stores that use HTTP, in addition to ``StoreConformance``:

    class TestMyServerFailing(HttpErrors):
        @classmethod
        def through(cls, host, port):
            return f"mystore://{host}:{port}"

Most tests need no server. If a server is available, a class-scoped fixture ``upstream`` returns its host and port, and
the tests of repeated writes run too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from st_connectors.errors import (
    NotFound,
    Permanent,
    Refused,
    StoreError,
    Temporary,
    Throttled,
    Unavailable,
    Unsupported,
)
from st_connectors.filters import Eq
from st_connectors.layers.retry import NO_RETRY, RetryPolicy
from st_connectors.store import Near, Record, SearchRequest, Store
from st_connectors.testing import corpus
from st_connectors.testing.base import Group, Lab, dense_records, opener
from st_connectors.testing.faults import Answer, Fault, FaultProxy, Hold, Reset, Seen, Truncate, refused_port

__all__ = ["AT_ONCE", "SECRET", "HttpErrors", "assert_told_well"]

AT_ONCE = RetryPolicy(attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)
SECRET = "s3cr3t-of-the-suite"  # noqa: S105  # not a secret: it must not appear in messages

_TEMPORARY: Mapping[str, tuple[Fault, type[Temporary]]] = {
    "reset": (Reset(), Unavailable),
    "reset-mid-answer": (Reset(after=9), Unavailable),
    "truncated": (Truncate(), Unavailable),
    "cut-off": (Answer(200, b'{"result": '), Unavailable),
    "request-timeout": (Answer(408), Unavailable),
    "throttled": (Answer(429), Throttled),
    "gateway-failure": (Answer(500, b"<html>failure</html>", content_type="text/html"), Unavailable),
    "bad-gateway": (Answer(502, b"<html>bad gateway</html>", content_type="text/html"), Unavailable),
    "unavailable": (Answer(503), Unavailable),
    "gateway-timeout": (Answer(504, b"", content_type="text/plain"), Unavailable),
    "garbled": (Answer(503, b"upstream is gone", content_type="application/json"), Unavailable),
}
"""An answer that begins as JSON and ends early, with the right length, is the store's: it was cut off before a gateway,
after the store had received the request. Repeating the request is safe, also if it is a write."""

_PERMANENT: Mapping[str, Fault] = {
    "bad-request": Answer(400),
    "bad-key": Answer(401),
    "forbidden": Answer(403, b"forbidden", content_type="text/plain"),
    "too-large": Answer(413, b"", content_type="text/plain"),
    "unprocessable": Answer(422),
    "not-ours": Answer(200, b"<html>It works!</html>", content_type="text/html"),
    "not-json": Answer(200, b"It works!", content_type="text/plain"),
    "other-json": Answer(200, b'{"hello": "world"}'),
}

_OF_RECORD = frozenset({"bad-request", "too-large", "unprocessable"})
"""The lasting faults for which a record is refused; after any other the next record would fail too."""

_RETRY_AFTER: Mapping[str, str] = {
    "date": "Wed, 21 Oct 2065 07:28:00 GMT",
    "word": "soon",
    "negative": "-3",
    "empty": "",
}


class HttpErrors(Group):
    """Servers that refuse, disconnect, throttle, stall and send invalid responses."""

    key_variable: ClassVar[str | None] = None
    """The environment variable of the store's key, which must not appear in messages."""
    patience: ClassVar[str] = "timeout=1"
    """The address option that sets the client's timeout to one second."""

    @classmethod
    def through(cls, host: str, port: int) -> str:
        """Return the address of a server at a host and port."""
        raise NotImplementedError(f"{cls.__name__} needs a classmethod through(cls, host, port)")

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls) -> tuple[str, int] | None:
        """Return host and port of a real server, or None."""
        return None

    @pytest.fixture
    def proxy(self, upstream: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
        """Yield a proxy that injects faults."""
        if self.key_variable is not None:
            monkeypatch.setenv(self.key_variable, SECRET)
        with FaultProxy(upstream) as proxy:
            yield proxy

    def _open(self, proxy: FaultProxy, retry: RetryPolicy = NO_RETRY, options: str = "") -> Store:
        lab = Lab(opener(self.through(proxy.host, proxy.port) + options, retry=retry))
        return lab.open(lab.schema(filterable=corpus.FILTERABLE))

    @pytest.mark.usefixtures("proxy")
    def test_nobody_there_is_unavailable(self) -> None:
        """A refused connection is ``Unavailable``, and its message names the address."""
        port = refused_port()
        lab = Lab(opener(self.through("127.0.0.1", port), retry=NO_RETRY))
        with pytest.raises(Unavailable) as caught:
            lab.open(lab.schema()).count()
        assert_told_well(caught.value)

    @pytest.mark.parametrize("fault", list(_TEMPORARY))
    def test_passing_faults_are_temporary(self, proxy: FaultProxy, fault: str) -> None:
        """Transient faults raise a temporary error, on reads and on writes."""
        ordered, kind = _TEMPORARY[fault]
        proxy.always(ordered)
        store = self._open(proxy)
        with pytest.raises(kind) as caught:
            store.count()
        assert_told_well(caught.value)
        assert caught.value.status in {None, _status_of(ordered)}
        assert isinstance(_failure_of_upsert(store, dense_records(2)), kind)

    @pytest.mark.parametrize("fault", list(_PERMANENT))
    def test_lasting_faults_are_permanent(self, proxy: FaultProxy, fault: str) -> None:
        """Lasting faults raise ``Permanent`` and are not retried, whatever the policy."""
        proxy.always(_PERMANENT[fault])
        with pytest.raises(Permanent) as caught:
            self._open(proxy, AT_ONCE).count()
        assert not isinstance(caught.value, NotFound)
        assert_told_well(caught.value)
        assert caught.value.status in {None, _status_of(_PERMANENT[fault])}
        assert len(proxy.seen) == 1

    @pytest.mark.parametrize("fault", list(_PERMANENT))
    def test_lasting_faults_of_writes_are_of_the_record_or_of_all(self, proxy: FaultProxy, fault: str) -> None:
        """A refused record raises or returns ``Refused``; anything else that lasts raises another permanent error."""
        proxy.always(_PERMANENT[fault])
        error = _failure_of_upsert(self._open(proxy, AT_ONCE), dense_records(1))
        assert isinstance(error, Permanent)
        assert isinstance(error, Refused) == (fault in _OF_RECORD)
        assert_told_well(error, "upsert")
        assert len(proxy.seen) == 1

    @pytest.mark.parametrize("status", [429, 503])
    def test_the_servers_wish_is_carried(self, proxy: FaultProxy, status: int) -> None:
        """The error has the ``Retry-After`` of the server, in seconds."""
        proxy.always(Answer(status, retry_after=7))
        with pytest.raises(Temporary) as caught:
            self._open(proxy).count()
        assert caught.value.retry_after == 7.0

    @pytest.mark.parametrize("wish", list(_RETRY_AFTER))
    def test_strange_wishes_break_nothing(self, proxy: FaultProxy, wish: str) -> None:
        """A ``Retry-After`` that is a date, a word, negative or empty raises the same error."""
        proxy.always(Answer(429, retry_after=_RETRY_AFTER[wish]))
        with pytest.raises(Temporary) as caught:
            self._open(proxy).count()
        assert caught.value.retry_after is None or caught.value.retry_after >= 0

    def test_a_silent_server_is_unavailable(self, proxy: FaultProxy) -> None:
        """A server that does not respond within the timeout of the address is ``Unavailable``."""
        proxy.always(Hold())
        with pytest.raises(Unavailable) as caught:
            self._open(proxy, options=f"?{self.patience}").count()
        assert_told_well(caught.value)

    @pytest.mark.parametrize("fault", list(_TEMPORARY))
    def test_nothing_is_tried_behind_our_back(self, proxy: FaultProxy, fault: str) -> None:
        """A call is one request without retries and three with three attempts: the client adds none of its own."""
        proxy.always(_TEMPORARY[fault][0])
        with pytest.raises(Temporary):
            self._open(proxy).count()
        assert len(proxy.seen) == 1
        with pytest.raises(Temporary):
            self._open(proxy, AT_ONCE).count()
        assert len(proxy.seen) == 4

    def test_what_is_refused_sends_nothing(self, proxy: FaultProxy) -> None:
        """Invalid and undeclared requests are refused before any byte is sent."""
        store = self._open(proxy)
        with pytest.raises(ValueError, match="limit"):
            store.search([SearchRequest(Near("dense", corpus.QUERIES[0]), limit=0)])
        with pytest.raises((ValueError, Unsupported)):
            store.count(Eq("undeclared", 1))
        with pytest.raises((ValueError, TypeError)):
            store.get([""])
        assert len(store.upsert([*dense_records(0)])) == 0
        assert proxy.seen == []

    def test_two_failures_then_success_leave_one_record(self, proxy: FaultProxy, upstream: object) -> None:
        """A write that is retried after resets stores each record once, even if the first attempts succeeded."""
        if upstream is None:
            pytest.skip("the proxy has no server")
        lab = Lab(opener(self.through(proxy.host, proxy.port), retry=AT_ONCE))
        pair = lab.pair()
        try:
            proxy.order(Reset(), Reset(after=5), only=_writes)
            pair.upsert(dense_records(5))
            pair.assert_records_agree()
        finally:
            proxy.order()
            lab.close()

    @pytest.mark.parametrize("fault", list(_TEMPORARY))
    def test_after_a_passing_fault_answers_are_whole(self, proxy: FaultProxy, upstream: object, fault: str) -> None:
        """With retries enabled, writes, searches, counts and scans return correct results after one transient fault."""
        if upstream is None:
            pytest.skip("the proxy has no server")
        ordered, kind = _TEMPORARY[fault]
        lab = Lab(opener(self.through(proxy.host, proxy.port), retry=AT_ONCE))
        pair = lab.pair()
        try:
            proxy.order(ordered)
            pair.upsert(dense_records(20))
            proxy.order(ordered)
            pair.assert_search_agrees(pair.near(Near("dense", corpus.QUERIES[0])))
            proxy.order(ordered)
            assert pair.store.count() == 20
            proxy.order(ordered, ordered, ordered)
            with pytest.raises(kind):
                list(pair.store.scan(batch=3))
            proxy.order()
            pair.assert_records_agree()
        finally:
            proxy.order()
            lab.close()

    def test_a_slow_answer_is_waited_for(self, proxy: FaultProxy, upstream: object) -> None:
        """A response that arrives late, but within the timeout, is used."""
        if upstream is None:
            pytest.skip("the proxy has no server")
        lab = Lab(opener(self.through(proxy.host, proxy.port), retry=NO_RETRY))
        pair = lab.pair(records=dense_records(4))
        proxy.order(Hold())
        seen_before = len(proxy.seen)
        with ThreadPoolExecutor(1) as pool:
            count = pool.submit(pair.store.count)
            proxy.wait(lambda: len(proxy.seen) > seen_before)
            assert not count.done()
            proxy.release()
            assert count.result() == 4
        lab.close()


def _failure_of_upsert(store: Store, records: Sequence[Record]) -> StoreError:
    """Return the error of an upsert of which no record is stored, raised or per record."""
    try:
        rejected = store.upsert(records)
    except StoreError as error:
        return error
    assert len(rejected) == len(records)
    assert len({type(item.error) for item in rejected}) == 1
    return rejected[0].error


def assert_told_well(error: StoreError, operation: str = "count") -> None:
    """Assert that an error names store and operation, keeps its cause, and contains no secret."""
    assert error.store
    assert error.operation == operation
    assert error.__cause__ is not None
    assert SECRET not in str(error)
    assert SECRET not in repr(error.__cause__)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


def _status_of(fault: Fault) -> int | None:
    """Return the status with which a fault answers; None for a fault without an answer."""
    return fault.status if isinstance(fault, Answer) else None


def _writes(seen: Seen) -> bool:
    return seen.method in {"PUT", "POST"} and len(seen.body) > 200
