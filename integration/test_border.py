"""Real servers: keys, TLS, the wrong server, and what a server itself accepts and refuses.

A proxy terminates TLS and checks the key, since the nodes of these tests do neither; invalid requests and records are
covered by the suite's ``Border`` group on every store.
"""

from __future__ import annotations

import base64
import json
import ssl
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from integration.stores import address_of
from st_connectors.errors import Permanent, Refused, SchemaMismatch, StoreError, Unavailable, Unsupported
from st_connectors.layers.retry import NO_RETRY, RetryPolicy
from st_connectors.registry import open_store, parse_address
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField
from st_connectors.store import Near, Parts, Record, SearchRequest, Store
from st_connectors.testing import Lab, opener
from st_connectors.testing.faults import Answer, FaultProxy
from st_core.vectors import SparseVector

trustme = pytest.importorskip("trustme", reason="makes the certificates")
pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")
pytest.importorskip("opensearchpy", reason="needs the opensearch extra")

RIGHT, WRONG = "r1ght-s3cr3t-of-the-test", "wr0ng-s3cr3t-of-the-test"
AT_ONCE = RetryPolicy(attempts=3, wait_initial=0.0, wait_max=0.0, wait_jitter=0.0)
SCHEMA = Schema("border", {"dense": DenseField(2)})
UP = np.array([0.0, 1.0], np.float32)


@dataclass(frozen=True, slots=True)
class Server:
    """A server without TLS and keys, and how its users authenticate."""

    address: str
    variable: str
    admits: str

    @property
    def place(self) -> tuple[str, int]:
        """Return host and port."""
        found = parse_address(self.address)
        return str(found.host), int(found.port or 0)

    def at(self, proxy: FaultProxy, options: str = "", *, tls: bool = True) -> str:
        """Return the address of a proxy in front of the server."""
        name = parse_address(self.address).name
        return f"{name}{'+https' if tls else ''}://localhost:{proxy.port}{options}"


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.engine(name)) for name in ("elasticsearch-9", "opensearch")],
)
def server(request, engines) -> Server:
    """Yield one engine after the other."""
    address = address_of(request.param, engines.url(request.param))
    if request.param == "opensearch":
        basic = base64.b64encode(f"admin:{RIGHT}".encode()).decode()
        return Server(address, "ST_OPENSEARCH_PASSWORD", f"Basic {basic}")
    return Server(address, "ST_ELASTICSEARCH_API_KEY", f"ApiKey {RIGHT}")


@pytest.fixture(scope="module")
def authority():
    """Return a certificate authority that no client trusts by default."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca(authority, tmp_path_factory) -> Path:
    """Return the authority's certificate as a file."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def door(server, authority, monkeypatch) -> Iterator[FaultProxy]:
    """Yield a proxy that terminates TLS and requires the key, which is in the environment."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    monkeypatch.setenv(server.variable, RIGHT)
    with FaultProxy(server.place, tls=context, admits=server.admits) as proxy:
        yield proxy


def told(error: BaseException) -> str:
    """Return everything that a user could see of an error, causes included."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__cause__)


def failure(address: str) -> StoreError:
    """Return the error of opening and counting."""
    with pytest.raises(StoreError) as caught, closing(open_store(address, "border", SCHEMA, retry=AT_ONCE)) as store:
        store.create()
    return caught.value


def test_the_right_key_works_over_tls(server, door, ca):
    """With the key in the environment and the authority in the address, every operation of a collection succeeds."""
    lab = Lab(opener(server.at(door, f"?ca={ca}")))
    try:
        pair = lab.pair(lab.schema({"dense": DenseField(2)}))
        pair.upsert([Record("a", {"dense": UP}), Record("b", {"dense": UP[::-1].copy()})])
        pair.assert_search_agrees(pair.near(Near("dense", UP)))
        pair.assert_records_agree()
    finally:
        lab.close()


def test_a_wrong_key_is_permanent_and_not_shown(server, door, ca, monkeypatch):
    """A wrong key is tried once; the message says where the key comes from, and no message contains it."""
    monkeypatch.setenv(server.variable, WRONG)
    error = failure(server.at(door, f"?ca={ca}"))

    assert isinstance(error, Permanent)
    assert "401" in str(error)
    assert server.variable in str(error)
    assert WRONG not in told(error)
    assert base64.b64encode(f"admin:{WRONG}".encode()).decode() not in told(error)
    assert len(door.seen) == 1


def test_no_key_is_permanent(server, door, ca, monkeypatch):
    """Without a key, the message says where to set one."""
    monkeypatch.delenv(server.variable)
    error = failure(server.at(door, f"?ca={ca}"))

    assert isinstance(error, Permanent)
    assert server.variable in str(error)


def test_a_certificate_that_nobody_vouches_for_is_refused(server, door):
    """Nothing is sent to a server with an untrusted certificate, so the key is not disclosed."""
    error = failure(server.at(door))

    assert isinstance(error, Permanent)
    assert "TLS failed" in str(error)
    assert "certificate" in str(error)
    assert RIGHT not in told(error)
    assert door.seen == []


def test_tls_to_a_plain_server_is_told(server):
    """The message says that the server may not use TLS."""
    host, port = server.place
    error = failure(f"{parse_address(server.address).name}+https://{host}:{port}")

    assert isinstance(error, Permanent)
    assert "does the server speak TLS" in str(error)


def test_plain_http_to_a_tls_server_is_told(server, door):
    """The message says how to write the address with TLS, and the key was not sent in plain text."""
    error = failure(server.at(door, tls=False))

    assert isinstance(error, Unavailable)
    assert f"write {parse_address(server.address).name}+https://" in str(error)
    assert RIGHT not in told(error)
    assert door.seen == []


@pytest.mark.parametrize("number", ["7.17.29", "1.3.20", "2.11.0", "8.14.3"])
def test_a_server_of_an_unsupported_version_is_told(server, number):
    """No collection is created on a server of an unsupported version; the message names the supported ones."""
    distribution = {"distribution": "opensearch"} if server.address.startswith("opensearch") else {}
    body = json.dumps({"version": {"number": number, **distribution}, "tagline": "You Know, for Search"}).encode()
    if distribution and int(number.split(".")[0]) > 2:
        pytest.skip("newer versions of OpenSearch are not refused")
    with FaultProxy(server.place) as proxy:
        product = (("X-Elastic-Product", "Elasticsearch"),)
        proxy.order(Answer(200, body, headers=product), only=lambda seen: seen.path == "/")
        error = failure(server.at(proxy, tls=False))

    assert isinstance(error, Unsupported)
    assert number in str(error)
    assert ("2.19" if distribution else "8.19") in str(error)


@pytest.mark.engine("opensearch")
def test_the_other_engine_is_told_apart(engines):
    """An Elasticsearch address of an OpenSearch server is an error that says which address to use."""
    url = engines.url("opensearch").removeprefix("http://")
    with pytest.raises(Permanent, match="is not from Elasticsearch"):
        open_store(f"elasticsearch://{url}", "border", SCHEMA, retry=NO_RETRY).create()


@pytest.mark.engine("elasticsearch-9")
def test_the_other_way_round_too(engines):
    """An OpenSearch address of an Elasticsearch server is an error that says which address to use."""
    url = engines.url("elasticsearch-9").removeprefix("http://")
    with pytest.raises(Unsupported, match="write elasticsearch://"):
        open_store(f"opensearch://{url}", "border", SCHEMA, retry=NO_RETRY).create()


@pytest.fixture(scope="module")
def lab(server) -> Iterator[Lab]:
    """Return what opens the stores of the tests below."""
    lab = Lab(opener(server.address))
    yield lab
    lab.close()


@pytest.mark.parametrize("index", [0, 2**31, 2**32 - 2])
def test_sparse_indices_reach_to_the_last(lab, index):
    """All 32-bit indices are distinct from their neighbours."""
    pair = lab.pair(lab.schema({"sparse": SparseField()}))
    near = index - 1 if index else 1
    pair.upsert([Record(str(each), {"sparse": SparseVector.from_mapping({each: 2.0})}) for each in (index, near)])

    (hits,) = pair.assert_search_agrees(pair.near(Near("sparse", SparseVector.from_mapping({index: 1.0}))))
    assert [hit.id for hit in hits] == [str(index)]


def test_what_is_no_sparse_vector_is_told_before_anything_is_sent():
    """Duplicate indices and an index beyond 32 bits are rejected before they reach the server."""
    with pytest.raises(ValueError, match=r"(?i)duplicate|strictly increasing|once"):
        SparseVector(np.array([3, 3], np.uint32), np.array([1, 1], np.float32))
    with pytest.raises(ValueError, match="4294967294"):
        SparseVector.from_mapping({2**32: 1.0})


def _bare(server: Server, schema: Schema) -> Store:
    """Return the adapter without its layers, which reject what the server is to reject."""
    from st_connectors.elasticsearch import PLUGIN as ELASTICSEARCH
    from st_connectors.opensearch import PLUGIN as OPENSEARCH

    address = parse_address(server.address)
    plugin = OPENSEARCH if address.name == "opensearch" else ELASTICSEARCH
    return plugin.connect(address, schema.collection, schema, None)


BAD_RECORDS = {
    "long-id": Record("x" * 513, {"dense": UP}),
    "another-dimension": Record("bad", {"dense": np.ones(3, np.float32)}),
    "infinite": Record(
        "bad", {"sparse": SparseVector.from_mapping({1: 1.0}), "dense": np.array([0, np.inf], np.float32)}
    ),
}


@pytest.mark.parametrize("bad", list(BAD_RECORDS))
def test_the_server_refuses_what_our_wrappers_would(server, lab, bad):
    """The layers are no stricter than the engine: it rejects the same records, with a permanent error."""
    schema = lab.schema({"dense": DenseField(2, Metric.DOT), "sparse": SparseField()})
    lab.new(schema)
    with closing(_bare(server, schema)) as bare:
        try:
            rejected = bare.upsert([Record("good", {"dense": UP}), BAD_RECORDS[bad]])
            assert [(item.position, type(item.error)) for item in rejected] == [(1, Refused)]
        except (Permanent, ValueError) as error:  # of the whole batch, since it cannot even be encoded
            assert len(str(error)) > 20  # noqa: PT017


def test_the_greatest_dimension_is_the_server_s_own(server, lab):
    """The server accepts the declared dimension and refuses one more; the layers refuse it before anything is sent."""
    most = lab.capabilities.max_dimension
    lab.new(lab.schema({"dense": DenseField(most)}))
    over = lab.schema({"dense": DenseField(most + 1)})
    with pytest.raises(Unsupported, match=str(most)):
        lab.open(over).create()
    with (
        closing(_bare(server, over)) as bare,
        pytest.raises(Permanent, match=rf"{most}|{most // 1000},?{most % 1000:03d}"),
    ):
        bare.create()


def test_a_window_that_the_server_has_not_is_refused_by_both(server, lab):
    """A ``limit`` above the maximum never reaches the server, which would refuse it too."""
    schema = lab.schema({"dense": DenseField(2)})
    store = lab.new(schema)
    request = SearchRequest(Near("dense", UP), limit=10_001)
    with pytest.raises(Unsupported, match="10000"):
        store.search([request])
    with closing(_bare(server, schema)) as bare, pytest.raises(Permanent, match=r"10.?000|num_candidates"):
        bare.search([request])


def test_a_collection_that_is_there_with_another_mapping_is_told(server, lab):
    """``create`` raises SchemaMismatch with the difference; opening by name accepts the schema as stored."""
    schema = lab.schema({"dense": DenseField(2)}, filterable={"year": FilterKind.INT})
    lab.new(schema)
    for fields, filterable, what in (
        ({"dense": DenseField(3)}, schema.filterable, "3"),
        ({"dense": DenseField(2, Metric.DOT)}, schema.filterable, "dot"),
        (schema.fields, {"year": FilterKind.KEYWORD}, "year"),
    ):
        other = Schema(schema.collection, fields, filterable)
        with (
            closing(open_store(server.address, schema.collection, other)) as store,
            pytest.raises(SchemaMismatch, match=what),
        ):
            store.create()
    with closing(open_store(server.address, schema.collection)) as store:
        assert store.schema == schema
        assert list(store.scan(parts=Parts.NONE)) == []
