"""Types below float32 stay near it on real text: MiniLM on docstrings, each graph made of the float32 one, which is traced once a backend."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards

pytestmark = [pytest.mark.torch, pytest.mark.minilm]

DOCSTRINGS = [text for each in vars(np).values() if callable(each) and (text := inspect.getdoc(each))]
REAL, TYPICAL = DOCSTRINGS[:40], tuple(DOCSTRINGS[40:140])
BOUNDS = {"int8": (0.995, 0.98), "bfloat16": (0.9999, 0.9995), "float16": (0.99999, 0.9999)}
"""Cosines with float32's vectors: the mean, and the worst."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def expected(exports):
    """The vectors of the real texts on torch in float32."""
    model = st_core.SentenceTransformer(exports.folder("minilm", "openvino"), device="cpu")
    return model.encode(REAL)


def cosines(found, expected):
    """The cosine of each pair of rows."""
    return np.einsum("nd,nd->n", found, expected) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.mark.parametrize(
    ("backend", "dtype", "calibration"),
    [
        ("openvino", "int8", ()),
        ("onnx", "int8", ()),
        ("openvino", "int8", TYPICAL),
    ],
    ids=["openvino-int8", "onnx-int8", "openvino-int8-calibrated"],
)
def test_vectors_stay_near(exports, expected, record_property, backend, dtype, calibration):
    """Within the bounds of the type, and not float32 in disguise; the model's precision says which it is."""
    if calibration:
        pytest.importorskip("nncf", reason="needs nncf")
    folder = exports.folder("minilm", backend, dtype, calibration)

    model = st_core.SentenceTransformer(folder, backend=backend, dtype=dtype)
    near = cosines(model.encode(REAL), expected)
    record_property("cosines", f"mean {near.mean():.5f}, worst {near.min():.5f}")

    assert_near(near, dtype)
    assert st_core.describe(model).precision == (f"{dtype}-static" if calibration else dtype)


def assert_near(near, dtype):
    """Within the bounds of the type, and not exact."""
    mean, worst = BOUNDS[dtype]
    assert near.mean() >= mean, (near.mean(), near.min())
    assert near.min() >= worst, (near.mean(), near.min())
    assert near.min() < 1 - 1e-7


@pytest.mark.parametrize(("dtype", "capability"), [("float16", "FP16"), ("bfloat16", "BF16")])
def test_half_precision_is_computed_as_asked_or_refused(exports, expected, record_property, dtype, capability):
    """OpenVINO takes another type, silently, where the processor lacks one: numbers would depend on the machine."""
    import openvino

    folder = exports.folder("minilm", "openvino", dtype)
    if capability not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ValueError, match=f"does not compute in {dtype} on this processor, it would take"):
            st_core.SentenceTransformer(folder, backend="openvino", dtype=dtype)
        return

    near = cosines(st_core.SentenceTransformer(folder, backend="openvino", dtype=dtype).encode(REAL), expected)
    record_property("cosines", f"mean {near.mean():.5f}, worst {near.min():.5f}")
    assert_near(near, dtype)


def test_float32_is_float32(exports, expected):
    """On both backends, to 1e-5."""
    for backend in ("openvino", "onnx"):
        model = st_core.SentenceTransformer(exports.folder("minilm", backend), backend=backend)
        assert np.abs(model.encode(REAL) - expected).max() <= 1e-5


def test_types_that_onnx_runtime_lacks_are_refused(exports):
    """With the backends that have them."""
    for dtype in ("float16", "bfloat16"):
        with pytest.raises(ValueError, match=rf"'onnx' has no type '{dtype}'.*'openvino' or 'torch'"):
            st_core.SentenceTransformer(exports.folder("minilm", "onnx"), backend="onnx", dtype=dtype)


def test_an_exported_graph_becomes_int8_without_torch(exports, tmp_path):
    """The float32 graph is all that is needed, and the numbers are those of int8 made beside torch."""
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import numpy, st_core
model = st_core.SentenceTransformer(sys.argv[1], backend="openvino", dtype="int8")
numpy.save(sys.argv[2], model.encode(sys.argv[3:]))
"""
    folder = exports.folder("minilm", "openvino")
    subprocess.run([sys.executable, "-c", code, str(folder), str(tmp_path / "found.npy"), *REAL[:5]], check=True)

    made = st_core.SentenceTransformer(exports.folder("minilm", "openvino", "int8"), backend="openvino", dtype="int8")
    assert np.abs(np.load(tmp_path / "found.npy") - made.encode(REAL[:5])).max() <= 1e-6
