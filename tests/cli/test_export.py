"""``st-connectors export`` writes folders that load with the same numbers, and reports a mistake as one line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from st_core import SentenceTransformer
from st_core.install import install_command

pytestmark = pytest.mark.long


@pytest.fixture
def checkpoint(tmp_path):
    """Save a plain BERT with two small layers."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "blue", "copy", "a", "tree"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "tiny")
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.torch
def test_an_exported_folder_gives_the_same_vectors(cli, checkpoint, tmp_path):
    """``--json`` reports the folder, the class that loads it, and the size of the graph."""
    pytest.importorskip("openvino", reason="needs openvino")
    out = tmp_path / "out"

    outcome = cli("export", checkpoint, "--backend", "openvino", "--out", out, "--json")

    assert outcome.status == 0  # transformers reports on standard error that it loads weights
    (graph,) = (out / "graphs").iterdir()
    assert outcome.json == {
        "folder": str(out),
        "class": "SentenceTransformer",
        "backend": "openvino",
        "dtype": "float32",
        "graphs": [str(graph)],
        "bytes": sum(path.stat().st_size for path in graph.iterdir()),
    }
    texts = ["a red tree", "", "copy"]
    vectors = SentenceTransformer(out, backend="openvino").encode(texts)
    np.testing.assert_allclose(vectors, SentenceTransformer(checkpoint, device="cpu").encode(texts), atol=1e-5)


@pytest.mark.torch
def test_auto_exports_for_each_runtime(cli, checkpoint, tmp_path, monkeypatch):
    """The folder has a graph for each runtime, so that loading can time both; the vectors equal torch's."""
    pytest.importorskip("openvino", reason="needs openvino")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))

    outcome = cli("export", checkpoint, "--backend", "auto", "--out", tmp_path / "out")

    assert outcome.status == 0
    assert f'SentenceTransformer("{tmp_path / "out"}", backend="auto", dtype="float32")' in outcome.out
    graphs = [path.name.partition("-")[0] for path in (tmp_path / "out" / "graphs").iterdir()]
    assert sorted(graphs) == ["onnx", "openvino"]
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import numpy, st_core
numpy.save(sys.argv[2], st_core.SentenceTransformer(sys.argv[1], backend="auto").encode(["a red tree", ""]))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "vectors.npy")], check=True)
    expected = SentenceTransformer(checkpoint, device="cpu").encode(["a red tree", ""])
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=1e-5)
    assert len(list((tmp_path / "cache" / "fastest").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "auto", "--dtype", "int8"], "name the backend for dtype='int8'"),
        (["--backend", "onnx", "--dtype", "int4"], "unknown dtype 'int4' for backend 'onnx'"),
        (["--backend", "onnx", "--dtype", "int8", "--calibrate", "absent.txt"], "absent.txt"),
        (["--out", "."], "name a new folder, or the model's own"),
    ],
)
def test_invalid_exports(cli, checkpoint, tmp_path, monkeypatch, arguments, message):
    """The status is 2 with one line, and nothing is written."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    outcome = cli("export", checkpoint, *arguments)

    assert outcome.status == 2
    assert message in outcome.error_line()
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_backend(cli, tmp_path):
    """The status is 2, and one line lists the backends."""
    exporting = cli("export", tmp_path, "--backend", "tensorrt")
    encoding = cli("encode", "text", "--backend", "tensorrt")

    assert (exporting.status, encoding.status) == (2, 2)
    assert "no graphs for backend 'tensorrt'; expected one of onnx, openvino" in exporting.error_line()
    assert "unknown backend 'tensorrt'; expected one of torch, onnx, openvino, auto" in encoding.error_line()


@pytest.mark.torch
def test_encode_with_the_fastest_backend(cli, checkpoint, tmp_path, monkeypatch):
    """The vectors of ``--backend auto`` equal torch's."""
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    outcome = cli("encode", "a red tree", "--model", checkpoint, "--backend", "auto", "--out", tmp_path / "v.npy")

    assert outcome.status == 0
    expected = SentenceTransformer(checkpoint, device="cpu").encode_document(["a red tree"])
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)
    assert len(list((tmp_path / "cache" / "fastest").iterdir())) == 1


@pytest.mark.torch
def test_encode_with_another_dtype(cli, checkpoint, tmp_path, monkeypatch):
    """The vectors equal the library's with the same backend and dtype, and differ from those in float32."""
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))

    for backend, dtype in [("openvino", "int8"), ("torch", "bfloat16")]:
        options = ("--model", checkpoint, "--backend", backend, "--dtype", dtype, "--out", tmp_path / "v.npy")
        assert cli("encode", "a red tree", *options).status == 0
        vectors = np.load(tmp_path / "v.npy").astype(np.float32)
        expected = SentenceTransformer(checkpoint, device="cpu", backend=backend, dtype=dtype)
        float32 = SentenceTransformer(checkpoint, device="cpu").encode_document(["a red tree"])
        np.testing.assert_allclose(vectors, expected.encode_document(["a red tree"]), atol=1e-6)
        assert np.abs(vectors - float32).max() > 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "auto", "--dtype", "int8"], "for dtype='int8' name the backend"),
        (["--dtype", "int8"], "dtype='int8' needs backend='onnx' or backend='openvino'"),
        (["--backend", "onnx", "--dtype", "int4"], "unknown dtype 'int4' for backend 'onnx'"),
    ],
)
def test_dtypes_that_a_backend_does_not_have(cli, checkpoint, arguments, message):
    """The status is 2, with the message of the library."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")

    outcome = cli("encode", "a red tree", "--model", checkpoint, *arguments)

    assert outcome.status == 2
    assert message in outcome.error_line()


def test_a_missing_runtime(cli, checkpoint, monkeypatch):
    """The status is 2, and the message has the command that installs the runtime."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    outcome = cli("export", checkpoint, "--backend", "openvino")

    assert outcome.status == 2
    assert install_command("openvino") in outcome.error_line()


def test_a_model_of_static_modules(cli, tmp_path, monkeypatch):
    """There is nothing to export, and the message says so even if no runtime is installed."""
    for runtime in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, runtime, None)

    for backend in ("openvino", "auto"):
        outcome = cli("export", "builtin:dense", "--backend", backend, "--out", tmp_path / "out")

        assert outcome.status == 3
        assert "builtin:dense runs on numpy and needs no graph" in outcome.error_line()
