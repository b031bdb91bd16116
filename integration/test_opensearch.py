"""The conformance suite and more on OpenSearch 2.19.

The server is the one at ST_OPENSEARCH_URL, else, where ``ST_REQUIRE`` contains ``opensearch``, a container or an
assembled node. Starting one takes half a minute, the suite two more.
"""

from __future__ import annotations

import json
import threading
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from integration.altering import AlteringByCopy
from integration.engines import Engines
from integration.payloads import PayloadFields
from integration.stores import address_of
from integration.vocabularies import assert_odd_tokens_are_keys_of_their_own, vocabulary_file
from st_connectors import collections
from st_connectors.errors import NotFound, Refused, SchemaMismatch, Unsupported
from st_connectors.filters import Eq, Or, Range
from st_connectors.opensearch import (
    PLUGIN,
    filter_to_opensearch,
    knn_query,
    mapping,
    neural_sparse_query,
    rank_features_query,
    wire,
)
from st_connectors.registry import adopt_store, open_store, parse_address
from st_connectors.schema import (
    DenseField,
    Field,
    FieldKind,
    FilterKind,
    FusionMethod,
    Metric,
    Rrf,
    SparseField,
    TextField,
)
from st_connectors.search import SearchOptions, search
from st_connectors.store import Candidates, Default, Exact, Fuse, Hit, Match, Near, Parts, Record, SearchRequest
from st_connectors.testing import HttpErrors, Lab, Make, StoreConformance, corpus, opener
from st_connectors.testing.dense import Dense
from st_connectors.testing.fidelity import Fidelity
from st_connectors.testing.fusion import Fusing
from st_connectors.testing.scan import Scan
from st_connectors.testing.sparse import Sparse
from st_connectors.testing.text import Text
from st_connectors.vectorise import FieldEncoder
from st_core.vectors import SparseMatrix, SparseVector

opensearchpy = pytest.importorskip("opensearchpy", reason="needs the opensearch extra")


@pytest.fixture(scope="module")
def url(engines: Engines) -> str:
    """Return the server's HTTP address."""
    return engines.url("opensearch")


class TestOpenSearch(StoreConformance):
    """One shard, Lucene's graph, rank features."""

    client_modules = ("opensearchpy",)
    promises = frozenset({"optional_vectors", "persistent", "partial_failure"})

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, url: str) -> Make:
        """Open stores on the server."""
        return opener(address_of("opensearch", url))


class TestOpenSearchFailing(HttpErrors):
    """The shared tests of HTTP failures, with the server behind the fault proxy."""

    key_variable = "ST_OPENSEARCH_PASSWORD"

    @classmethod
    def through(cls, host: str, port: int) -> str:
        """Return the address of the proxy."""
        return f"opensearch://{host}:{port}"

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls, url: str) -> tuple[str, int] | None:
        """Return host and port of the server."""
        parts = urllib.parse.urlsplit(url)
        return None if parts.hostname is None else (parts.hostname, parts.port or 9200)


class TestWithoutNeuralSearch(Sparse):
    """Sparse legs as one clause for each token, as on a server without the plugin."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, url: str) -> Iterator[Make]:
        """Open stores on the server."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("st_connectors._lucene.client.Connection.send_optional", lambda *_: None)
            yield opener(address_of("opensearch", url))


@pytest.fixture(scope="module")
def by_tokens(url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the server with tokens as keys of ``rank_features``."""
    return f"{address_of('opensearch', url)}?vocabulary={vocabulary_file(tmp_path_factory.mktemp('vocabulary'))}"


class TestByTokens(Sparse, Fidelity):
    """The keys of sparse fields are tokens; the store's records have indices."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, by_tokens: str) -> Make:
        """Open stores on the server."""
        return opener(by_tokens)


@pytest.mark.parametrize("neural", [True, False], ids=["neural_sparse", "rank_feature"])
def test_odd_tokens_are_keys_of_their_own(by_tokens: str, neural: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dots, patterns and control characters included, in either form of the query."""
    if not neural:
        monkeypatch.setattr("st_connectors._lucene.client.Connection.send_optional", lambda *_: None)
    assert_odd_tokens_are_keys_of_their_own(by_tokens)


class TestByFields(PayloadFields):
    """Payloads as ordinary fields."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, url: str) -> Make:
        """Open stores on the server."""
        return opener(f"{address_of('opensearch', url)}?payload=fields")


class TestAlteredByCopy(AlteringByCopy):
    """A copy that takes the place of a collection."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, url: str) -> Make:
        """Open stores on the server."""
        return opener(address_of("opensearch", url))


class TestQuantized(Dense):
    """Lucene's scalar quantization, by which the default effort scores."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, url: str) -> Make:
        """Open stores on the server."""
        return opener(f"{address_of('opensearch', url)}?engine=lucene_int8")


class TestShards(Dense, Sparse, Text, Fusing, Scan):
    """Three shards return the same results, although each has its own statistics and order."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, url: str) -> Make:
        """Open stores on the server."""
        return opener(f"{address_of('opensearch', url)}?shards=3&replicas=0")


@pytest.fixture(scope="module")
def lab(url: str) -> Iterator[Lab]:
    """Open stores for the tests below."""
    lab = Lab(opener(address_of("opensearch", url)))
    yield lab
    lab.close()


@pytest.fixture
def client(url: str) -> Iterator[object]:
    """Open OpenSearch's own client, as its users do."""
    with closing(opensearchpy.OpenSearch(url)) as client:
        yield client


@pytest.fixture
def adoptable(client, lab: Lab) -> Iterator[str]:
    """Create and fill an index as another client would."""
    name = f"adoptable-{lab.schema().collection}"
    fields: dict[str, Field] = {"emb": DenseField(3, Metric.DOT), "splade": SparseField(), "title": TextField()}
    body = mapping(fields)
    body["properties"]["year"] = {"type": "long"}
    client.indices.create(index=name, body={"settings": {"index": {"knn": True}}, "mappings": body})
    for row in range(6):
        vectors = {"emb": [1.0, row, -row], "splade": {"7": row + 1.0, "10": 100.0}}
        client.index(
            index=name, id=str(row), body={"title": f"red {row}", "year": 2000 + row, "n": [row, None], **vectors}
        )
    client.indices.refresh(index=name)
    yield name
    client.indices.delete(index=name, ignore_unavailable=True)


@pytest.mark.parametrize("metric", list(Metric))
def test_every_neighbour_of_thousands_is_found(lab: Lab, metric: Metric) -> None:
    """Exact effort is brute force, with and without a filter; the default finds nearly all, with the same scores."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((3000, 32)).astype(np.float32)
    schema = lab.schema({"dense": DenseField(32, metric)}, filterable={"row": FilterKind.INT})
    pair = lab.pair(schema, [Record(f"r{row}", {"dense": each}, {"row": row}) for row, each in enumerate(vectors)])
    legs = [Near("dense", each) for each in rng.standard_normal((20, 32)).astype(np.float32)]

    for where in (None, Range("row", lt=1500)):
        pair.assert_search_agrees(*(pair.near(leg, limit=20, offset=3, where=where) for leg in legs))
        expected = pair.store.search([pair.near(leg, where=where) for leg in legs])
        for effort in (Default(), Candidates(500)):
            got = pair.store.search([pair.near(leg, where=where, effort=effort) for leg in legs])
            common = [
                (mine.score, {hit.id: hit for hit in whole}[mine.id].score)
                for page, whole in zip(got, expected, strict=True)
                for mine in page
                if mine.id in {hit.id for hit in whole}
            ]
            assert len(common) >= 0.98 * 200
            assert np.allclose(*np.transpose(common), rtol=1e-4, atol=1e-4)


def test_sparse_scores_are_those_of_weights_cut_to_nine_bits(lab: Lab) -> None:
    """The declared tolerance is the engine's: with truncated weights, scores agree to a millionth."""
    records = [record for record in corpus.library(lacking=False) if record.vectors]
    schema = lab.schema({"sparse": SparseField()})
    store = lab.new(schema)
    store.upsert([Record(record.id, {"sparse": record.vectors["sparse"]}) for record in records])
    store.refresh()

    for query in corpus.SPARSE_QUERIES.values():
        expected = {record.id: _dot(query, record.vectors["sparse"]) for record in records}
        (hits,) = store.search([SearchRequest(Near("sparse", query), limit=100)])
        assert {hit.id: pytest.approx(hit.score, rel=1e-6) for hit in hits} == {
            name: score for name, score in expected.items() if score > 0
        }


def _dot(query: SparseVector, stored: SparseVector) -> float:
    """Return the inner product with the stored weights truncated to nine significant bits."""
    bits = stored.values.astype(np.float32).view(np.uint32)
    truncated = dict(zip(stored.indices.tolist(), (bits >> 15 << 15).view(np.float32).tolist(), strict=True))
    pairs = zip(query.indices.tolist(), query.values.tolist(), strict=True)
    return sum(weight * truncated.get(index, 0.0) for index, weight in pairs)


def test_sparse_vectors_come_back_to_the_last_bit(lab: Lab) -> None:
    """Only the index truncates them; the source does not."""
    vector = SparseVector.from_mapping({1: 0.1, 2: 1 / 3, 2**32 - 2: 123.456})
    store = lab.new(lab.schema({"sparse": SparseField()}))
    store.upsert([Record("a", {"sparse": vector})])

    assert store.get(["a"])[0].vectors["sparse"] == vector


def test_text_scores_are_the_same_on_any_number_of_shards(url: str) -> None:
    """Word frequencies are those of all shards."""
    scores = []
    for shards in (1, 3):
        lab = Lab(opener(f"{address_of('opensearch', url)}?shards={shards}"))
        store = lab.new(lab.schema({"text": TextField()}))
        store.upsert([Record(name, {}, {"text": text}) for name, text in corpus.SENTENCES.items()])
        store.refresh()
        (hits,) = store.search([SearchRequest(Match("text", "kettle marble zephyr"), limit=50)])
        scores.append({hit.id: pytest.approx(hit.score, rel=1e-5) for hit in hits})
        lab.close()

    assert {name: hit.expected for name, hit in scores[0].items()} == scores[1]


def test_one_bad_record_leaves_the_others(lab: Lab) -> None:
    """The server refuses it, with its own message."""
    schema = lab.schema()
    lab.new(schema)
    store = PLUGIN.connect(parse_address(lab._make.address), schema.collection, schema, None)
    good = np.ones(corpus.DIMENSION, np.float32)
    records = [Record("a", {"dense": good}), Record("b", {"dense": good[:3]}), Record("c", {"dense": good})]
    rejected = store.upsert(records)
    store.refresh()

    assert [(each.position, each.id, type(each.error)) for each in rejected] == [(1, "b", Refused)]
    assert "Vector dimension mismatch. Expected: 8, Given: 3" in str(rejected[0].error)
    assert store.count() == 2
    store.close()


def test_as_many_terms_as_the_cluster_allows(url: str, lab: Lab) -> None:
    """The limit is the cluster's, less clauses reserved for a filter; a search over it is not sent."""
    schema = lab.schema({"sparse": SparseField()}, filterable={"n": FilterKind.INT})
    store = lab.new(schema)
    vector = SparseVector.from_arrays(np.arange(2000), np.ones(2000))
    store.upsert([Record("a", {"sparse": vector}, {"n": 1})])
    store.refresh()
    most = store.capabilities.max_query_terms
    assert most == 1000

    leg = Near("sparse", vector.top(most))
    few = Or(tuple(Range("n", gte=-number) for number in range(10)))
    assert store.search([SearchRequest(leg, where=few)])[0][0].score == pytest.approx(1000, rel=0.004)
    many = Or(tuple(Range("n", gte=-number) for number in range(100)))
    with pytest.raises(Unsupported, match="1000 terms, and this store allows 824"):
        store.search([SearchRequest(leg, where=many)])
    shorter = Near("sparse", vector.top(824))
    assert store.search([SearchRequest(shorter, where=many)])[0][0].score == pytest.approx(824, rel=0.004)
    with pytest.raises(Unsupported, match="1000"):
        store.search([SearchRequest(Near("sparse", vector))])
    put_setting(url, 4096)
    try:
        with closing(open_store(address_of("opensearch", url), schema.collection)) as again:
            assert again.capabilities.max_query_terms == 4072
            assert again.search([SearchRequest(Near("sparse", vector))])[0][0].score == pytest.approx(2000, rel=0.004)
    finally:
        put_setting(url, None)


def put_setting(url: str, count: int | None) -> None:
    """Set the limit of clauses of a search; None resets it."""
    body = json.dumps({"persistent": {"indices.query.bool.max_clause_count": count}}).encode()
    request = urllib.request.Request(
        f"{url}/_cluster/settings", body, {"Content-Type": "application/json"}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def test_native_fusion_is_the_clients_on_one_shard(url: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to ties in a leg, for any segments, filter and page."""
    sent = _sent_bodies(monkeypatch)
    rng = np.random.default_rng(7)
    fields: dict[str, Field] = {"dense": DenseField(16), "sparse": SparseField(), "text": TextField()}
    store = lab.new(lab.schema(fields, filterable={"row": FilterKind.INT}))
    assert store.capabilities.fusion == {FusionMethod.RRF}
    for part in range(4):  # a segment each
        store.upsert([_any_record(rng, row) for row in range(part * 100, part * 100 + 100)])
        store.refresh()
    ties = 0
    for query in range(30):
        vector = rng.standard_normal(16).astype(np.float32)
        legs = (
            Near("dense", vector),
            Near("sparse", _any_sparse(rng, 8)),
            Match("text", f"w{query % 7} w{query % 11}"),
        )
        where = Range("row", lt=300) if query % 2 else None
        rank = Fuse(legs[: 2 + query % 2], 50, Rrf(k=(60, 1, 20)[query % 3]))
        request = SearchRequest(rank, limit=20, offset=query % 5, where=where, parts=Parts.PAYLOAD)
        sent.clear()
        native, alone = (
            store.search([request])[0],
            store.search([replace(request, rank=leg, limit=400, offset=0) for leg in rank.legs]),
        )

        assert "hybrid" in sent[0]
        ties += any(len({hit.score for hit in leg}) < len(leg) for leg in alone)
        _assert_fused(native, alone, rank.method.k, request.offset)
    assert ties > 0, "some legs must have had ties"


def _assert_fused(native: list[Hit], whole: list[list[Hit]], k: int, offset: int) -> None:
    """Assert that scores and page are the reference's for some order of equal hits in each leg, limited to 50."""
    least: dict[str, float] = defaultdict(float)
    most: dict[str, float] = defaultdict(float)
    for leg in whole:
        scores = [hit.score for hit in leg]
        for hit in leg:
            first, last = scores.index(hit.score) + 1, scores.index(hit.score) + scores.count(hit.score)
            most[hit.id] += 1 / (k + first) if first <= 50 else 0.0
            least[hit.id] += 1 / (k + last) if last <= 50 else 0.0
    best, worst = (sorted(bound.values(), reverse=True) for bound in (most, least))
    assert len(native) == 20
    assert [hit.score for hit in native] == sorted((hit.score for hit in native), reverse=True)
    for at, hit in enumerate(native, offset):
        assert least[hit.id] - 1e-6 <= hit.score <= most[hit.id] + 1e-6
        assert worst[at] - 1e-6 <= hit.score <= best[at] + 1e-6
        assert hit.payload["row"] == int(hit.id)


def _any_record(rng: np.random.Generator, row: int) -> Record:
    vectors = {"dense": rng.standard_normal(16).astype(np.float32), "sparse": _any_sparse(rng, 6)}
    return Record(str(row), vectors, {"row": row, "text": f"w{row % 7} w{row % 11}"})


def _any_sparse(rng: np.random.Generator, terms: int) -> SparseVector:
    return SparseVector.from_arrays(rng.choice(60, terms, replace=False), rng.uniform(0.1, 4.0, terms))


def _sent_bodies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which every later request adds its body."""
    sent: list[str] = []
    perform = opensearchpy.Urllib3HttpConnection.perform_request

    def spy(self, method, url, params=None, body=None, **options):
        sent.append((body or b"").decode(errors="replace"))  # documents are not JSON
        return perform(self, method, url, params, body, **options)

    monkeypatch.setattr(opensearchpy.Urllib3HttpConnection, "perform_request", spy)
    return sent


def test_no_native_fusion_where_it_would_differ(url: str, lab: Lab, client) -> None:
    """Three shards rank for themselves, so that three hits are first; weights and six legs are not supported."""
    schema = lab.schema({"dense": DenseField(2, Metric.DOT)})
    with closing(open_store(f"{address_of('opensearch', url)}?shards=3", schema.collection, schema)) as store:
        store.create()
        assert store.capabilities.fusion == frozenset()
        store.upsert([Record(str(row), {"dense": np.array([row, 0.0], np.float32)}) for row in range(40)])
        store.refresh()
        leg = knn_query("vector.dense", [1.0, 0.0], 40)
        body = {"query": {"hybrid": {"queries": [leg, leg]}}, "size": 40, "search_pipeline": wire.rrf_pipeline(60)}
        scores = [hit["_score"] for hit in client.search(index=schema.collection, body=body)["hits"]["hits"]]
        assert scores.count(scores[0]) == 3
        store.drop()

    (one, six) = (Near("dense", corpus.QUERIES[0]),) * 2, (Near("dense", corpus.QUERIES[0]),) * 6
    pair = lab.library()
    pair.assert_search_agrees(*(pair.near(Fuse(legs, 20)) for legs in (one, six)))
    pair.assert_search_agrees(pair.near(Fuse(one, 20, Rrf(weights=(1.0, 2.0)))))


def test_eight_threads_create_one_collection(lab: Lab) -> None:
    """All but the first open the existing one."""
    schema = lab.schema()
    stores = [lab.open(schema) for _ in range(8)]
    failures: list[BaseException] = []

    def create(store) -> None:
        try:
            store.create()
        except BaseException as error:  # noqa: BLE001  # the assertion reports it
            failures.append(error)

    threads = [threading.Thread(target=create, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stores[0].count() == 0


def test_our_collections_are_listed_and_others_are_not_opened(url: str, lab: Lab, adoptable: str) -> None:
    """Other indices are only for ``adopt``."""
    schema = lab.schema()
    lab.new(schema)

    assert schema.collection in collections(address_of("opensearch", url))
    assert adoptable not in collections(address_of("opensearch", url))
    with pytest.raises(SchemaMismatch, match="adopt"):
        open_store(address_of("opensearch", url), adoptable)
    with pytest.raises(SchemaMismatch, match="adopt"):
        lab.open(replace(schema, collection=adoptable)).create()


def test_an_index_can_be_adopted(url: str, client, adoptable: str) -> None:
    """Ids, payloads and vectors are those of its documents; a write does not create a deleted index."""
    with closing(adopt_store(address_of("opensearch", url), adoptable)) as store:
        query = SparseVector.from_mapping({7: 2.0})
        first, second, third = store.search(
            [
                SearchRequest(Near("emb", np.array([1.0, 1.0, 0.0], np.float32)), limit=2),
                SearchRequest(Near("splade", query), limit=2, where=Eq("year", 2003)),
                SearchRequest(Match("title", "5")),
            ]
        )
        assert [(hit.id, round(hit.score, 3)) for hit in first] == [("5", 6.0), ("4", 5.0)]
        assert [(hit.id, hit.score) for hit in second] == [("3", 8.0)]
        assert second[0].payload == {"title": "red 3", "year": 2003, "n": [3, None]}
        assert [hit.id for hit in third] == ["5"]

        vectors = {"emb": np.array([0.0, 9.0, 9.0], np.float32), "splade": SparseVector.from_mapping({7: 0.5})}
        assert store.upsert([Record("new", vectors, {"title": "blue", "year": 1999, "n": []})]) == []
        store.refresh()
        assert store.count() == 7
        assert [record.id for record in store.scan(where=Eq("year", 1999), parts=Parts.NONE)] == ["new"]
        assert store.get(["new"])[0].vectors["splade"] == vectors["splade"]
        assert client.get(index=adoptable, id="new")["_source"]["splade"] == {"7": 0.5}

        client.indices.delete(index=adoptable)
        with pytest.raises(NotFound):
            store.upsert([Record("again", vectors, {})])
        assert not client.indices.exists(index=adoptable)


@pytest.mark.parametrize("weights", [{7: 2.0, 10: 0.5}, {7: 1000.0, 10: 0.001}], ids=["light", "heavy"])
def test_conversions_with_the_official_client(client, adoptable: str, weights: dict[int, float]) -> None:
    """Both forms of a sparse query give the inner product."""
    where = filter_to_opensearch(Range("year", gte=2003), {"year": FilterKind.INT})
    for query in (neural_sparse_query("splade", weights), rank_features_query("splade", weights)):
        body = {"query": {"bool": {"must": [query], "filter": [where]}}}
        scores = {hit["_id"]: hit["_score"] for hit in client.search(index=adoptable, body=body)["hits"]["hits"]}
        assert scores == {
            str(row): pytest.approx(weights[7] * (row + 1) + weights[10] * 100, rel=0.004) for row in (3, 4, 5)
        }

    scores = client.search(
        index=adoptable, body={"query": knn_query("emb", [0.0, 1.0, 0.0], 2, where=where), "size": 2}
    )["hits"]["hits"]
    assert [(hit["_id"], hit["_score"]) for hit in scores] == [("5", 6.0), ("4", 5.0)]


def test_exact_and_default_effort_score_alike(lab: Lab) -> None:
    """A script scores the first, the graph the second."""
    for metric in Metric:
        pair = lab.metric(metric)
        leg = Near("dense", corpus.QUERIES[2])
        exact, default = (pair.store.search([SearchRequest(leg, effort=each)])[0] for each in (Exact(), Default()))
        assert [hit.id for hit in exact] == [hit.id for hit in default]
        assert [hit.score for hit in exact] == pytest.approx([hit.score for hit in default], rel=1e-6)


def test_a_language_analyser_finds_other_forms_of_a_word(url: str) -> None:
    """``analyzer=english`` reduces words of texts and queries to their stems; the standard analyser does not."""
    fields: dict[str, Field] = {"text": TextField()}
    for options, found in (("?analyzer=english", ["a"]), ("", [])):
        lab = Lab(opener(f"{address_of('opensearch', url)}{options}"))
        with closing(lab):
            store = lab.new(lab.schema(fields))
            store.upsert([Record("a", {}, {"text": "She was fishing in the rivers"})])
            store.refresh()
            hits = store.search([SearchRequest(Match("text", "river fished"))])[0]
            assert [hit.id for hit in hits] == found


def test_a_query_of_1025_words_and_one_of_2000_terms_are_searched_in_part(lab: Lab) -> None:
    """By search, which says what it left out; the engine itself refuses more clauses than 1,024."""
    store = lab.new(lab.schema({"text": TextField(), "sparse": SparseField()}))
    vector = SparseVector.from_arrays(np.arange(2000), np.arange(2000) + 1)
    store.upsert([Record("a", {"sparse": vector}, {"text": "kettle w1"})])
    store.refresh()

    class Terms:
        """Returns one vector for every query."""

        name = "terms"

        def encode_query(self, inputs: list[str], /) -> SparseMatrix:
            return SparseMatrix.from_rows([vector for _ in inputs], 2000)

        encode_document = encode_query

    words = " ".join(["kettle", *(f"absent{at}" for at in range(1024))])
    [result] = search(store, [FieldEncoder("sparse", FieldKind.SPARSE, Terms())], [words], SearchOptions())
    assert {leg.field for leg in result[0].legs} == {"text", "sparse"}
    assert [note.partition(",")[0] for note in result.notes] == [
        "field 'text': 1",
        "field 'sparse': the 1",
    ]
    scores = {leg.field: leg.score for leg in result[0].legs}
    heaviest = np.arange(1001, 2001, dtype=float)
    assert scores["sparse"] == pytest.approx(float(heaviest @ heaviest), rel=0.004)
