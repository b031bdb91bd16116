"""A store that notes what reaches it through the guard."""

from __future__ import annotations

import uuid
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from st_connectors.errors import Refused
from st_connectors.layers.guard import guarded
from st_connectors.memory import MemoryStore
from st_connectors.schema import DenseField, FilterKind, Metric, Schema, SparseField, TextField
from st_connectors.store import Near, Parts, SearchRequest
from st_core.vectors import SparseVector

FIELDS = {
    "cosine": DenseField(3),
    "dot": DenseField(3, Metric.DOT),
    "sparse": SparseField(),
    "body": TextField("text"),
}
KINDS = {kind[0]: FilterKind(kind) for kind in ("keyword", "int", "float", "bool", "date")}
SOME = SparseVector.from_mapping({1: 1.0})
UNIT = np.array([1.0, 0.0, 0.0], np.float32)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=10,
)
"""Payloads of every kind."""


class Watched(MemoryStore):
    """Notes every call, with other capabilities and failures where a test asks for them."""

    def __init__(self, fields=None, script=(), **capabilities):
        super().__init__(uuid.uuid4().hex, Schema("c", FIELDS if fields is None else fields, KINDS))
        super().create()
        self._capabilities = replace(self._capabilities, **capabilities)
        self.calls = []
        self.script = list(script)

    def create(self):
        self.calls.append("create")
        super().create()

    def upsert(self, records):
        self.calls.append(records)
        planned = self.script.pop(0) if self.script else []
        if isinstance(planned, Exception):
            raise planned
        super().upsert(records)
        return planned

    def delete(self, ids):
        self.calls.append(ids)
        super().delete(ids)

    def get(self, ids, *, parts=Parts.ALL):
        self.calls.append(ids)
        return super().get(ids, parts=parts)

    def search(self, requests):
        self.calls.append(requests)
        return [[] for _ in requests]

    def scan(self, *, where=None, parts=Parts.ALL, batch=1000):
        self.calls.append((where, batch))
        return super().scan(where=where, parts=parts, batch=batch)

    def count(self, where=None):
        self.calls.append(where)
        return super().count(where)


def sent(leg=None, *, where=None, **options):
    """What reaches the store of one search."""
    store = Watched()
    guarded(store).search([SearchRequest(leg or Near("sparse", SOME), where=where, **options)])
    return store.calls[0][0]


def stored(record, store=None):
    """What reaches the store of one record."""
    store = store or Watched()
    assert guarded(store).upsert([record]) == []
    return store.calls[0][0]


def refusal(record, **capabilities):
    """The message with which one record is refused; the store hears nothing of it."""
    store = Watched(**capabilities)
    (rejected,) = guarded(store, name="fake").upsert([record])
    assert store.calls == []
    assert (rejected.position, rejected.id, type(rejected.error)) == (0, record.id, Refused)
    assert str(rejected.error).startswith("fake upsert: ")
    return rejected.error.message
