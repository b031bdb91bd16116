"""Tokens beyond the model's vocabulary raise an error on every backend, only for texts that contain them."""

from __future__ import annotations

import json
import shutil

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards

pytestmark = [pytest.mark.torch, pytest.mark.long]


@pytest.fixture(params=["bert-mean", "roberta-six", "qwen3-last"])
def added(request, checkpoints, tmp_path):
    """A checkpoint and its copy whose tokenizer was told of one token more, as the user who forgets the model."""
    whole = checkpoints.folder(request.param)
    folder = shutil.copytree(whole, tmp_path / "added")
    from transformers import AutoTokenizer

    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"filler{number}" for number in range(rows - len(tokenizer))] + ["qqnew"])
    assert len(tokenizer) == rows + 1
    tokenizer.save_pretrained(folder)
    return whole, folder


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnx"])
def test_a_token_without_a_vector_is_told(added, agree, monkeypatch, tmp_path, backend):
    """OpenVINO would give numbers; texts without that token have theirs."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    whole, folder = added
    model = st_core.SentenceTransformer(folder, device="cpu", backend=backend)

    agree(model.encode(["copy a tree"]), st_core.SentenceTransformer(whole, device="cpu").encode(["copy a tree"]))
    with pytest.raises(
        st_core.ModelBroken, match=r"the tokenizer produced the token (\d+) and the model has vectors for"
    ):
        model.encode(["copy a tree", "copy a qqnew tree"])
