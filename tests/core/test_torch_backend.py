"""The torch backend: memory, number types, heads, and what it refuses to invent."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from once import made_once

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

from st_core import (  # noqa: E402 - after the guard
    CrossEncoder,
    InputTooLong,
    ModelBroken,
    ModelError,
    ModelUnsupported,
    SentenceTransformer,
    SparseEncoder,
)
from st_core.backends.torch.pooling import splade, splade_from_hidden  # noqa: E402 - after the guard
from st_core.backends.torch.products import vocabulary_blocks  # noqa: E402 - after the guard
from st_core.backends.torch.runner import TorchRunner  # noqa: E402 - after the guard
from st_core.modules.splade_pooling import SpladePooling  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch


def test_out_of_memory_is_answered_with_smaller_batches(checkpoints, texts, monkeypatch):
    """A card that holds 200 tokens gives the vectors of one that holds all."""
    model = SentenceTransformer(checkpoints.folder("bert-mean"), device="cpu")
    wanted = model.encode(texts)
    run, failures = TorchRunner.run, []

    def small(self, tokens, options):
        if len(tokens) * int(tokens.lengths.max()) > 200:
            failures.append(len(tokens))
            raise torch.OutOfMemoryError
        return run(self, tokens, options)

    monkeypatch.setattr(TorchRunner, "run", small)

    assert np.allclose(model.encode(texts), wanted, atol=1e-6)
    assert failures


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_vocabulary_in_blocks_is_the_whole_vocabulary(summed, doubled, packed):
    """Pooling from states, block by block, is pooling of all logits, wherever the padding is."""
    random = torch.Generator().manual_seed(3)
    hidden = torch.randn(3, 5, 8, generator=random)
    weight, bias = torch.randn(9000, 8, generator=random), torch.randn(9000, generator=random)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]])
    module = SpladePooling(summed, doubled)

    whole = splade(module, torch.nn.functional.linear(hidden, weight, bias), mask)
    blocks = splade_from_hidden(module, hidden, mask, vocabulary_blocks(weight, pack=packed), bias)

    assert torch.allclose(whole, blocks, atol=1e-5)


def halve(whole, folder):
    """The checkpoint with its tensors in half precision."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(whole, folder)
    tensors = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, "float32"), ({"dtype": "bfloat16"}, "bfloat16"), ({"model_kwargs": {"dtype": "float16"}}, "float16")],
)
def test_number_types(checkpoints, given, wanted):
    """Float32 on the processor unless asked otherwise, even for a checkpoint of half precision.

    Bfloat16 comes out as float32.
    """
    folder = made_once(checkpoints.root / "bert-half", lambda folder: halve(checkpoints.folder("bert-mean"), folder))
    model = SentenceTransformer(folder, device="cpu", **given)

    vectors = model.encode(["copy a directory tree"])

    assert model._engine.runner(None).info.precision == wanted
    assert vectors.dtype == (np.float16 if wanted == "float16" else np.float32)
    assert np.allclose(
        vectors,
        SentenceTransformer(checkpoints.folder("bert-mean"), device="cpu").encode(["copy a directory tree"]),
        atol=0.03,
    )


def test_unknown_number_types_are_refused(checkpoints):
    """The message names the type."""
    with pytest.raises(ValueError, match="float12"):
        SentenceTransformer(checkpoints.folder("bert-mean"), device="cpu", dtype="float12")


def test_a_classifier_is_not_invented(checkpoints):
    """A cross-encoder of a checkpoint without a classifier would score at random."""
    with pytest.raises(ModelUnsupported, match="random"):
        CrossEncoder(checkpoints.folder("plain-bert"), device="cpu")


def test_truncated_weights_are_named(checkpoints, tmp_path):
    """A file that breaks off is an error of the model's, with its folder."""
    import shutil

    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "cut")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ModelBroken, match="cut"):
        SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("tokenizer.json", None, "no vocabulary"),
        ("tokenizer.json", "null", "tokenizer cannot be loaded"),
        ("tokenizer_config.json", "[]", "tokenizer cannot be loaded"),
        ("tokenizer_config.json", {"model_max_length": 0}, "model_max_length"),
        ("config.json", {"num_attention_heads": 0}, "division|modulo"),
        ("config.json", {"hidden_size": "x"}, "configuration cannot be used: .*'hidden_size': .*int"),
        ("config.json", {"hidden_size": 10**9}, "expected at most"),
        ("config.json", {"vocab_size": 10**12}, "other shapes than"),
        ("config.json", {"architectures": 5}, "architectures: expected a list"),
        ("sentence_bert_config.json", {"modality_config": {"text": []}}, "text: expected an object"),
        ("sentence_bert_config.json", {"model_kwargs": {"nonsense": 1}}, "nonsense"),
        ("1_Pooling/config.json", {"pooling_mode": 5}, "pooling_mode: expected a list"),
    ],
    ids=str,
)
def test_files_that_contradict_the_model_are_named(checkpoints, tmp_path, name, change, problem):
    """Any error that a library raises over a file becomes the model's, with folder and reason."""
    import json
    import shutil

    path = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "changed") / name
    if change is None:
        path.unlink()
    else:
        path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(ModelError, match=rf"changed.*({problem})") as caught:
        SentenceTransformer(tmp_path / "changed", device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("device", "problem"), [("nonsense", "unknown device"), ("cuda:99", "no device")])
def test_devices_that_are_not_there_are_refused(checkpoints, device, problem):
    """A device is an argument: what is wrong with it is a ValueError, before any weight is read."""
    with pytest.raises(ValueError, match=problem):
        SentenceTransformer(checkpoints.folder("bert-mean"), device=device)


def test_the_shown_tokenizer_is_not_the_one_that_works(checkpoints, texts):
    """Whatever a caller does to ``model.tokenizer``, the vectors stay."""
    model = SentenceTransformer(checkpoints.folder("bert-mean"), device="cpu")
    wanted = model.encode(texts)

    model.tokenizer(texts, truncation=True, max_length=3, padding="max_length")
    model.tokenizer.backend_tokenizer.enable_truncation(2)

    assert np.array_equal(model.encode(texts), wanted)


def test_tensors_and_matrices_hold_the_same(checkpoints, texts):
    """The sparse matrix, the COO tensor and the dense tensor are one result."""
    model = SparseEncoder(checkpoints.folder("splade-max"), device="cpu")

    matrix = model.encode(texts)

    assert np.array_equal(model.encode(texts, convert_to_tensor=True).to_dense().numpy(), matrix.to_dense())
    assert np.array_equal(
        model.encode(texts, convert_to_tensor=True, convert_to_sparse_tensor=False).numpy(), matrix.to_dense()
    )


def test_one_text_of_many_pairs_is_read_once(checkpoints, monkeypatch):
    """Ranking tokenises the query once, and scores are those of pair by pair."""
    model = CrossEncoder(checkpoints.folder("rerank-bert"), device="cpu")
    documents = ["copy a tree", "parse a date", "the quick brown fox"]
    tokenizer = model._engine.runner(None).info.tokenizer
    read = []
    plain = type(tokenizer).plain
    monkeypatch.setattr(type(tokenizer), "plain", lambda self, listed: read.append(len(listed)) or plain(self, listed))

    ranked = model.rank("how to copy", documents, return_documents=True)

    assert read == [4]
    monkeypatch.undo()
    alone = [float(model.predict(("how to copy", document))) for document in documents]
    assert [hit["text"] for hit in ranked] == [documents[n] for n in np.argsort(-np.array(alone), kind="stable")]
    assert np.allclose([hit["score"] for hit in ranked], sorted(alone, reverse=True), atol=1e-6)


@pytest.mark.parametrize(("name", "positions"), [("bert-mean", 64), ("roberta-six", 64), ("mpnet-max", 64)])
def test_a_text_without_positions_is_named(checkpoints, texts, name, positions):
    """As many tokens as the model has positions are read; one more is an error that says how many there are."""
    model = SentenceTransformer(str(checkpoints.folder(name)), device="cpu")

    model.encode(texts, processing_kwargs={"max_length": positions})
    for options in ({"max_length": positions + 1}, {"truncation": False}):
        with pytest.raises(InputTooLong, match=f"the {positions} positions"):
            model.encode(texts, processing_kwargs=options)
