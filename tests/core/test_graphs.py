"""Models on ONNX Runtime and OpenVINO give the torch backend's numbers, and their graphs are kept safely."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

from st_core.install import install_command  # noqa: E402 - after the guard

pytestmark = [pytest.mark.torch, pytest.mark.long]

BACKENDS = ["openvino", "onnx"]
DENSE = [
    ("roberta-six", "openvino"),  # every pooling
    ("roberta-six", "onnx"),
    ("distilbert-cls", "openvino"),  # the first token alone, then a Dense
    ("router", "openvino"),  # queries by numpy, documents by a mean that is normalised
]
SPARSE = [
    ("splade-sum", "openvino"),
    ("splade-sum", "onnx"),
    ("sparse-router", "openvino"),  # queries by numpy, documents by a maximum
]
RERANKERS = [("rerank-roberta", "openvino"), ("rerank-bert", "onnx")]  # three labels and one
"""Both runtimes are written from one trace, so the second is tried on one checkpoint of each class."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of this file's own."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("cache")
    patch.setenv("ST_CONNECTORS_CACHE", str(folder))
    yield folder
    patch.undo()


@pytest.mark.parametrize(("name", "backend"), DENSE)
def test_dense_vectors_agree(exports, texts, agree, name, backend):
    """Queries, documents and prompts, for every module that a graph can hold."""
    expected, model = exports.pair("SentenceTransformer", name, backend)

    assert model.backend == backend
    agree(model.encode_query(texts), expected.encode_query(texts))
    agree(model.encode_document(texts), expected.encode_document(texts))
    agree(
        model.encode_document(texts[:5], prompt="Group: ", normalize_embeddings=True),
        expected.encode_document(texts[:5], prompt="Group: ", normalize_embeddings=True),
    )


@pytest.mark.parametrize(("name", "backend"), SPARSE)
def test_sparse_vectors_agree(exports, texts, agree, name, backend):
    """Vocabulary, maximum or sum, and saturation are part of the graph."""
    expected, model = exports.pair("SparseEncoder", name, backend)

    agree(model.encode_query(texts).to_dense(), expected.encode_query(texts).to_dense())
    agree(model.encode_document(texts).to_dense(), expected.encode_document(texts).to_dense())
    few, wanted = (each.encode_document(texts, max_active_dims=7) for each in (model, expected))
    assert np.diff(few.indptr).max() <= 7
    agree(
        np.sort(few.to_dense(), axis=1), np.sort(wanted.to_dense(), axis=1)
    )  # of nearly equal weights either may stay


@pytest.mark.parametrize(("name", "backend"), RERANKERS)
def test_scores_agree(exports, texts, agree, name, backend):
    """Heads of one and of three labels, with the checkpoint's own activation, softmax, or the caller's function."""
    expected, model = exports.pair("CrossEncoder", name, backend)
    pairs = [(first, second) for first in texts[:4] for second in texts]

    agree(model.predict(pairs), expected.predict(pairs))
    agree(model.predict(pairs, apply_softmax=True), expected.predict(pairs, apply_softmax=True))
    agree(model.predict(pairs, activation_fn=torch.tanh), expected.predict(pairs, activation_fn=torch.tanh))
    agree(model.predict(pairs[0]), expected.predict(pairs[0]))


def test_a_function_of_tensors_needs_torch(exports, texts, monkeypatch):
    """Without it the message says how to get it; the checkpoint's own activation needs none."""
    _, model = exports.pair("CrossEncoder", "rerank-bert", "onnx")
    pairs = [(texts[0], text) for text in texts]
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(
        ImportError, match=f"activation .* needs the extra 'torch': {re.escape(install_command('torch'))}"
    ):
        model.predict(pairs, activation_fn=abs)
    assert model.predict(pairs).shape == (len(pairs),)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_text_alone_equals_the_text_in_a_batch(exports, texts, agree, backend):
    """The composition of a batch changes nothing beyond float noise."""
    _, model = exports.pair("SentenceTransformer", "roberta-six", backend)
    together = model.encode(texts)

    agree(np.stack([model.encode(text) for text in texts]), together)
    agree(model.encode(texts[::-1], batch_size=2)[::-1], together)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mistral-weighted", "SentenceTransformer"),  # causal, with a window
        ("gpt2-last", "SentenceTransformer"),  # causal, padded on the left
        ("modernbert-cls", "SentenceTransformer"),  # a window in both directions
        ("splade-modernbert", "SparseEncoder"),
    ],
)
def test_padding_that_attends_to_nothing(exports, agree, name, kind, backend):
    """Its numbers are those of nobody, and do not spread to the tokens of a text beside a much longer one."""
    expected, model = exports.pair(kind, name, backend)
    texts = ["a b c", "a directory tree " * 30, "", "tree"]

    agree(model.encode(texts), expected.encode(texts))


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_do_not_disturb_each_other(exports, texts, agree, backend):
    """Eight threads with batches of different shapes get what one gets."""
    _, model = exports.pair("SentenceTransformer", "roberta-six", backend)
    jobs = [texts[start:] for start in range(8)] * 4
    expected = [model.encode(job) for job in jobs]

    with ThreadPoolExecutor(8) as threads:
        for found, wanted in zip(threads.map(model.encode, jobs), expected, strict=True):
            agree(found, wanted)


def test_token_vectors(exports, texts, agree):
    """As on torch where the graph has them; where it computes the first token alone, the message says so."""
    expected, model = exports.pair("SentenceTransformer", "roberta-six", "openvino")
    asked = {"output_value": "token_embeddings"}
    for found, wanted in zip(model.encode(texts[:3], **asked), expected.encode(texts[:3], **asked), strict=True):
        agree(found, wanted)
    _, first_only = exports.pair("SentenceTransformer", "distilbert-cls", "openvino")

    with pytest.raises(ValueError, match=r"'openvino' has no token_embeddings: it computes only the token.*'torch'"):
        first_only.encode(texts[:3], **asked)
