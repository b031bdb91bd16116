"""Test that ids, payloads and vectors are returned exactly as they were stored."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from st_connectors.schema import DenseField, Field, Metric, SparseField
from st_connectors.store import Hit, Near, Parts, Record, SearchRequest, Vector
from st_connectors.testing import corpus
from st_connectors.testing.agree import same_json, same_vector
from st_connectors.testing.base import Group, Lab, Pair

__all__ = ["Fidelity"]


class Fidelity(Group):
    """Tests that stored values are returned unchanged."""

    payloads_apart: frozenset[str] = frozenset()
    """Names of payloads that are stored in another collection, for stores in which a key has the same type in all
    records."""

    def _ids(self, lab: Lab) -> Pair:
        vectors = corpus.dense_vectors(len(corpus.IDS), seed=3)
        records = [
            Record(value, {"dense": vectors[row]}, {"is": name}) for row, (name, value) in enumerate(corpus.IDS.items())
        ]
        return lab.keep("ids", lambda: lab.pair(records=records))

    def _payloads(self, lab: Lab, name: str) -> Pair:
        """Return the collection of the payload ``name``."""
        is_apart = name in self.payloads_apart
        vectors = corpus.dense_vectors(len(corpus.PAYLOADS), seed=5)
        records = [
            Record(each, {"dense": vectors[row]}, copy.deepcopy(dict(payload)))
            for row, (each, payload) in enumerate(corpus.PAYLOADS.items())
            if (each in self.payloads_apart) == is_apart
        ]
        return lab.keep(("payloads", is_apart), lambda: lab.pair(lab.schema(filterable=corpus.FILTERABLE), records))

    def test_ids_are_all_apart(self, lab: Lab) -> None:
        """Different ids stay different, and ``scan`` returns each of them exactly."""
        self._ids(lab).assert_records_agree()

    @pytest.mark.parametrize("name", list(corpus.IDS))
    def test_ids_come_back_as_given(self, lab: Lab, name: str) -> None:
        """``get`` and ``search`` return an id exactly as it was stored."""
        pair, wanted = self._ids(lab), corpus.IDS[name]

        (record,) = pair.store.get([wanted])
        assert (record.id, record.payload["is"]) == (wanted, name)
        hit = pair.store.search([pair.near(Near("dense", record.vectors["dense"]), limit=1)])[0][0]
        assert (hit.id, hit.payload["is"]) == (wanted, name)

    def test_ids_of_every_kind_can_be_deleted(self, lab: Lab) -> None:
        """Deleting an id keeps all ids that merely resemble it."""
        vectors = corpus.dense_vectors(len(corpus.IDS))
        pair = lab.pair(
            records=[Record(value, {"dense": vectors[row]}) for row, value in enumerate(corpus.IDS.values())]
        )
        pair.delete(list(corpus.IDS.values())[::2])
        pair.assert_records_agree()

    @pytest.mark.parametrize("name", list(corpus.PAYLOADS))
    def test_payloads_come_back_as_given(self, lab: Lab, name: str) -> None:
        """Payloads are exact JSON: order of keys, 1 distinct from 1.0 and true, null and empty values, big integers."""
        pair, wanted = self._payloads(lab, name), corpus.PAYLOADS[name]

        (record,) = pair.store.get([name])
        assert same_json(dict(record.payload), wanted), f"expected payload {wanted}, got {record.payload}"
        hit = pair.store.search([pair.near(Near("dense", record.vectors["dense"]), limit=1)])[0][0]
        assert hit.id == name
        assert same_json(dict(hit.payload), wanted), f"expected payload {wanted}, got {hit.payload}"

    @pytest.mark.parametrize("metric", list(Metric))
    def test_dense_vectors_come_back(self, lab: Lab, metric: str) -> None:
        """Dense vectors are float32 and equal to the stored ones; those of cosine fields are unit vectors."""
        pair = lab.metric(Metric(metric))
        pair.assert_records_agree()
        record = pair.store.get(["v05"])[0]
        stored = corpus.dense_vectors(corpus.SIZE)[5]
        wanted = stored / np.linalg.norm(stored) if metric == Metric.COSINE else stored

        assert same_vector(record.vectors["dense"], wanted.astype(np.float32), pair.rtol("dense"))

    def test_sparse_vectors_come_back(self, lab: Lab) -> None:
        """Sparse vectors keep every index up to the top of the vocabulary and every weight, from 1 to 1,000 terms."""
        lab.need(lab.capabilities.sparse, "sparse vectors")
        pair = lab.library()
        ids = [record.id for record in corpus.library(lacking=False)]
        stored = corpus.sparse_vectors(corpus.SIZE)
        got = {record.id: record.vectors.get("sparse") for record in pair.store.get(ids)}
        lacking = {
            record.id
            for record in corpus.library(lacking=lab.capabilities.optional_vectors)
            if "sparse" not in record.vectors
        }

        for row, name in enumerate(ids):
            vector = got[name]
            if name in lacking:
                assert vector is None
            else:
                assert vector is not None
                assert same_vector(vector, stored[row], pair.rtol("sparse"))

    def test_parts_are_what_was_asked(self, lab: Lab) -> None:
        """``get``, ``scan`` and ``search`` return payload and vectors only on request, and then completely."""
        pair = lab.library()
        whole = {record.id: record for record in pair.oracle.scan()}
        for parts in (Parts.NONE, Parts.PAYLOAD, Parts.VECTORS, Parts.ALL):
            request = SearchRequest(Near("dense", corpus.QUERIES[0]), limit=5, parts=parts, effort=pair.exact())
            (hits,) = pair.store.search([request])
            items: list[Record | Hit] = [
                *pair.store.get(["book-003"], parts=parts),
                *pair.store.scan(parts=parts),
                *hits,
            ]
            for item in items:
                payload = whole[item.id].payload if Parts.PAYLOAD in parts else {}
                vectors = whole[item.id].vectors if Parts.VECTORS in parts else {}
                assert same_json(dict(item.payload), dict(payload))
                assert set(item.vectors) == set(vectors)
                for name, vector in vectors.items():
                    assert same_vector(item.vectors[name], vector, pair.rtol(name))

    def test_several_fields_are_not_mixed_up(self, lab: Lab) -> None:
        """Two dense and two sparse fields of one record are searched and returned separately."""
        fields: dict[str, Field] = {"one": DenseField(3), "two": DenseField(5, Metric.COSINE)}
        if lab.capabilities.sparse:
            fields |= {"low": SparseField(), "high": SparseField()}
        rng = np.random.default_rng(17)
        sparse = corpus.sparse_vectors(30)
        records = []
        for row in range(15):
            vectors: dict[str, Vector] = {
                "one": rng.standard_normal(3).astype(np.float32),
                "two": rng.standard_normal(5).astype(np.float32),
                "low": sparse[row],
                "high": sparse[29 - row],
            }
            records.append(Record(f"r{row}", {name: vectors[name] for name in fields}))
        pair = lab.pair(lab.schema(fields), records)

        pair.assert_records_agree()
        pair.assert_search_agrees(
            pair.near(Near("one", np.array([1, -2, 3], np.float32))),
            pair.near(Near("two", np.array([1, -2, 3, 0, 1], np.float32))),
        )
        if lab.capabilities.sparse:
            query = corpus.SPARSE_QUERIES["few-terms"]
            pair.assert_search_agrees(pair.near(Near("low", query)), pair.near(Near("high", query)))
