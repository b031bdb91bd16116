"""What every group of the suite stands on: opening stores, filling the oracle beside them, and known gaps."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from st_connectors.errors import NotFound
from st_connectors.filters import Filter
from st_connectors.plugin import Plugin
from st_connectors.registry import collections, open_store, parse_address, plugins
from st_connectors.schema import DenseField, Field, Metric, Quantization, Schema, SparseField, TextField, kind_of
from st_connectors.store import (
    Capabilities,
    Default,
    Effort,
    Exact,
    Fuse,
    Hit,
    Leg,
    Parts,
    Precision,
    Record,
    SearchRequest,
    Store,
)
from st_connectors.testing import corpus
from st_connectors.testing.agree import assert_hits_agree, assert_records_agree
from st_connectors.testing.opening import Make, Opener, opener
from st_connectors.testing.reference import fused

__all__ = ["Gap", "Group", "Lab", "Make", "Pair", "opener"]

EVERYTHING = 10_000
"""More than any corpus here holds."""


def plugin_of(make: Make) -> Plugin:
    """The plugin whose stores are opened; skips the test where they are not opened by an address."""
    if not isinstance(make, Opener):
        pytest.skip("the stores are not opened by an address")
    return plugins()[parse_address(make.address).name]


def listed(make: Make) -> list[str]:
    """The names of the collections where stores are opened; skips the test where they are not opened by an address."""
    if not isinstance(make, Opener):
        pytest.skip("the stores are not opened by an address")
    return collections(make.address, client=make.client)


@dataclass(frozen=True, slots=True)
class Gap:
    """A test that a store is known to fail: the store's own words for why, and what the test then raises."""

    reason: str
    raises: type[BaseException] = AssertionError


@dataclass(frozen=True, slots=True)
class Pair:
    """A store and the brute-force oracle that was given the same records."""

    store: Store
    oracle: Store

    def upsert(self, records: Sequence[Record]) -> None:
        """Put records into both and make them visible; none may be refused."""
        assert self.store.upsert(records) == []
        assert self.oracle.upsert(records) == []
        self.store.refresh()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records from both and make that visible."""
        self.store.delete(ids)
        self.oracle.delete(ids)
        self.store.refresh()

    def rtol(self, field: str) -> float:
        """The relative tolerance that the store declares for a field."""
        return precision_of(self.store, field).score_rtol

    def exact(self) -> Effort:
        """The effort that compares with every record, where the store has one."""
        return Exact() if "exact" in self.store.capabilities.efforts else Default()

    def assert_search_agrees(self, *requests: SearchRequest) -> list[list[Hit]]:
        """Assert that the store answers all requests, sent as one batch, as the oracle does; returns its answers."""
        answers = self.store.search(requests)
        assert len(answers) == len(requests)
        for request, got in zip(requests, answers, strict=True):
            legs = request.rank.legs if isinstance(request.rank, Fuse) else (request.rank,)
            rtol = max(self.rtol(leg.field) for leg in legs)
            assert_hits_agree(got, self.truth(request), offset=request.offset, limit=request.limit, rtol=rtol)
        return answers

    def truth(self, request: SearchRequest) -> list[Hit]:
        """The whole ranking that a request's page is cut from, by the oracle."""
        rank = request.rank
        if not isinstance(rank, Fuse):
            return self.oracle.search([replace(request, limit=EVERYTHING, offset=0)])[0]
        legs = [replace(request, rank=leg, limit=rank.depth, offset=0) for leg in rank.legs]
        whole = fused(rank, self.oracle.search(legs))
        return whole if Parts.LEGS in request.parts else [replace(hit, legs=()) for hit in whole]

    def near(self, rank: Leg | Fuse, **options: Any) -> SearchRequest:
        """A request at exact effort that asks for payloads."""
        return SearchRequest(**{"rank": rank, "effort": self.exact(), "parts": Parts.PAYLOAD, **options})

    def assert_records_agree(self, where: Filter | None = None) -> None:
        """Assert that count and scan give what the oracle gives."""
        mine = sorted(self.store.scan(where=where), key=lambda record: record.id)
        theirs = sorted(self.oracle.scan(where=where), key=lambda record: record.id)
        rtol = max((self.rtol(name) for name in self.store.schema.fields), default=1e-6)
        assert_records_agree(mine, theirs, rtol)
        assert self.store.count(where) == len(theirs)


def precision_of(store: Store, field: str) -> Precision:
    """What the store declares for a field, by name or else by kind."""
    fields = store.capabilities.fields
    if field in fields:
        return fields[field]
    return fields.get(kind_of(store.schema.fields[field]).value, Precision())


T = TypeVar("T")


class Lab:
    """Opens stores for tests under collection names of their own, keeps what is shared, and clears all of it away at the end."""

    def __init__(self, make: Make) -> None:
        """Open stores through ``make``."""
        self._make = make
        self._opened: list[Store] = []
        self._released: set[str] = set()
        self._kept: dict[Hashable, Any] = {}
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()
        self._capabilities: Capabilities | None = None

    def schema(self, fields: Mapping[str, Field] | None = None, **options: Any) -> Schema:
        """A schema under a new collection name, with one dense field named "dense" where none are given."""
        name = f"conformance_{self._run}_{next(self._numbers)}"
        chosen = {"dense": DenseField(corpus.DIMENSION)} if fields is None else fields
        return Schema(name, chosen, **options)

    def open(self, what: Schema | str) -> Store:
        """Open a store without creating its collection."""
        store = self._make(what)
        self._opened.append(store)
        return store

    def new(self, schema: Schema | None = None) -> Store:
        """An empty collection."""
        store = self.open(schema or self.schema())
        store.create()
        return store

    def pair(self, schema: Schema | None = None, records: Sequence[Record] = ()) -> Pair:
        """A new collection with the oracle beside it, both holding ``records``."""
        pair = self.beside(self.new(schema))
        if records:
            pair.upsert(records)
        return pair

    def beside(self, store: Store) -> Pair:
        """An empty collection with an empty oracle beside it, which never shortens a vector."""
        whole = {
            name: replace(spec, quantization=Quantization.NONE) if isinstance(spec, DenseField) else spec
            for name, spec in store.schema.fields.items()
        }
        schema = replace(store.schema, collection=f"oracle_{store.schema.collection}", fields=whole)
        oracle = open_store("memory:", schema.collection, schema)
        oracle.create()
        self._opened.append(oracle)
        return Pair(store, oracle)

    def keep(self, key: Hashable, build: Callable[[], T]) -> T:
        """What ``build`` makes, made once for all tests of the class; they must only read it."""
        if key not in self._kept:
            self._kept[key] = build()
        kept: T = self._kept[key]
        return kept

    def release(self, store: Store) -> None:
        """Close a store before the end, so that its collection can be opened anew; whatever is left under its name is dropped at the end."""
        self._released.add(store.schema.collection)
        self.forget(store)

    def forget(self, store: Store) -> None:
        """Close a store whose collection could not be made, so that nothing is left to be dropped."""
        store.close()
        self._opened = [kept for kept in self._opened if kept is not store]

    @property
    def capabilities(self) -> Capabilities:
        """What a store opened here can do."""
        if self._capabilities is None:
            self._capabilities = self.new().capabilities
        return self._capabilities

    def need(self, able: bool, what: str) -> None:
        """Skip the test where the store does not declare what it is about; another test then sees it refused."""
        if not able:
            pytest.skip(f"the store does not declare {what}")

    def library(self) -> Pair:
        """The main corpus with every kind of field that the store declares; shared."""
        return self.keep("library", self._fill_library)

    def _fill_library(self) -> Pair:
        can = self.capabilities
        fields: dict[str, Field] = {"dense": DenseField(corpus.DIMENSION, Metric.COSINE, optional=can.optional_vectors)}
        if can.sparse:
            fields["sparse"] = SparseField(optional=can.optional_vectors)
        if can.text:
            fields["text"] = TextField()
        records = [
            replace(record, vectors={name: value for name, value in record.vectors.items() if name in fields})
            for record in corpus.library(lacking=can.optional_vectors)
        ]
        return self.pair(self.schema(fields, filterable=corpus.FILTERABLE), records)

    def metric(self, metric: Metric) -> Pair:
        """The dense vectors of the main corpus under one metric, in a field named "dense"; shared."""
        self.need(metric in self.capabilities.metrics, f"the metric {metric}")
        vectors = corpus.dense_vectors(corpus.SIZE)
        records = [Record(f"v{row:02d}", {"dense": vector}, {"row": row}) for row, vector in enumerate(vectors)]
        schema = self.schema({"dense": DenseField(corpus.DIMENSION, metric)})
        return self.keep(("metric", metric), lambda: self.pair(schema, records))

    def close(self) -> None:
        """Drop every collection that was made here and close every store."""
        for store in self._opened:
            store.drop()
            store.close()
        for name in self._released:
            with suppress(NotFound):
                left = self._make(name)
                left.drop()
                left.close()


def dense_records(count: int, *, start: int = 0, **payload: Any) -> list[Record]:
    """Records r000, r001, … with a dense vector and their number as payload."""
    vectors = corpus.dense_vectors(start + count, seed=31)[start:]
    return [
        Record(f"r{start + row:03d}", {"dense": vector}, {"row": start + row, **payload})
        for row, vector in enumerate(vectors)
    ]


class Group:
    """One group of tests. A subclass says where its store is, by ``address`` or by a fixture ``make``, and lists its known gaps."""

    gaps: ClassVar[Mapping[str, Gap]] = {}
    """Test name, with its parameter in brackets where it has one, to gap: the test must then fail in just that way."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse, while tests are collected, a gap that names no test."""
        super().__init_subclass__(**options)
        check_gaps(cls.gaps, cls, f"{cls.__name__}.gaps")

    @classmethod
    def address(cls, folder: Path) -> str:
        """The address of the store under test; ``folder`` is an empty folder that lives as long as the tests."""
        raise NotImplementedError(f"{cls.__name__} needs a classmethod address(cls, folder), or a fixture named make")

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, tmp_path_factory: pytest.TempPathFactory) -> Make:
        """How stores are opened; override it where they need a fixture of their own, and return ``opener(address)``."""
        return opener(cls.address(tmp_path_factory.mktemp("store")))

    @pytest.fixture(scope="class")
    @classmethod
    def lab(cls, make: Make) -> Iterator[Lab]:
        """Where the tests get their stores."""
        lab = Lab(make)
        yield lab
        lab.close()

    @pytest.fixture(autouse=True)
    def _known_gap(self, request: pytest.FixtureRequest) -> None:
        """Expect a known gap to fail, strictly: one that was mended turns the run red until it is struck off."""
        expect_gap(request, self.gaps)


def expect_gap(request: pytest.FixtureRequest, gaps: Mapping[str, Gap]) -> None:
    """Mark a test that is among known gaps as one that must fail."""
    name = request.node.name
    gap = gaps.get(name) or gaps.get(name.partition("[")[0])
    if gap is not None:
        request.applymarker(pytest.mark.xfail(reason=gap.reason, raises=gap.raises, strict=True))


def check_gaps(gaps: Mapping[str, Gap], cls: type, what: str) -> None:
    """Raise TypeError for a gap that names no test of a class."""
    unknown = sorted(set(gaps) - names_of_tests(cls)) if gaps else []
    if unknown:
        raise TypeError(f"{what} names tests that the suite does not have: {', '.join(unknown)}")


def names_of_tests(cls: type) -> set[str]:
    """The names of a class's tests, parametrised ones with and without each parameter in brackets."""
    names = set()
    for name in dir(cls):
        if not name.startswith("test_"):
            continue
        names.add(name)
        for mark in getattr(getattr(cls, name), "pytestmark", []):
            if mark.name == "parametrize":
                names.update(f"{name}[{value}]" for value in mark.args[1])
    return names
