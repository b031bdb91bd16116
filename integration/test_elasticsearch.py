"""The conformance suite and more on Elasticsearch 9 and 8.

They run where ST_ELASTICSEARCH_URL is the address of a server, or ST_REQUIRE contains the engine.

The engines are ``elasticsearch-9`` and ``elasticsearch-8``. elasticsearch-py 9 cannot talk to a server 8:
``make integration`` runs this module again in an environment with ``elasticsearch<9``, which talks to both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from integration.altering import AlteringByCopy
from integration.payloads import PayloadFields
from integration.stores import address_of
from integration.vocabularies import assert_odd_tokens_are_keys_of_their_own, vocabulary_file
from st_connectors import collections
from st_connectors.elasticsearch import mapping
from st_connectors.errors import NotFound, Refused, SchemaMismatch, Unsupported
from st_connectors.filters import Eq
from st_connectors.registry import adopt_store, open_store, parse_address
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField
from st_connectors.store import Candidates, Default, Near, Parts, Record, SearchRequest
from st_connectors.testing import HttpErrors, StoreConformance, corpus, opener
from st_connectors.testing.base import Lab
from st_connectors.testing.fidelity import Fidelity
from st_connectors.testing.scan import Scan
from st_connectors.testing.sparse import Sparse
from st_connectors.testing.text import Text
from st_core.vectors import SparseVector

elasticsearch = pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")


@pytest.fixture(scope="module")
def nine(engines) -> str:
    """Return the address of Elasticsearch 9."""
    return address_of("elasticsearch-9", engines.url("elasticsearch-9"))


@pytest.fixture(scope="module")
def eight(engines) -> str:
    """Return the address of Elasticsearch 8."""
    return address_of("elasticsearch-8", engines.url("elasticsearch-8"))


class _Elasticsearch(StoreConformance):
    client_modules = ("elasticsearch", "elastic_transport")
    promises = frozenset({"persistent", "optional_vectors", "partial_failure"})


@pytest.mark.engine("elasticsearch-9")
class TestNine(_Elasticsearch):
    """Sparse vectors as ``sparse_vector``, dense ones in a graph of full vectors."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, nine):
        """Open stores on the server."""
        return opener(nine)


@pytest.mark.client_at_most(8)
@pytest.mark.engine("elasticsearch-8")
class TestEight(_Elasticsearch):
    """The oldest supported major."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, eight):
        """Open stores on the server."""
        return opener(eight)


@pytest.mark.engine("elasticsearch-9")
class TestNineFailing(HttpErrors):
    """The shared tests of HTTP failures, with the server behind the fault proxy."""

    key_variable = "ST_ELASTICSEARCH_API_KEY"

    @classmethod
    def through(cls, host, port):
        """Return the address of the proxy."""
        return f"elasticsearch://{host}:{port}"

    @pytest.fixture(scope="class")
    @classmethod
    def upstream(cls, nine):
        """Return host and port of the server."""
        address = parse_address(nine)
        return address.host, address.port


@pytest.mark.engine("elasticsearch-9")
class TestNineOnThreeShards(Text, Scan):
    """Several shards: word frequencies over all of them, and scans without a gap."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, nine):
        """Open stores on the server."""
        return opener(f"{nine}?shards=3")


@pytest.mark.engine("elasticsearch-9")
class TestNineByFields(PayloadFields):
    """Payloads as ordinary fields."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, nine):
        """Open stores on the server."""
        return opener(f"{nine}?payload=fields")


@pytest.mark.engine("elasticsearch-9")
class TestNineAlteredByCopy(AlteringByCopy):
    """A copy that takes the place of a collection."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, nine):
        """Open stores on the server."""
        return opener(nine)


@pytest.fixture(scope="module")
def nine_by_tokens(nine, tmp_path_factory) -> str:
    """Return Elasticsearch 9 with tokens as keys of ``sparse_vector``; the assembled node has no ``rank_features``."""
    return f"{nine}?vocabulary={vocabulary_file(tmp_path_factory.mktemp('vocabulary'))}"


@pytest.mark.engine("elasticsearch-9")
class TestNineByTokens(Sparse, Fidelity):
    """The keys of sparse fields are tokens; the store's records have indices."""

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, nine_by_tokens):
        """Open stores on the server."""
        return opener(nine_by_tokens)


@pytest.mark.engine("elasticsearch-9")
def test_odd_tokens_are_keys_of_their_own(nine_by_tokens):
    """Dots, patterns and control characters included."""
    assert_odd_tokens_are_keys_of_their_own(nine_by_tokens)


class _More:
    """Tests of what only Elasticsearch has."""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls):
        raise NotImplementedError

    @pytest.fixture
    def lab(self, place):
        lab = Lab(opener(place))
        yield lab
        lab.close()

    @pytest.mark.parametrize("metric", list(Metric))
    @pytest.mark.parametrize(
        "kind", ["hnsw", "flat", "int8_hnsw", "int4_hnsw", "bbq_hnsw", "int8_flat", "int4_flat", "bbq_flat"]
    )
    def test_every_dense_index_finds_the_nearest_at_exact_effort(self, place, kind, metric):
        """Quantized vectors are rescored by the full ones, so that scores are exact for every index."""
        lab = Lab(opener(f"{place}?dense_index={kind}"))
        rng = np.random.default_rng(3)
        rows = rng.standard_normal((300, 64)).astype(np.float32)
        try:
            pair = lab.pair(lab.schema({"dense": DenseField(64, metric)}))
            pair.upsert([Record(f"r{row:03d}", {"dense": vector}) for row, vector in enumerate(rows)])

            pair.assert_search_agrees(*(pair.near(Near("dense", query)) for query in rows[:5] + np.float32(0.3)))
            pair.assert_records_agree()
        finally:
            lab.close()

    @pytest.mark.parametrize("kind", ["hnsw", "int8_hnsw", "bbq_hnsw"])
    def test_default_effort_finds_nearly_all(self, place, kind):
        """Recall at ten is 0.9 at default effort and 0.98 with 1,000 candidates, and the scores of hits are exact."""
        lab = Lab(opener(f"{place}?dense_index={kind}"))
        rng = np.random.default_rng(5)
        rows = rng.standard_normal((2_000, 96)).astype(np.float32)
        try:
            pair = lab.pair(lab.schema({"dense": DenseField(96)}))
            pair.upsert([Record(f"r{row:04d}", {"dense": vector}) for row, vector in enumerate(rows)])
            queries = rows[:50] + rng.standard_normal((50, 96)).astype(np.float32)
            for effort, least in ((Default(), 0.9), (Candidates(1_000), 0.98)):
                requests = [SearchRequest(Near("dense", query), effort=effort) for query in queries]
                got, expected = pair.store.search(requests), pair.oracle.search(requests)
                truth = [{hit.id: hit.score for hit in hits} for hits in expected]
                common_hits = [[hit for hit in mine if hit.id in true] for mine, true in zip(got, truth, strict=True)]
                for common, true in zip(common_hits, truth, strict=True):
                    assert [hit.score for hit in common] == pytest.approx([true[hit.id] for hit in common], abs=1e-5)
                assert sum(map(len, common_hits)) >= least * 500, (kind, effort)
        finally:
            lab.close()

    def test_vectors_come_back_bit_for_bit(self, lab):
        """Dense and sparse vectors are read as they were written."""
        store = lab.new(lab.schema({"dense": DenseField(3, Metric.DOT), "sparse": SparseField()}))
        dense, sparse = np.array([0.1, -1 / 3, 1e-7], np.float32), SparseVector.from_mapping({7: 0.1, 30_521: 1 / 3})
        store.upsert([Record("a", {"dense": dense, "sparse": sparse})])
        store.refresh()

        for record in (store.get(["a"])[0], *store.scan()):
            assert np.array_equal(record.vectors["dense"], dense)
            assert record.vectors["sparse"] == sparse

    def test_sparse_scores_are_those_of_weights_cut_to_nine_bits(self, lab):
        """The score is the inner product with weights truncated to 17 bits, which the declared precision covers."""
        store = lab.new(lab.schema({"sparse": SparseField()}))
        rng = np.random.default_rng(9)
        vectors = [
            SparseVector.from_arrays(rng.choice(500, 60, replace=False), rng.uniform(0.01, 4.0, 60)) for _ in range(40)
        ]
        store.upsert([Record(f"r{row}", {"sparse": vector}) for row, vector in enumerate(vectors)])
        store.refresh()
        query = SparseVector.from_arrays(rng.choice(500, 30, replace=False), rng.uniform(0.01, 4.0, 30))

        (hits,) = store.search([SearchRequest(Near("sparse", query), limit=40)])
        cut = [replace(each, values=(each.values.view(np.uint32) >> 15 << 15).view(np.float32)) for each in vectors]
        expected = {f"r{row}": query.dot(vector) for row, vector in enumerate(cut) if query.dot(vector)}
        assert {hit.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-6)

    def test_one_bad_record_leaves_the_others(self, place, lab):
        """A refused record has its position and the server's reason, and the others are stored."""
        schema = lab.schema({"dense": DenseField(3)})
        lab.new(schema)
        bare = _adapter(place, schema)
        good = np.array([1, 0, 0], np.float32)

        rejected = bare.upsert(
            [Record("a", {"dense": good}), Record("b", {"dense": np.ones(4, np.float32)}), Record("c", {"dense": good})]
        )
        bare.refresh()
        assert [(item.position, item.id) for item in rejected] == [(1, "b")]
        assert isinstance(rejected[0].error, Refused)
        assert "dimensions" in str(rejected[0].error)
        assert bare.count() == 2

    def test_a_collection_keeps_its_form(self, place):
        """The options of its creation stay in force; an address with others is refused."""
        lab = Lab(opener(f"{place}?dense_index=flat"))
        try:
            schema = lab.schema()
            lab.new(schema)
            assert lab.open(schema.collection).capabilities.fields["dense"].exact
            plain = open_store(place, schema.collection, schema)
            plain.create()
            assert plain.capabilities.fields["dense"].exact
            with pytest.raises(SchemaMismatch, match="flat"):
                open_store(f"{place}?dense_index=int8_hnsw", schema.collection, schema).create()
        finally:
            lab.close()

    def test_only_our_collections_are_listed(self, place, lab):
        """Other indices are left out."""
        store = lab.new()
        _client(place).indices.create(index="not-ours")
        try:
            assert store.schema.collection in collections(place)
            assert "not-ours" not in collections(place)
        finally:
            _client(place).indices.delete(index="not-ours")

    def test_an_index_that_we_did_not_create_is_not_changed(self, place):
        """It is neither opened, created nor dropped; the message says how to adopt it."""
        client = _client(place)
        client.indices.create(index="adoptable")
        schema = Schema("adoptable", {"dense": DenseField(3)})
        try:
            for call in (
                lambda: open_store(place, "adoptable"),
                lambda: open_store(place, "adoptable", schema).create(),
                lambda: open_store(place, "adoptable", schema).drop(),
            ):
                with pytest.raises(SchemaMismatch, match="adopt"):
                    call()
        finally:
            client.indices.delete(index="adoptable")

    def test_an_index_can_be_adopted(self, place):
        """It is searched, filtered and filled by the fields of its mapping, not dropped, and not created by a write."""
        client = _client(place)
        fields = {"vec": DenseField(3), "splade": SparseField()}
        properties = {**mapping(fields)["properties"], "year": {"type": "integer"}, "title": {"type": "text"}}
        client.indices.create(index="library", mappings={"properties": properties})
        client.index(
            index="library",
            id="1",
            document={"vec": [0.6, 0.8, 0.0], "splade": {"7": 2.0}, "year": 1999, "title": "old tea"},
            refresh=True,
        )
        try:
            store = adopt_store(place, "library")
            assert store.schema.filterable == {"year": FilterKind.INT}
            store.upsert([Record("2", {"vec": np.array([1, 0, 0], np.float32)}, {"year": 2001, "title": "new tea"})])
            store.refresh()

            (dense, sparse) = store.search(
                [
                    SearchRequest(Near("vec", np.array([1, 0, 0], np.float32))),
                    SearchRequest(Near("splade", SparseVector.from_mapping({7: 1.5})), where=Eq("year", 1999)),
                ]
            )
            assert [(hit.id, round(hit.score, 6)) for hit in dense] == [("2", 1.0), ("1", 0.6)]
            assert [(hit.id, hit.score) for hit in sparse] == [("1", 3.0)]
            assert dense[1].payload == {"year": 1999, "title": "old tea"}
            (first,) = store.get(["1"], parts=Parts.ALL)
            assert first.payload == {"year": 1999, "title": "old tea"}
            assert first.vectors["splade"] == SparseVector.from_mapping({7: 2.0})
            with pytest.raises(Unsupported):
                store.drop()

            client.indices.delete(index="library")
            for write in (lambda: store.upsert([Record("3", {}, {"year": 3})]), lambda: store.delete(["1"])):
                with pytest.raises(NotFound):
                    write()
            assert not client.indices.exists(index="library")
        finally:
            client.indices.delete(index="library", ignore_unavailable=True)

    def test_a_missing_index_cannot_be_adopted(self, place):
        """None is created."""
        with pytest.raises(NotFound):
            adopt_store(place, "nowhere")

    def test_writes_to_a_dropped_collection_create_nothing(self, place, lab):
        """Elasticsearch creates an index for a write to an unknown name; through the alias it does not."""
        store = lab.new()
        store.drop()
        with pytest.raises(NotFound):
            store.upsert([Record("a", {"dense": np.ones(corpus.DIMENSION, np.float32)})])
        assert not _client(place).indices.exists(index=f"{store.schema.collection}*", allow_no_indices=False)


@pytest.mark.engine("elasticsearch-9")
class TestMoreOfNine(_More):
    """On Elasticsearch 9."""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, nine):
        """Return the address."""
        return nine


@pytest.mark.client_at_most(8)
@pytest.mark.engine("elasticsearch-8")
class TestMoreOfEight(_More):
    """On Elasticsearch 8."""

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, eight):
        """Return the address."""
        return eight


@pytest.mark.client_at_least(9)
@pytest.mark.engine("elasticsearch-8")
def test_a_client_newer_than_the_server_is_unsupported(eight):
    """The message names both versions and what to install."""
    with pytest.raises(Unsupported, match=r"newer than the server .* pip install 'elasticsearch<9'"):
        open_store(eight, "anything")


def _adapter(place, schema):
    """Return the store without layers, which would refuse invalid records before the server does."""
    from st_connectors.elasticsearch import PLUGIN

    return PLUGIN.connect(parse_address(place), schema.collection, schema, None)


def _client(place):
    address = parse_address(place)
    return elasticsearch.Elasticsearch(f"http://{address.host}:{address.port}")
