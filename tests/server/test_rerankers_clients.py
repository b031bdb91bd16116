"""The clients that people use get the scores of the library from a running server, and its order."""

from __future__ import annotations

import numpy as np
import pytest
from served import running

import st_core

pytest.importorskip("fastapi", reason="needs the extra server")
pytest.importorskip("torch", reason="needs torch")

pytestmark = pytest.mark.torch

QUERY = "how to copy a folder"
TEXTS = ["copy a directory tree", "parse a date string", "a longer text of many more words than the others have"]


@pytest.fixture(scope="module")
def served(checkpoints):
    """A server of a reranker, a dense model and another reranker."""
    from st_connectors.server.settings import ModelSettings, Settings

    rerank = str(checkpoints.folder("rerank-bert"))
    models = (
        ModelSettings("dense", "builtin:dense"),
        ModelSettings("rerank", rerank, devices=("cpu",)),
        ModelSettings("other", str(checkpoints.folder("rerank-identity")), devices=("cpu",)),
    )
    with running(Settings(models, access_log=False)) as started:
        yield started


@pytest.fixture(scope="module")
def ranked(checkpoints):
    """The positions of the texts, best first, and their scores by the library."""
    model = checkpoints.load(st_core, "CrossEncoder", "rerank-bert")
    scores = model.predict([[QUERY, text] for text in TEXTS])
    order = np.argsort(-scores)
    return order.tolist(), scores[order]


def agrees(found, ranked):
    """Whether pairs of positions and scores are those of the library."""
    order, scores = ranked
    positions, values = zip(*found, strict=True)
    return list(positions) == order[: len(found)] and np.allclose(values, scores[: len(found)], atol=1e-5)


@pytest.mark.parametrize("version", ["Client", "ClientV2"])
def test_cohere(served, ranked, version):
    """Both versions of its API."""
    cohere = pytest.importorskip("cohere", reason="needs the client of Cohere")
    httpx = pytest.importorskip("httpx", reason="needs the client of Cohere")
    with httpx.Client(timeout=60) as connections:
        client = getattr(cohere, version)(api_key="any", base_url=served.address, httpx_client=connections)
        whole = client.rerank(model="rerank", query=QUERY, documents=TEXTS)
        best = client.rerank(model="rerank", query=QUERY, documents=TEXTS, top_n=1)
        with pytest.raises(cohere.NotFoundError, match="unknown model"):
            client.rerank(model="missing", query=QUERY, documents=TEXTS)

    assert agrees([(each.index, each.relevance_score) for each in whole.results], ranked)
    assert agrees([(each.index, each.relevance_score) for each in best.results], ranked)


def test_milvus(served, ranked):
    """Its rerank function of the provider TEI appends the path to its endpoint, and names no model in the body."""
    body = {"query": QUERY, "texts": TEXTS, "truncate": True, "truncation_direction": "Right", "max_batch": 32}
    answer = served.post("/rerank?model=rerank", body)

    assert agrees([(each["index"], each["score"]) for each in answer.json], ranked)


def test_langchain(served, ranked):
    """Its Cohere class, which works with an older client: `make test-clients` installs it in its own environment."""
    langchain = pytest.importorskip("langchain_cohere", reason="needs LangChain, installed by `make test-clients`")
    import cohere
    import httpx

    with httpx.Client(timeout=60) as connections:
        client = cohere.ClientV2(api_key="any", base_url=served.address, httpx_client=connections)
        found = langchain.CohereRerank(client=client, model="rerank").rerank(TEXTS, QUERY)

    assert agrees([(each["index"], each["relevance_score"]) for each in found], ranked)
