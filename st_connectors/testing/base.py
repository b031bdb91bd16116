"""The base class of every group of tests: it opens stores, compares them with an oracle, and handles known gaps."""

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
"""A limit above the size of every corpus of the suite."""


def plugin_of(make: Make) -> Plugin:
    """Return the plugin of the stores under test; skip the test if they are not opened by an address."""
    if not isinstance(make, Opener):
        pytest.skip("the stores are not opened by an address")
    return plugins()[parse_address(make.address).name]


def listed(make: Make) -> list[str]:
    """Return the names of the existing collections; skip the test if stores are not opened by an address."""
    if not isinstance(make, Opener):
        pytest.skip("the stores are not opened by an address")
    return collections(make.address, client=make.client)


@dataclass(frozen=True, slots=True)
class Gap:
    """A test that a store is known to fail: the reason, and the exception that the test must raise."""

    reason: str
    raises: type[BaseException] = AssertionError


@dataclass(frozen=True, slots=True)
class Pair:
    """A store and a brute-force oracle with the same records."""

    store: Store
    oracle: Store

    def upsert(self, records: Sequence[Record]) -> None:
        """Store records in both and make them visible; none may be rejected."""
        assert self.store.upsert(records) == []
        assert self.oracle.upsert(records) == []
        self.store.refresh()

    def delete(self, ids: Sequence[str]) -> None:
        """Delete records from both and make the deletion visible."""
        self.store.delete(ids)
        self.oracle.delete(ids)
        self.store.refresh()

    def rtol(self, field: str) -> float:
        """Return the relative tolerance that the store declares for a field."""
        return precision_of(self.store, field).score_rtol

    def exact(self) -> Effort:
        """Return exact effort if the store has it, else the default effort."""
        return Exact() if "exact" in self.store.capabilities.efforts else Default()

    def assert_search_agrees(self, *requests: SearchRequest) -> list[list[Hit]]:
        """Assert that one batch of requests has the same hits in store and oracle, and return the store's hits."""
        answers = self.store.search(requests)
        assert len(answers) == len(requests)
        for request, got in zip(requests, answers, strict=True):
            legs = request.rank.legs if isinstance(request.rank, Fuse) else (request.rank,)
            rtol = max(self.rtol(leg.field) for leg in legs)
            assert_hits_agree(got, self.truth(request), offset=request.offset, limit=request.limit, rtol=rtol)
        return answers

    def truth(self, request: SearchRequest) -> list[Hit]:
        """Return the complete ranking of a request, computed by the oracle."""
        rank = request.rank
        if not isinstance(rank, Fuse):
            return self.oracle.search([replace(request, limit=EVERYTHING, offset=0)])[0]
        legs = [replace(request, rank=leg, limit=rank.depth, offset=0) for leg in rank.legs]
        whole = fused(rank, self.oracle.search(legs))
        return whole if Parts.LEGS in request.parts else [replace(hit, legs=()) for hit in whole]

    def near(self, rank: Leg | Fuse, **options: Any) -> SearchRequest:
        """Return a request at exact effort for hits with payloads."""
        return SearchRequest(**{"rank": rank, "effort": self.exact(), "parts": Parts.PAYLOAD, **options})

    def assert_records_agree(self, where: Filter | None = None) -> None:
        """Assert that ``count`` and ``scan`` agree with the oracle."""
        mine = sorted(self.store.scan(where=where), key=lambda record: record.id)
        theirs = sorted(self.oracle.scan(where=where), key=lambda record: record.id)
        rtol = max((self.rtol(name) for name in self.store.schema.fields), default=1e-6)
        assert_records_agree(mine, theirs, rtol)
        assert self.store.count(where) == len(theirs)


def precision_of(store: Store, field: str) -> Precision:
    """Return the precision that a store declares for a field, by name or else by kind."""
    fields = store.capabilities.fields
    if field in fields:
        return fields[field]
    return fields.get(kind_of(store.schema.fields[field]).value, Precision())


T = TypeVar("T")


class Lab:
    """Opens stores under unique collection names, caches shared ones, and drops all of them at the end."""

    def __init__(self, make: Make) -> None:
        """Open stores through ``make``."""
        self._make = make
        self._opened: list[Store] = []
        self._released: set[str] = set()
        self._shared: dict[Hashable, Any] = {}
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()
        self._capabilities: Capabilities | None = None

    def schema(self, fields: Mapping[str, Field] | None = None, **options: Any) -> Schema:
        """Return a schema with a new collection name, and by default one dense field named "dense"."""
        name = f"conformance_{self._run}_{next(self._numbers)}"
        default = {"dense": DenseField(corpus.DIMENSION)}
        return Schema(name, default if fields is None else fields, **options)

    def open(self, what: Schema | str) -> Store:
        """Open a store without creating its collection."""
        store = self._make(what)
        self._opened.append(store)
        return store

    def new(self, schema: Schema | None = None) -> Store:
        """Create and return an empty collection."""
        store = self.open(schema or self.schema())
        store.create()
        return store

    def pair(self, schema: Schema | None = None, records: Sequence[Record] = ()) -> Pair:
        """Return a new collection and its oracle, both with ``records``."""
        pair = self.beside(self.new(schema))
        if records:
            pair.upsert(records)
        return pair

    def beside(self, store: Store) -> Pair:
        """Return an empty collection with an empty oracle, which does not quantize vectors."""
        exact_fields = {
            name: replace(spec, quantization=Quantization.NONE) if isinstance(spec, DenseField) else spec
            for name, spec in store.schema.fields.items()
        }
        schema = replace(store.schema, collection=f"oracle_{store.schema.collection}", fields=exact_fields)
        oracle = open_store("memory:", schema.collection, schema)
        oracle.create()
        self._opened.append(oracle)
        return Pair(store, oracle)

    def keep(self, key: Hashable, build: Callable[[], T]) -> T:
        """Return the result of ``build``, built once for all tests of the class; tests must only read it."""
        if key not in self._shared:
            self._shared[key] = build()
        value: T = self._shared[key]
        return value

    def release(self, store: Store) -> None:
        """Close a store early, so that its collection can be opened again.

        The collection is dropped at the end of the test.
        """
        self._released.add(store.schema.collection)
        self.forget(store)

    def forget(self, store: Store) -> None:
        """Close a store whose collection could not be created and need not be dropped."""
        store.close()
        self._opened = [each for each in self._opened if each is not store]

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of a store opened here."""
        if self._capabilities is None:
            self._capabilities = self.new().capabilities
        return self._capabilities

    def need(self, able: bool, what: str) -> None:
        """Skip the test if the store does not declare a capability; another test then checks that it is refused."""
        if not able:
            pytest.skip(f"the store does not declare {what}")

    def library(self) -> Pair:
        """Return the shared main corpus, with every kind of field that the store declares."""
        return self.keep("library", self._fill_library)

    def _fill_library(self) -> Pair:
        declared = self.capabilities
        optional = declared.optional_vectors
        fields: dict[str, Field] = {"dense": DenseField(corpus.DIMENSION, Metric.COSINE, optional=optional)}
        if declared.sparse:
            fields["sparse"] = SparseField(optional=optional)
        if declared.text:
            fields["text"] = TextField()
        records = [
            replace(record, vectors={name: value for name, value in record.vectors.items() if name in fields})
            for record in corpus.library(lacking=optional)
        ]
        return self.pair(self.schema(fields, filterable=corpus.FILTERABLE), records)

    def metric(self, metric: Metric) -> Pair:
        """Return a shared collection of the main corpus's dense vectors with one metric, in the field "dense"."""
        self.need(metric in self.capabilities.metrics, f"the metric {metric}")
        vectors = corpus.dense_vectors(corpus.SIZE)
        records = [Record(f"v{row:02d}", {"dense": vector}, {"row": row}) for row, vector in enumerate(vectors)]
        schema = self.schema({"dense": DenseField(corpus.DIMENSION, metric)})
        return self.keep(("metric", metric), lambda: self.pair(schema, records))

    def close(self) -> None:
        """Drop every collection that was created here, and close every store."""
        for store in self._opened:
            store.drop()
            store.close()
        for name in self._released:
            with suppress(NotFound):
                remaining = self._make(name)
                remaining.drop()
                remaining.close()


def dense_records(count: int, *, start: int = 0, **payload: Any) -> list[Record]:
    """Return records r000, r001, … with a dense vector and their number as payload."""
    vectors = corpus.dense_vectors(start + count, seed=31)[start:]
    return [
        Record(f"r{start + row:03d}", {"dense": vector}, {"row": start + row, **payload})
        for row, vector in enumerate(vectors)
    ]


class Group:
    """A group of tests. A subclass sets its store by ``address`` or a fixture ``make``, and lists known gaps."""

    gaps: ClassVar[Mapping[str, Gap]] = {}
    """Known gaps by test name, with the parameter in brackets if there is one; these tests must fail."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Raise TypeError during collection for a gap that names no test."""
        super().__init_subclass__(**options)
        check_gaps(cls.gaps, cls, f"{cls.__name__}.gaps")

    @classmethod
    def address(cls, folder: Path) -> str:
        """Return the address of the store under test; ``folder`` is empty and exists as long as the tests run."""
        raise NotImplementedError(f"{cls.__name__} needs a classmethod address(cls, folder), or a fixture named make")

    @pytest.fixture(scope="class")
    @classmethod
    def make(cls, tmp_path_factory: pytest.TempPathFactory) -> Make:
        """Return the object that opens stores; override it to use other fixtures, and return ``opener(address)``."""
        return opener(cls.address(tmp_path_factory.mktemp("store")))

    @pytest.fixture(scope="class")
    @classmethod
    def lab(cls, make: Make) -> Iterator[Lab]:
        """Yield the lab that opens the stores of the tests."""
        lab = Lab(make)
        yield lab
        lab.close()

    @pytest.fixture(autouse=True)
    def _known_gap(self, request: pytest.FixtureRequest) -> None:
        """Expect a known gap to fail, strictly: a fixed gap fails the run until it is removed from ``gaps``."""
        expect_gap(request, self.gaps)


def expect_gap(request: pytest.FixtureRequest, gaps: Mapping[str, Gap]) -> None:
    """Mark the test of a known gap as a strict expected failure."""
    name = request.node.name
    gap = gaps.get(name) or gaps.get(name.partition("[")[0])
    if gap is not None:
        request.applymarker(pytest.mark.xfail(reason=gap.reason, raises=gap.raises, strict=True))


def check_gaps(gaps: Mapping[str, Gap], cls: type, label: str) -> None:
    """Raise TypeError for gaps that name no test of a class."""
    unknown = sorted(set(gaps) - names_of_tests(cls)) if gaps else []
    if unknown:
        raise TypeError(f"unknown tests in {label}: {', '.join(unknown)}")


def names_of_tests(cls: type) -> set[str]:
    """Return the test names of a class; parametrised ones both bare and with each parameter in brackets."""
    names = set()
    for name in dir(cls):
        if not name.startswith("test_"):
            continue
        names.add(name)
        for mark in getattr(getattr(cls, name), "pytestmark", []):
            if mark.name == "parametrize":
                names.update(f"{name}[{value}]" for value in mark.args[1])
    return names
