"""Each protocol in its own words: requests to calls, results to answers, and faults; without a server or a model."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_connectors.server.calls import (
    Decode,
    Embed,
    EmbedSparse,
    EmbedTokens,
    Score,
    Scores,
    SparseVectors,
    Texts,
    Token,
    Tokenize,
    TokenLists,
    TokenVectors,
    Usage,
    Vectors,
)
from st_connectors.server.faults import Fault, FaultKind
from st_connectors.server.json_text import decode, encode
from st_connectors.server.shapes import errors
from st_connectors.server.shapes.routes import ApiRequest
from st_connectors.server.shapes.table import ROUTES
from st_core.protocols import ModelKind
from st_core.vectors import SparseMatrix, SparseVector

CATALOG = {"dense": ModelKind.DENSE, "sparse": ModelKind.SPARSE, "rerank": ModelKind.RERANKER}
BY_PATH = {route.path: route for route in ROUTES}
GOLDEN = {path.stem: json.loads(path.read_text("utf-8")) for path in (Path(__file__).parent / "golden").glob("*.json")}


def cases(part):
    return [
        pytest.param(case, id=f"{name}-{case.get('name') or number}")
        for name, golden in sorted(GOLDEN.items())
        for number, case in enumerate(golden[part])
    ]


def answer(call):
    """The results of models of two dimensions, ten tokens and one label."""
    count = len(getattr(call, "texts", getattr(call, "pairs", getattr(call, "ids", ()))))
    kinds = {Embed: "dense", EmbedTokens: "dense", EmbedSparse: "sparse", Score: "rerank"}
    usage = Usage(
        call.model or kinds.get(type(call), "dense"),
        np.full(count, 3, np.int64),
        np.zeros(count, np.bool_),
        0.001,
        0.002,
        0.003,
    )
    match call:
        case Embed():
            return Vectors(usage, np.array([[at + 0.25, -1.5] for at in range(count)], np.float32).reshape(-1, 2))
        case EmbedTokens():
            return TokenVectors(usage, (np.arange(4, dtype=np.float32).reshape(2, 2),) * count)
        case EmbedSparse():
            rows = [SparseVector.from_mapping({1 + at % 6: 0.5, 7: 1.25}) for at in range(count)]
            return SparseVectors(usage, SparseMatrix.from_rows(rows, 10), tuple(f"t{index}" for index in range(10)))
        case Score():
            return Scores(usage, np.arange(count, dtype=np.float32).reshape(-1, 1) / 4)
        case Tokenize():
            row = (Token(101, "[CLS]", True, None, None), Token(5, "zero", False, 0, 4))
            return TokenLists(usage, (row,) * count)
        case Decode():
            return Texts(usage, tuple(" ".join(map(str, row)) for row in call.ids))


def request(case):
    return ApiRequest(case["request"], case.get("query", {}), CATALOG, tuple(CATALOG), "id-1", 1_700_000_000)


def value_of(call, path):
    for name in path.split("."):
        call = getattr(call, name)
    return json.loads(json.dumps(call))


@pytest.mark.parametrize("case", cases("cases"))
def test_requests_are_read_and_answered_as_specified(case):
    """The calls have the fields of the request, and the answer is exactly that of the specification."""
    translation = BY_PATH[case["path"]].read(request(case))

    for call, wanted in zip(translation.calls, case.get("calls", [{}] * len(translation.calls)), strict=True):
        assert {path: value_of(call, path) for path in wanted} == wanted
    assert json.loads(encode(translation.write([answer(call) for call in translation.calls]))) == case["answer"]


@pytest.mark.parametrize("case", cases("faults"))
def test_faults_have_the_form_of_the_api(case):
    """Status and body are those of the API that was called."""
    route = BY_PATH[case["path"]]
    with pytest.raises(Fault) as raised:
        route.read(request(case))

    style = route.style(case["request"])
    status = style.status(raised.value)
    assert (status, style.write(raised.value, status, "id-1")) == (case["status"], case["body"])


STYLES = [errors.TEI, errors.OPENAI, errors.COHERE, errors.JINA, errors.VLLM, errors.UNION, errors.PLAIN]


@pytest.mark.parametrize("style", STYLES)
def test_every_fault_has_a_status(style):
    """413 is a text that is too long and nothing else, and clients retry a full queue."""
    statuses = {kind: style.status(Fault(kind, "message")) for kind in FaultKind}

    assert [kind for kind, status in statuses.items() if status == 413] == [FaultKind.TOO_LONG]
    assert statuses[FaultKind.OVERLOADED] == 429
    assert all(400 <= status < 600 for status in statuses.values())
    for kind, status in statuses.items():
        assert "message" in json.dumps(style.write(Fault(kind, "message"), status, "id-1"))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = sorted(
    {
        name
        for golden in GOLDEN.values()
        for part in ("cases", "faults")
        for case in golden[part]
        if isinstance(case["request"], dict)
        for name in case["request"]
    }
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = VALUES | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)


@pytest.mark.parametrize("path", sorted(BY_PATH))
@settings(max_examples=60)
@given(
    body=BODIES, query=st.dictionaries(st.sampled_from(["model", "input_type", "x"]), st.text(max_size=6), max_size=2)
)
def test_any_json_is_answered_or_refused(path, body, query):
    """Whatever the body is: an answer that is JSON, or a fault with a status from 400 to 499."""
    route = BY_PATH[path]
    style = route.style(body)
    try:
        translation = route.read(ApiRequest(body, query, CATALOG, tuple(CATALOG), "id-1", 0))
        written = encode(translation.write([answer(call) for call in translation.calls]))
    except Fault as fault:
        status = style.status(fault)
        assert 400 <= status < 500
        written = encode(style.write(fault, status, "id-1"))
    json.loads(written)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,", b"NaN", b'{"a": Infinity}', b"\xff\xfe", b"[" * 100_000, b'{"inputs": "cut', b"nonsense"],
)
def test_what_is_not_json_is_refused(body):
    """Also what Python's reader would accept, and what would exhaust its stack."""
    with pytest.raises(Fault) as raised:
        decode(body)

    assert raised.value.kind is FaultKind.NOT_JSON


def test_float32_is_written_as_its_shortest_text():
    """Arrays of any shape and order in memory become lists."""
    array = np.array([[0.1, 2.0], [3.25, -1e-7]], np.float32)

    assert encode({"a": array}) == b'{"a":[[0.1,2.0],[3.25,-1e-7]]}'
    assert json.loads(encode(array.T)) == json.loads(encode(np.ascontiguousarray(array.T)))


@pytest.fixture
def plain_json(monkeypatch):
    """The module without orjson, which is not part of the extra."""
    monkeypatch.setitem(sys.modules, "orjson", None)
    spec = importlib.util.find_spec("st_connectors.server.json_text")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_orjson(plain_json):
    """Answers are the same numbers, and the same bodies are refused."""
    array = np.array([[0.1, 2.0], [3.25, -1e-7]], np.float32)
    value = {"a": array, "b": [np.int64(3), True, None, "é"], "c": np.array([1, 2]), "d": array.T}

    assert json.loads(plain_json.encode(value)) == json.loads(encode(value | {"b": [3, True, None, "é"]}))
    assert plain_json.shortest(array[0]) == [0.1, 2.0]
    assert plain_json.decode(b'{"a": [1.5]}') == {"a": [1.5]}
    for body in (b"", b"{", b"NaN", b'{"a": Infinity}', b"\xff", b"[" * 100_000):
        with pytest.raises(Fault):
            plain_json.decode(body)
