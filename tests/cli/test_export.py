"""``st-connectors export``: what is written loads with the same numbers, and mistakes cost one line."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from st_core import SentenceTransformer


@pytest.fixture
def checkpoint(tmp_path):
    """A plain BERT of two small layers."""
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
def test_what_is_exported_loads_with_the_same_numbers(cli, checkpoint, tmp_path):
    """--json says where it is, which class loads it, and how large the graph is."""
    pytest.importorskip("openvino", reason="needs openvino")
    out = tmp_path / "out"

    outcome = cli("export", checkpoint, "--backend", "openvino", "--out", out, "--json")

    assert outcome.status == 0  # transformers shows on standard error that it loads weights
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
    found = SentenceTransformer(out, backend="openvino").encode(texts)
    np.testing.assert_allclose(found, SentenceTransformer(checkpoint, device="cpu").encode(texts), atol=1e-5)


@pytest.mark.torch
def test_auto_exports_for_each_runtime(cli, checkpoint, tmp_path, monkeypatch):
    """Both graphs are there, so that the folder can be timed where it is loaded; its vectors are torch's."""
    pytest.importorskip("openvino", reason="needs openvino")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))

    outcome = cli("export", checkpoint, "--backend", "auto", "--out", tmp_path / "out")

    assert outcome.status == 0
    assert f'SentenceTransformer("{tmp_path / "out"}", backend="auto", dtype="float32")' in outcome.out
    graphs = [place.name.partition("-")[0] for place in (tmp_path / "out" / "graphs").iterdir()]
    assert sorted(graphs) == ["onnx", "openvino"]
    code = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import numpy, st_core
numpy.save(sys.argv[2], st_core.SentenceTransformer(sys.argv[1], backend="auto").encode(["a red tree", ""]))
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "found.npy")], check=True)
    expected = SentenceTransformer(checkpoint, device="cpu").encode(["a red tree", ""])
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)
    assert len(list((tmp_path / "cache" / "fastest").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backend", "auto", "--dtype", "int8"], "for dtype='int8' name the backend"),
        (["--backend", "onnx", "--dtype", "int4"], "backend 'onnx' has no type 'int4'"),
        (["--backend", "onnx", "--dtype", "int8", "--calibrate", "absent.txt"], "absent.txt"),
        (["--out", "."], "name a new folder, or the model's own"),
    ],
)
def test_what_cannot_be_exported(cli, checkpoint, tmp_path, monkeypatch, arguments, says):
    """Status 2, one line, and nothing is written."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())

    outcome = cli("export", checkpoint, *arguments)

    assert outcome.status == 2
    assert says in outcome.complaint()
    assert sorted(tmp_path.iterdir()) == before


def test_a_backend_that_there_is_not(cli, tmp_path):
    """Status 2 and one line, with the names there are."""
    outcome = cli("export", tmp_path, "--backend", "tensorrt")
    encoding = cli("encode", "text", "--backend", "tensorrt")

    assert (outcome.status, encoding.status) == (2, 2)
    assert "there are graphs for onnx and openvino, not for backend 'tensorrt'" in outcome.complaint()
    assert "there is no backend 'tensorrt'; there are torch, onnx, openvino, auto" in encoding.complaint()


@pytest.mark.torch
def test_vectors_by_the_fastest_backend(cli, checkpoint, tmp_path, monkeypatch):
    """They are torch's."""
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    outcome = cli("encode", "a red tree", "--model", checkpoint, "--backend", "auto", "--out", tmp_path / "v.npy")

    assert outcome.status == 0
    expected = SentenceTransformer(checkpoint, device="cpu").encode_document(["a red tree"])
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)
    assert len(list((tmp_path / "cache" / "fastest").iterdir())) == 1


@pytest.mark.torch
def test_vectors_by_a_graph_of_another_type(cli, checkpoint, tmp_path, monkeypatch):
    """They are those that the library gives with that type, which are not float32's; so they are on torch."""
    pytest.importorskip("openvino", reason="needs openvino")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))

    for backend, dtype in [("openvino", "int8"), ("torch", "bfloat16")]:
        options = ("--model", checkpoint, "--backend", backend, "--dtype", dtype, "--out", tmp_path / "v.npy")
        assert cli("encode", "a red tree", *options).status == 0
        found = np.load(tmp_path / "v.npy").astype(np.float32)
        expected = SentenceTransformer(checkpoint, device="cpu", backend=backend, dtype=dtype)
        whole = SentenceTransformer(checkpoint, device="cpu").encode_document(["a red tree"])
        np.testing.assert_allclose(found, expected.encode_document(["a red tree"]), atol=1e-6)
        assert np.abs(found - whole).max() > 1e-5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--backend", "auto", "--dtype", "int8"], "for dtype='int8' name the backend"),
        (["--dtype", "int8"], "dtype='int8' needs backend='onnx' or backend='openvino'"),
        (["--backend", "onnx", "--dtype", "int4"], "backend 'onnx' has no type 'int4'"),
    ],
)
def test_types_that_do_not_go_with_a_backend(cli, checkpoint, arguments, says):
    """Status 2 and the library's own words."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")

    outcome = cli("encode", "a red tree", "--model", checkpoint, *arguments)

    assert outcome.status == 2
    assert says in outcome.complaint()


def test_a_missing_runtime(cli, checkpoint, monkeypatch):
    """Status 2, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "openvino", None)

    outcome = cli("export", checkpoint, "--backend", "openvino")

    assert outcome.status == 2
    assert "pip install 'st-connectors[openvino]'" in outcome.complaint()


def test_a_model_without_anything_to_export(cli, tmp_path, monkeypatch):
    """Is told at once, not after a runtime was installed for it."""
    for runtime in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, runtime, None)

    for backend in ("openvino", "auto"):
        outcome = cli("export", "builtin:dense", "--backend", backend, "--out", tmp_path / "out")

        assert outcome.status == 3
        assert "builtin:dense is made of static modules, which run on numpy; there is nothing" in outcome.complaint()
