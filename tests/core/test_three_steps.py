"""Prepare, compute and finish give what ``encode`` and ``predict`` give, and requests that differ share batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import st_core
from st_core import SentenceTransformer, SparseEncoder

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

pytestmark = pytest.mark.torch

DENSE = ("bert-mean", "bert-no-prompt", "distilbert-cls", "static")
REQUESTS = (
    {"prompt": "query: "},
    {"prompt": "a longer prompt for a document: "},
    {},
    {"processing_kwargs": {"max_length": 5}, "prompt": "query: "},
)


def short(texts):
    """Texts of all kinds that fit into the positions of a small model."""
    return [text for text in texts if len(text) < 1000]


def agree_with_encode(model, requests, texts):
    """Whether requests computed together give each request's own vectors, row by row."""
    parts = [texts[at::2] for at in range(len(requests))]
    prepared = [model.prepare(part, **request) for part, request in zip(parts, requests, strict=True)]
    together = [model.finish(each) for each in model.compute(prepared)]

    for part, request, found in zip(parts, requests, together, strict=True):
        np.testing.assert_allclose(found, model.encode(part, **request), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(
    "options", [{}, {"normalize_embeddings": True, "truncate_dim": 5}, {"convert_to_tensor": True}]
)
def test_dense_steps_give_what_encode_gives(checkpoints, texts, name, options):
    """Bit for bit, of a list and of a single text."""
    model = checkpoints.load(st_core, "SentenceTransformer", name)
    for inputs in (short(texts), "a text"):
        prepared = model.prepare(inputs, prompt="query: ")
        (computed,) = model.compute([prepared])

        found, wanted = model.finish(computed, **options), model.encode(inputs, prompt="query: ", **options)

        assert type(found) is type(wanted)
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", ["splade-sum", "sparse-router", "csr"])
@pytest.mark.parametrize("keep", [None, 7])
def test_sparse_steps_give_what_encode_gives(checkpoints, texts, name, keep):
    """Bit for bit, with and without a cut."""
    model = checkpoints.load(st_core, "SparseEncoder", name)
    task = {"task": "document"} if "router" in name else {}
    inputs = short(texts)

    (computed,) = model.compute([model.prepare(inputs, max_active_dims=keep, **task)])

    assert model.finish(computed) == model.encode(inputs, max_active_dims=keep, **task)


@pytest.mark.parametrize("apply_softmax", [False, True])
@pytest.mark.parametrize("name", ["rerank-bert", "rerank-roberta"])
def test_cross_encoder_steps_give_what_predict_gives(checkpoints, texts, name, apply_softmax):
    """Bit for bit, of a list and of a single pair."""
    model = checkpoints.load(st_core, "CrossEncoder", name)
    some = short(texts)
    for inputs in (list(itertools.pairwise(some)), ("a query", "a document")):
        (computed,) = model.compute([model.prepare(inputs)])

        found = model.finish(computed, apply_softmax=apply_softmax)

        assert np.array_equal(found, model.predict(inputs, apply_softmax=apply_softmax))


@pytest.mark.parametrize("name", DENSE)
def test_requests_of_different_prompts_and_lengths_share_batches(checkpoints, texts, name, monkeypatch):
    """Each gets the vectors that it gets alone, also where a pooling leaves out the prompt, in fewer batches."""
    model = checkpoints.load(st_core, "SentenceTransformer", name)
    agree_with_encode(model, REQUESTS, short(texts))

    batches = []
    runner = type(model._engine.runner(None))
    run = runner.run
    monkeypatch.setattr(runner, "run", lambda self, *arguments: batches.append(0) or run(self, *arguments))
    model.compute([model.prepare(["a text"], **request) for request in REQUESTS])
    assert len(batches) == 1


@pytest.mark.long
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("written", ["exported", "given"])
def test_graphs_compute_different_prompts_together(exports, texts, backend, written):
    """A graph with one prompt length per batch runs once for each length."""
    pytest.importorskip("onnxruntime" if backend == "onnx" else "openvino")
    folder = (exports.folder if written == "exported" else exports.given)("bert-no-prompt", backend)

    agree_with_encode(SentenceTransformer(folder, backend=backend), REQUESTS, short(texts))


def test_requests_of_different_routes_and_cuts_are_computed_apart(checkpoints, texts):
    """Results come in the order of the requests, whatever shares a batch."""
    model = checkpoints.load(st_core, "SparseEncoder", "sparse-router")
    requests = [
        {"task": "document", "max_active_dims": 3},
        {"task": "query"},
        {"task": "document"},
        {"task": "query"},
    ]
    some = short(texts)
    parts = [some[at : at + 4] for at in range(len(requests))]

    computed = model.compute([model.prepare(part, **each) for part, each in zip(parts, requests, strict=True)])

    for part, request, each in zip(parts, requests, computed, strict=True):
        found, wanted = model.finish(each), model.encode(part, **request)
        np.testing.assert_allclose(found.to_dense(), wanted.to_dense(), atol=1e-6)
        assert (np.diff(found.indptr) == np.diff(wanted.indptr)).all()


def test_a_prepared_request_tells_its_tokens():
    """Lengths count the prompt and what truncation leaves; nothing is computed for them."""
    model = SparseEncoder("builtin:sparse")

    prepared = model.prepare(["one two three", "", "one"], task="document")

    assert len(prepared) == 3
    assert prepared.lengths.tolist() == [row.size for row in prepared.tokens.ids]
    assert prepared.lengths[0] > prepared.lengths[2]


def test_nothing_to_compute():
    """No request, and a request of no texts."""
    model = SentenceTransformer("builtin:dense")

    assert model.compute([]) == []
    (computed, other) = model.compute([model.prepare([]), model.prepare(["a text"])])
    assert model.finish(computed).shape == (0,)
    assert np.array_equal(model.finish(other), model.encode(["a text"]))


def test_the_limit_of_a_request(checkpoints):
    """It is that of the call, else that of the model, and none without truncation."""
    model = checkpoints.load(st_core, "SentenceTransformer", "bert-mean")

    def limit(**processing):
        return model.token_limit(model.prepare(["a text"], processing_kwargs=processing))

    assert limit() == model.max_seq_length
    assert limit(max_length=7) == 7
    assert limit(truncation=False) is None
