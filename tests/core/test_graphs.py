"""Models on ONNX Runtime and OpenVINO give the torch backend's numbers, and their graphs are kept safely."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards

pytestmark = pytest.mark.torch

DENSE = [
    "distilbert-cls",
    "roberta-six",
    "mpnet-max",
    "xlm-roberta-weighted",
    "bert-residual",
    "bert-token-dense",
    "bert-no-prompt",
    "router",
]
SPARSE = ["splade-max", "splade-sum", "splade-mpnet"]
RERANKERS = ["rerank-bert", "rerank-roberta", "rerank-plain-three"]
BACKENDS = ["openvino", "onnx"]
ON_ONNX = ["roberta-six", "bert-no-prompt", "splade-max", "splade-sum", "rerank-bert"]
"""Both runtimes are written from one trace, so the second is tried on one checkpoint for each thing that it must translate."""


def both(names):
    """Every checkpoint on OpenVINO, some on ONNX Runtime."""
    pairs = [(name, "openvino") for name in names] + [(name, "onnx") for name in names if name in ON_ONNX]
    return pytest.mark.parametrize(("name", "backend"), pairs)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of this file's own."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("cache")
    patch.setenv("ST_CONNECTORS_CACHE", str(folder))
    yield folder
    patch.undo()


@both(DENSE)
def test_dense_vectors_agree(checkpoints, texts, agree, name, backend):
    """Queries, documents and prompts, for every module that a graph can hold."""
    expected = checkpoints.load(st_core, "SentenceTransformer", name)
    model = checkpoints.load(st_core, "SentenceTransformer", name, backend=backend)

    assert model.backend == backend
    agree(model.encode_query(texts), expected.encode_query(texts))
    agree(model.encode_document(texts), expected.encode_document(texts))
    agree(
        model.encode_document(texts[:5], prompt="Group: ", normalize_embeddings=True),
        expected.encode_document(texts[:5], prompt="Group: ", normalize_embeddings=True),
    )


@both(SPARSE)
def test_sparse_vectors_agree(checkpoints, texts, agree, name, backend):
    """Vocabulary, maximum or sum, and saturation are part of the graph."""
    expected = checkpoints.load(st_core, "SparseEncoder", name)
    model = checkpoints.load(st_core, "SparseEncoder", name, backend=backend)

    agree(model.encode_query(texts).to_dense(), expected.encode_query(texts).to_dense())
    agree(model.encode_document(texts).to_dense(), expected.encode_document(texts).to_dense())


@both(RERANKERS)
def test_scores_agree(checkpoints, texts, agree, name, backend):
    """Heads of one and of three labels, with the checkpoint's own activation, softmax, or the caller's function."""
    expected = checkpoints.load(st_core, "CrossEncoder", name)
    model = checkpoints.load(st_core, "CrossEncoder", name, backend=backend)
    pairs = [(first, second) for first in texts[:4] for second in texts]

    agree(model.predict(pairs), expected.predict(pairs))
    agree(model.predict(pairs, apply_softmax=True), expected.predict(pairs, apply_softmax=True))
    agree(model.predict(pairs, activation_fn=torch.tanh), expected.predict(pairs, activation_fn=torch.tanh))
    agree(model.predict(pairs[0]), expected.predict(pairs[0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_text_alone_equals_the_text_in_a_batch(checkpoints, texts, agree, backend):
    """The composition of a batch changes nothing beyond float noise."""
    model = checkpoints.load(st_core, "SentenceTransformer", "roberta-six", backend=backend)
    together = model.encode(texts)

    agree(np.stack([model.encode(text) for text in texts]), together)
    agree(model.encode(texts[::-1], batch_size=2)[::-1], together)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_do_not_disturb_each_other(checkpoints, texts, agree, backend):
    """Eight threads with batches of different shapes get what one gets."""
    model = checkpoints.load(st_core, "SentenceTransformer", "roberta-six", backend=backend)
    jobs = [texts[start:] for start in range(8)] * 4
    expected = [model.encode(job) for job in jobs]

    with ThreadPoolExecutor(8) as threads:
        for found, wanted in zip(threads.map(model.encode, jobs), expected, strict=True):
            agree(found, wanted)
