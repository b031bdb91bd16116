"""LangChain's classes get the vectors of the library from a running server; `make test-clients` installs them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="needs LangChain, installed by `make test-clients`")

TEXTS = ["copy a directory tree", "parse a date string"]


@pytest.fixture(scope="module")
def unit(dense):
    return dense.encode(TEXTS, normalize_embeddings=True)


def test_openai(server, unit):
    """With texts instead of token ids, as documented; the refusal of ids names the switch."""
    from langchain_openai import OpenAIEmbeddings
    from openai import BadRequestError

    options = {"model": "dense", "base_url": f"{server.address}/v1", "api_key": "any", "max_retries": 0}
    embeddings = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)

    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), unit, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), unit[0], atol=1e-6)
    np.testing.assert_allclose(asyncio.run(embeddings.aembed_documents(TEXTS)), unit, atol=1e-6)
    with pytest.raises(BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings.client.create(input=[[1, 2]], model="dense")


def test_cohere(server, unit):
    """Queries and documents."""
    from langchain_cohere import CohereEmbeddings

    embeddings = CohereEmbeddings(model="dense", base_url=server.address, cohere_api_key="any")

    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), unit, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), unit[0], atol=1e-6)
