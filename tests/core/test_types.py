"""Lower dtypes stay near float32: MiniLM, small sparse models and rerankers, and graphs converted from float32's."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards
from st_core.backends.graph.openvino import session as runtime  # noqa: E402
from st_core.backends.graph.sixteen_bits import to_bits  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.minilm, pytest.mark.long]

DOCSTRINGS = [text for each in vars(np).values() if callable(each) and (text := inspect.getdoc(each))]
REAL, TYPICAL = DOCSTRINGS[:40], tuple(DOCSTRINGS[40:140])
BOUNDS = {"int8": (0.995, 0.98), "bfloat16": (0.9999, 0.9995), "float16": (0.99999, 0.9999)}
"""Cosines with float32's vectors: the mean, and the worst."""

SPARSE = BOUNDS | {"bfloat16": (0.9995, 0.999)}
"""The same of sparse weights, which lie near zero and are differences of large numbers."""

SCORES = {"float16": 1e-3, "bfloat16": 1e-2}
"""How far a score between 0 and 1 may be from float32's."""

HALVES = [(backend, dtype) for backend in ("openvino", "onnx") for dtype in ("float16", "bfloat16")]


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
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return np.einsum("nd,nd->n", found, expected) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.mark.parametrize(
    ("backend", "dtype", "calibration"),
    [
        ("openvino", "int8", ()),
        ("onnx", "int8", ()),
        ("openvino", "int8", TYPICAL),
        *((backend, dtype, ()) for backend, dtype in HALVES),
    ],
    ids=["openvino-int8", "onnx-int8", "openvino-int8-calibrated", *map("-".join, HALVES)],
)
def test_vectors_stay_near(exports, expected, record_property, backend, dtype, calibration):
    """Within the bounds of the type, and not float32 in disguise; the model's precision says which it is."""
    if calibration:
        pytest.importorskip("nncf", reason="needs nncf")
        if not has_wide_products():
            pytest.skip(
                "eight-bit products saturate on this processor, and the bounds are those of processors with VNNI"
            )
    folder = exports.folder("minilm", backend, dtype, calibration)

    model = st_core.SentenceTransformer(folder, backend=backend, dtype=dtype)
    near = cosines(model.encode(REAL), expected)
    record_property("cosines", f"mean {near.mean():.5f}, worst {near.min():.5f}")

    assert_near(near, dtype)
    assert st_core.describe(model).precision == (f"{dtype}-static" if calibration else dtype)


def has_wide_products():
    """Whether the processor adds products of eight-bit numbers in 32 bits; without VNNI or AMX they saturate in 16."""
    flags = Path("/proc/cpuinfo")
    return not flags.exists() or bool(
        {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"} & set(flags.read_text().split())
    )


def assert_near(near, dtype, bounds=BOUNDS):
    """Within the bounds of the type, and not exact."""
    mean, worst = bounds[dtype]
    assert near.mean() >= mean, (near.mean(), near.min())
    assert near.min() >= worst, (near.mean(), near.min())
    assert near.min() < 1 - 1e-7


@pytest.mark.parametrize(
    ("dtype", "precision", "capability"), [("float16", "f16", "FP16"), ("bfloat16", "bf16", "BF16")]
)
def test_openvino_computes_in_sixteen_bits_or_in_float32(exports, expected, monkeypatch, dtype, precision, capability):
    """OpenVINO computes in the requested dtype where the processor has it, else in float32."""

    def loaded():
        model = st_core.SentenceTransformer(
            exports.folder("minilm", "openvino", dtype), backend="openvino", dtype=dtype
        )
        model.encode("a text")  # opens the session
        compiled = model._engine.runner(None).session._session._compiled
        return compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(), model

    has = capability in runtime.capable(__import__("openvino").Core())
    assert loaded()[0] == (precision if has else "f32")

    monkeypatch.setattr(runtime, "capable", lambda _: ["FP32"])
    computed, model = loaded()
    assert computed == "f32"
    assert_near(cosines(model.encode(REAL), expected), dtype)

    monkeypatch.setattr(runtime, "capable", lambda _: ["FP32", "FP16", "BF16"])
    if not has:
        with pytest.raises(ValueError, match=rf"set to compute in {dtype} and computes in"):
            loaded()


@pytest.mark.parametrize(("backend", "dtype"), HALVES)
def test_sparse_weights_stay_near(exports, texts, record_property, backend, dtype):
    """Of a SPLADE model, beside sentence-transformers' in float32."""
    folder, some = exports.folder("splade-max", backend, dtype), [text for text in texts if len(text) < 1000]
    theirs = exports.checkpoints.load(oracle, "SparseEncoder", "splade-max")

    found = st_core.SparseEncoder(folder, backend=backend, dtype=dtype).encode(some)
    near = cosines(found.to_dense(), theirs.encode(some).to_dense().numpy())
    record_property("cosines", f"mean {near.mean():.6f}, worst {near.min():.6f}")

    assert_near(near, dtype, SPARSE)


@pytest.mark.parametrize(("backend", "dtype"), HALVES)
def test_scores_stay_near(exports, texts, record_property, backend, dtype):
    """Of a cross-encoder, beside sentence-transformers' in float32."""
    folder, some = exports.folder("rerank-bert", backend, dtype), [text for text in texts if len(text) < 1000]
    theirs = exports.checkpoints.load(oracle, "CrossEncoder", "rerank-bert")
    pairs = [(first, second) for first in some[:4] for second in some]

    found = st_core.CrossEncoder(folder, backend=backend, dtype=dtype).predict(pairs)
    apart = np.abs(found - theirs.predict(pairs))
    record_property("apart", f"mean {apart.mean():.1e}, worst {apart.max():.1e}")

    assert 1e-7 < apart.max() <= SCORES[dtype], (apart.mean(), apart.max())


@pytest.mark.parametrize(("backend", "dtype"), HALVES)
def test_sixteen_bits_are_half_the_bytes_and_another_precision(exports, tmp_path, backend, dtype):
    """The graph's file is half of float32's, inputs and outputs stay as they are, and so it is saved.

    The fingerprint tells it from float32.
    """
    place = next((exports.folder("minilm", backend, dtype) / "graphs").glob(f"{backend}-{dtype}-*"))
    whole = next((exports.folder("minilm", backend) / "graphs").iterdir())
    model = st_core.SentenceTransformer(exports.folder("minilm", backend, dtype), backend=backend, dtype=dtype)
    plain = st_core.SentenceTransformer(exports.folder("minilm", backend), backend=backend)

    model.save_pretrained(tmp_path / "saved")
    again = st_core.SentenceTransformer(tmp_path / "saved", backend=backend, dtype=dtype)

    assert weight(place) <= 0.51 * weight(whole)
    assert model.encode("text").dtype == np.float32
    np.testing.assert_array_equal(again.encode(REAL[:3]), model.encode(REAL[:3]))
    assert not list((tmp_path / "cache").glob("graphs/*"))
    mine, others = (dict(st_core.describe(each).fingerprint) for each in (model, plain))
    assert {name for name in mine if mine[name] != others[name]} == {"precision"}


def weight(place):
    """The bytes of a graph without its tokenizer."""
    return sum(path.stat().st_size for path in place.iterdir() if path.name != "tokenizer.json")


def test_bits_are_those_of_torch():
    """Rounded to the nearest, to the even one of two; what float16 cannot hold is left to float32."""
    random = np.random.default_rng(3)
    values = np.concatenate(
        [random.normal(size=5000), random.normal(size=999) * 1e-7, [0.0, -0.0, 1 + 2**-9, 1 + 3 * 2**-9]]
    )
    values = values.astype(np.float32)
    for dtype in ("float16", "bfloat16"):
        wanted = torch.from_numpy(values).to(getattr(torch, dtype)).view(torch.uint16).numpy()
        np.testing.assert_array_equal(to_bits(values, dtype), wanted)
    assert to_bits(np.array([65520], np.float32), "float16") is None


def test_bfloat16_stays_finite_and_keeps_what_is_no_number():
    """Masks hold float32's smallest number, which torch rounds to minus infinity; any bits of a NaN are still one."""
    largest = np.finfo(np.float32).max
    odd = np.array([0xFFFFFFFF, 0x7F800001, 0x7FC00000], np.uint32).view(np.float32)
    values = np.concatenate([np.array([largest, -largest, 3.4e38, np.inf, -np.inf], np.float32), odd])

    found = torch.from_numpy(to_bits(values, "bfloat16").view(np.int16)).view(torch.bfloat16)

    top = torch.finfo(torch.bfloat16).max
    assert found[:5].tolist() == [top, -top, top, np.inf, -np.inf]
    assert found[5:].isnan().all()


def test_large_weights_lie_beside_the_graph(exports, tmp_path, expected, monkeypatch):
    """A protocol buffer holds 2 GB: what is more is written into one file, in place of what lay there."""
    from st_core.backends.graph.onnx import sixteen

    place = next((exports.folder("minilm", "onnx") / "graphs").iterdir())
    file = shutil.copyfile(place / "model.onnx", tmp_path / "model.onnx")
    monkeypatch.setattr(sixteen, "LARGE", 1000)
    (tmp_path / "model.onnx.data").write_bytes(b"x" * 10)

    sixteen.store_in_sixteen_bits(file, "float16")

    assert file.stat().st_size < 1_000_000
    assert (tmp_path / "model.onnx.data").stat().st_size < 0.51 * (place / "model.onnx").stat().st_size
    model = st_core.SentenceTransformer(exports.folder("minilm", "onnx"), backend="onnx")
    session = __import__("st_core.backends.graph.onnx.session", fromlist=["onnx"]).open_session(file, "float16", None)
    runner = replace(model._engine.runner(None), session=session)
    found = runner.run(runner.info.tokenizer.tokenize(REAL[:2], 256))["sentence_embedding"]
    assert_near(cosines(found, expected[:2]), "float16")


def test_float32_is_float32(exports, expected):
    """On both backends, to 1e-5."""
    for backend in ("openvino", "onnx"):
        model = st_core.SentenceTransformer(exports.folder("minilm", backend), backend=backend)
        assert np.abs(model.encode(REAL) - expected).max() <= 1e-5


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
