"""Transformer checkpoints are served with the numbers of the library: dense, sparse with routes, and rerankers."""

from __future__ import annotations

import numpy as np
import pytest
from served import running

import st_core
from st_core.protocols import ModelKind
from st_core.vectors import SparseMatrix, SparseVector

pytest.importorskip("fastapi", reason="needs the extra server")
pytest.importorskip("torch", reason="needs torch")

pytestmark = pytest.mark.torch

TEXTS = ["one two three", "", "a longer text of many more words than the others have", "café 🙂"]
PAIRS = [["a query", text] for text in TEXTS]
MODELS = {
    "dense": ("SentenceTransformer", "bert-mean"),
    "plain": ("SentenceTransformer", "bert-no-prompt"),
    "routes": ("SparseEncoder", "sparse-router"),
    "splade": ("SparseEncoder", "splade-sum"),
    "rerank": ("CrossEncoder", "rerank-bert"),
    "labels": ("CrossEncoder", "rerank-plain-three"),
    "identity": ("CrossEncoder", "rerank-identity"),
}


@pytest.fixture(scope="module")
def served(checkpoints):
    """A server of seven models, whose kinds it finds out itself."""
    from st_connectors.server.settings import ModelSettings, QueueLimits, Settings

    models = tuple(
        ModelSettings(name, str(checkpoints.folder(folder)), devices=("cpu",)) for name, (_, folder) in MODELS.items()
    )
    with running(Settings(models, queue=QueueLimits(batch_tokens=16), access_log=False)) as started:
        yield started


@pytest.fixture
def model(checkpoints):
    """Return a function that loads a model of the library by the name under which it is served."""
    return lambda name: checkpoints.load(st_core, *MODELS[name])


def test_kinds_are_found_out(served):
    """By the files of a checkpoint."""
    kinds = {name: each.kind for name, each in served.service.models.items()}

    assert kinds == {
        "dense": ModelKind.DENSE,
        "plain": ModelKind.DENSE,
        "routes": ModelKind.SPARSE,
        "splade": ModelKind.SPARSE,
        "rerank": ModelKind.RERANKER,
        "labels": ModelKind.RERANKER,
        "identity": ModelKind.RERANKER,
    }


@pytest.mark.parametrize("name", ["dense", "plain"])
@pytest.mark.parametrize("role", [None, "query", "document"])
def test_dense(served, model, name, role):
    """Prompts are those of the role; a request is computed in parts, and comes back in order."""
    encode = getattr(model(name), "encode" if role is None else f"encode_{role}")

    found = served.post("/v1/encode", {"inputs": TEXTS * 3, "models": [name], "role": role}).json

    np.testing.assert_allclose(found["models"][name]["vectors"], encode(TEXTS * 3), atol=1e-5)


def test_a_prompt_by_its_name(served, model):
    """As in TEI; unknown ones are refused with those that exist."""
    found = served.post("/embed?model=dense", {"inputs": TEXTS, "normalize": False, "prompt_name": "query"}).json
    refused = served.post("/embed?model=dense", {"inputs": TEXTS, "prompt_name": "nothing"})

    np.testing.assert_allclose(found, model("dense").encode(TEXTS, prompt_name="query"), atol=1e-5)
    assert refused.json["error"].startswith("the model 'dense' has no prompt of this name; it has: ")


def test_vectors_of_tokens(served, model):
    """One matrix for each text."""
    found = served.post("/embed_all?model=dense", {"inputs": TEXTS}).json
    wanted = model("dense").encode(TEXTS, output_value="token_embeddings")

    for rows, each in zip(found, wanted, strict=True):
        np.testing.assert_allclose(rows, each, atol=1e-5)


def test_long_texts_are_cut_at_either_end(served, checkpoints):
    """The end of a text is cut off, or its beginning, and the answer says so."""
    model = checkpoints.load(st_core, "SentenceTransformer", "bert-mean")
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    body = {"inputs": [" ".join(words), "one"], "models": ["dense"], "max_tokens": 6}

    right = served.post("/v1/encode", body).json["models"]["dense"]
    left = served.post("/v1/encode", body | {"truncation_direction": "Left"}).json["models"]["dense"]
    refused = served.post("/v1/encode", body | {"truncate": False})

    wanted = model.encode([" ".join(words), "one"], processing_kwargs={"max_length": 6})
    np.testing.assert_allclose(right["vectors"], wanted, atol=1e-5)
    assert (right["truncated"], right["tokens"][0]) == ([True, False], 6)
    ids = model.tokenizer(" ".join(words))["input_ids"]
    end = model.tokenizer.decode([*ids[-5:-1]])
    np.testing.assert_allclose(left["vectors"][0], model.encode([end])[0], atol=1e-5)
    assert refused.status == 413
    assert len(model.encode([" ".join(words)])[0]) == len(wanted[0])


@pytest.mark.parametrize("name", ["routes", "splade"])
@pytest.mark.parametrize("role", ["query", "document"])
def test_sparse(served, model, name, role):
    """Each role has its route, and ``max_active_dims`` that of the request or of the model."""
    wanted = getattr(model(name), f"encode_{role}")(TEXTS)
    few = getattr(model(name), f"encode_{role}")(TEXTS, max_active_dims=3)

    body = {"inputs": TEXTS, "models": [name], "role": role}
    found = served.post("/v1/encode", body).json["models"][name]["vectors"]
    cut = served.post("/v1/encode", body | {"max_active_dims": 3}).json["models"][name]["vectors"]

    for matrix, vectors in ((wanted, found), (few, cut)):
        rows = [SparseVector.from_arrays(each["indices"], each["values"]) for each in vectors]
        dense = SparseMatrix.from_rows(rows, matrix.shape[1]).to_dense()
        np.testing.assert_allclose(dense, matrix.to_dense(), atol=5e-6)  # other batches round the last digits otherwise
    assert max(len(each["indices"]) for each in cut) == 3


@pytest.mark.parametrize("name", ["rerank", "labels", "identity"])
def test_scores(served, model, name):
    """After the model's own activation, as logits, and between 0 and 1."""
    torch = pytest.importorskip("torch")
    own = model(name)
    logits = torch.as_tensor(own.predict(PAIRS, activation_fn=torch.nn.Identity()))
    unit = torch.softmax(logits, -1) if name == "labels" else torch.sigmoid(logits)

    for scale, wanted in (("own", own.predict(PAIRS)), ("raw", logits), ("unit", unit)):
        found = served.post(f"/v1/predict?model={name}", {"inputs": PAIRS, "scale": scale}).json
        np.testing.assert_allclose(np.squeeze(found["scores"]), np.squeeze(wanted), atol=1e-5)


def test_ranking(served, model):
    """All protocols rank as the library does; TEI's raw scores are logits."""
    ranked = [each["corpus_id"] for each in model("rerank").rank("a query", TEXTS)]
    body = {"query": "a query", "model": "rerank"}

    tei = served.post("/rerank?model=rerank", {"query": "a query", "texts": TEXTS}).json
    cohere = served.post("/v2/rerank", body | {"documents": TEXTS, "top_n": 3}).json
    jina = served.post("/v1/rerank", body | {"documents": TEXTS}).json
    vespa = served.post("/opensearch/rerank", body | {"documents": TEXTS}).json

    assert [each["index"] for each in tei] == ranked
    assert [each["index"] for each in cohere["results"]] == ranked[:3]
    assert [each["index"] for each in jina["results"]] == ranked
    assert [each["index"] for each in vespa["results"]] == [0, 1, 2, 3]
    scores = model("rerank").predict(PAIRS)
    np.testing.assert_allclose([each["relevance_score"] for each in vespa["results"]], scores, atol=1e-5)


def test_labels(served, model):
    """A model of several labels classifies, and does not rank."""
    found = served.post("/predict?model=labels", {"inputs": PAIRS[0]}).json
    refused = served.post("/rerank?model=labels", {"query": "a", "texts": ["b"]})

    assert [each["label"] for each in found] == [f"LABEL_{at}" for at in np.argsort(-model("labels").predict(PAIRS)[0])]
    assert sum(each["score"] for each in found) == pytest.approx(1)
    assert (refused.status, refused.json["error"]) == (424, "the model 'labels' has 3 labels; a reranker has one")


def test_several_models_of_a_kind(served):
    """A request must name one."""
    answer = served.post("/embed", {"inputs": "a"})

    assert (answer.status, answer.json["error"]) == (404, "several dense models are served; name one of dense, plain")
