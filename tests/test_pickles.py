"""Every exception and every public value of both packages survives pickle, copy and a process pool."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import multiprocessing
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raising import raised, returned

import st_connectors
import st_core
from st_connectors import errors, filters, gateway, ingest, memory, plugin, schema, search, store
from st_connectors.gateway import answers
from st_connectors.server import faults
from st_core import protocols, vectors
from st_core.engine.inputs import UNSET

MODULES = json.loads(Path(__file__).with_name("public_names.json").read_text())
"""Modules with public names."""

EXCEPTION = re.compile(r"^class \w+\(.*(Error|Exception|Interrupt|Permanent|Temporary|Unsupported)", re.MULTILINE)

REPORT = ingest.IngestReport(7, 5, 5, (ingest.Refusal(2, "b", "no text", ValueError, ingest.Place("a.csv", 3)),), 1)
SPARSE = vectors.SparseVector.from_mapping({1: 0.5, 7: 2.0})
DENSE = np.array([0.5, -1.0], np.float32)
PLACED = {"store": "memory", "operation": "upsert"}

EXAMPLES: dict[type, Callable[[], object]] = {
    ingest.IngestFailed: lambda: ingest.IngestFailed(REPORT, errors.Refused("full", **PLACED)),
    ingest.IngestInterrupted: lambda: ingest.IngestInterrupted(REPORT),
    ingest.DocumentError: lambda: ingest.DocumentError("no text", "b", ingest.Place("a.csv", 3), {"id": "b"}),
    errors.Temporary: lambda: errors.Temporary("busy", retry_after=1.5, status=503, **PLACED),
    errors.Throttled: lambda: errors.Throttled("busy", retry_after=1.5, **PLACED),
    errors.Refused: lambda: errors.Refused("too large", status=413, **PLACED),
    answers.Problem: lambda: answers.Problem(400, "x_exception", "no such thing"),
    gateway.Rule: lambda: gateway.Rule("books*", sparse="weights", sparse_model="builtin:sparse"),
    gateway.Settings: lambda: gateway.Settings(("elasticsearch://localhost",)),
    faults.Fault: lambda: faults.Fault(faults.FaultKind.OVERLOADED, "full", "inputs", 3),
    vectors.SparseVector: lambda: SPARSE,
    vectors.SparseMatrix: lambda: vectors.SparseMatrix.from_rows([SPARSE, SPARSE], 9),
    protocols.ModelRef: lambda: protocols.ModelRef(name="m", kind=protocols.ModelKind.DENSE, dimension=2),
    store.Record: lambda: store.Record("a", {"dense": DENSE, "sparse": SPARSE}, {"year": 1952}),
    store.Near: lambda: store.Near("dense", DENSE),
    store.Match: lambda: store.Match("text", "old man"),
    store.Fuse: lambda: store.Fuse((store.Match("text", "old man"), store.Near("dense", DENSE))),
    store.Candidates: lambda: store.Candidates(40),
    store.SearchRequest: lambda: store.SearchRequest(store.Near("dense", DENSE), where=filters.Eq("year", 1952)),
    store.LegHit: lambda: store.LegHit(0, "dense", 1, 0.5),
    store.Hit: lambda: store.Hit("a", 0.5, {"year": 1952}, {"dense": DENSE}, (store.LegHit(0, "dense", 1, 0.5),)),
    store.Rejected: lambda: store.Rejected(3, "a", errors.Refused("too long", **PLACED)),
    filters.Eq: lambda: filters.Eq("year", 1952),
    filters.In: lambda: filters.In("year", (1952, 1953)),
    filters.Range: lambda: filters.Range("year", gte=1952),
    filters.Exists: lambda: filters.Exists("year"),
    filters.Not: lambda: filters.Not(filters.Exists("year")),
    filters.And: lambda: filters.And((filters.Exists("year"), filters.Eq("year", 1))),
    filters.Or: lambda: filters.Or((filters.Exists("year"), filters.Eq("year", 1))),
    schema.DenseField: lambda: schema.DenseField(2),
    schema.Weighted: lambda: schema.Weighted((0.25, 0.75)),
    schema.Schema: lambda: schema.Schema("books", {"dense": schema.DenseField(2), "text": schema.TextField()}),
    plugin.Address: lambda: plugin.Address("qdrant", ("edge",), path="/library"),
    plugin.Plugin: lambda: memory.PLUGIN,
    search.Term: lambda: search.Term("sparse", "fish", 1.5),
    search.SearchHit: lambda: search.SearchHit("a", 0.5, {"text": "fish"}),
    search.SearchResult: lambda: search.SearchResult("fish", (search.SearchHit("a", 0.5),)),
    ingest.Document: lambda: ingest.Document("a", "fish", {"year": 1952}, ingest.Place("a.csv", 3)),
    ingest.Place: lambda: ingest.Place("a.csv", 3),
    ingest.Refusal: lambda: REPORT.refused[0],
    ingest.IngestReport: lambda: REPORT,
}
"""Instances of classes whose constructors need arguments."""

PLACEHOLDERS = {"str": "a", "int": 1, "float": 0.5, "bool": True, "tuple": (), "Mapping": {}, "dict": {}}
"""Values of fields without a default, for classes without an example, by annotation."""

WAYS = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def modules() -> Iterator[Any]:
    """The modules of both packages that define exceptions."""
    for package in (st_core, st_connectors):
        (root,) = map(Path, package.__path__)
        for path in sorted(root.rglob("*.py")):
            if re.search(
                r"^class \w+\(.*(Error|Exception|Interrupt|Permanent|Temporary|Unsupported)",
                path.read_text(),
                re.MULTILINE,
            ):
                yield import_module(".".join((package.__name__, *path.relative_to(root).with_suffix("").parts)))


def exceptions() -> list[type[BaseException]]:
    """All exception classes that the packages define."""
    results = {
        value
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == module.__name__
    }
    return sorted(results, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def public_values() -> list[type]:
    """All dataclasses with a public name."""
    names = {(module, name) for module, members in MODULES.items() for name in members}
    named = [getattr(import_module(module), name) for module, name in names if module != "st_connectors.testing"]
    values = {kind for kind in named if isinstance(kind, type) and dataclasses.is_dataclass(kind)}
    return sorted(values, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def is_needed(field: dataclasses.Field[Any]) -> bool:
    """Whether a field has no default."""
    return field.default is field.default_factory is dataclasses.MISSING


def example(kind: type) -> object:
    """Return an instance: from ``EXAMPLES``, or constructed with a message or placeholders."""
    if kind in EXAMPLES:
        return EXAMPLES[kind]()
    if issubclass(kind, errors.StoreError):
        return kind("no such thing", **PLACED)
    if issubclass(kind, BaseException):
        return kind(3, "no such thing") if kind.__name__ == "_SyntaxFault" else kind("no such thing")
    needed = [each for each in dataclasses.fields(kind) if is_needed(each)]
    return kind(**{each.name: PLACEHOLDERS.get(str(each.type).partition("[")[0]) for each in needed})


def plain(value: object) -> object:
    """A value with all that it contains, as comparable builtin objects."""
    match value:
        case BaseException():
            return type(value), str(value), plain(value.args), plain(vars(value))
        case np.ndarray():
            return value.dtype.str, value.tolist()
        case enum.Enum() | type():
            return value
        case Mapping():
            return {key: plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
        case _ if dataclasses.is_dataclass(value):
            return type(value), {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        case _:
            return value


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [*exceptions(), *public_values()], ids=lambda kind: kind.__qualname__)
def test_every_exception_and_value_survives(kind, way):
    """The same class, message, attributes and content."""
    value = example(kind)

    assert plain(WAYS[way](value)) == plain(value)


@pytest.fixture(scope="module")
def pool():
    """One spawned process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__qualname__)
def test_every_exception_leaves_a_process_pool(pool, kind):
    """It is raised by the pool as it was raised in the process."""
    with pytest.raises(kind) as caught:
        pool.submit(raised, example(kind)).result()

    assert plain_error(caught.value) == plain_error(example(kind))


def plain_error(error: BaseException) -> object:
    """An error without the note about its process."""
    return type(error), str(error), plain(error.args)


def test_every_value_passes_a_process_pool(pool):
    """There and back."""
    values = [example(kind) for kind in public_values()]

    for value, results in zip(values, pool.map(returned, values), strict=True):
        assert plain(results) == plain(value)


def test_an_interruption_does_not_repeat_its_text():
    """Its constructor builds the text from the report; a pickle must not build it from the text."""
    error = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(ingest.IngestInterrupted(REPORT)))))

    assert str(error) == f"interrupted: {REPORT}"
    assert error.report == REPORT


def test_the_mark_of_missing_arguments_stays_itself():
    """It is compared by identity."""
    assert all(way(UNSET) is UNSET for way in WAYS.values())
