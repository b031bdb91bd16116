"""The clients that people use get the numbers of the library from a running server."""

from __future__ import annotations

import numpy as np
import pytest

TEXTS = ["copy a directory tree", "parse a date string"]


@pytest.fixture(scope="module")
def unit(dense):
    return dense.encode(TEXTS, normalize_embeddings=True)


@pytest.fixture(scope="module")
def tokens(dense):
    return int(dense.prepare(TEXTS).lengths.sum())


@pytest.mark.parametrize("encoding_format", [None, "float", "base64"])
def test_openai(server, unit, tokens, encoding_format):
    """Its client requests base64 by default."""
    openai = pytest.importorskip("openai", reason="needs the client of OpenAI")
    options = {} if encoding_format is None else {"encoding_format": encoding_format}
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="any", max_retries=0) as client:
        answer = client.embeddings.create(input=TEXTS, model="dense", **options)
        cut = client.embeddings.create(input=TEXTS, model="dense", dimensions=8)
        with pytest.raises(openai.NotFoundError, match="unknown model") as unknown:
            client.embeddings.create(input=TEXTS, model="other")
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(input=[[1, 2]], model="dense")
        names = [each.id for each in client.models.list()]

    if encoding_format != "base64":
        np.testing.assert_allclose([each.embedding for each in answer.data], unit, atol=1e-6)
    assert answer.usage.total_tokens == tokens
    assert [len(each.embedding) for each in cut.data] == [8, 8]
    assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
    assert names == ["dense", "sparse"]


def test_cohere_embed(server, unit, tokens):
    """Version 2 of its client, with several types at once."""
    cohere = pytest.importorskip("cohere", reason="needs the client of Cohere")
    httpx = pytest.importorskip("httpx", reason="needs the client of Cohere")
    with httpx.Client(timeout=60) as connections:
        client = cohere.ClientV2(api_key="any", base_url=server.address, httpx_client=connections)
        answer = client.embed(
            model="dense", input_type="search_document", texts=TEXTS, embedding_types=["float", "ubinary"]
        )

    np.testing.assert_allclose(answer.embeddings.float_, unit, atol=1e-6)
    assert answer.embeddings.ubinary == np.packbits(unit > 0, axis=1).tolist()
    assert answer.meta.billed_units.input_tokens == tokens


def test_ollama(server, unit):
    """Its client adds a tag to names of models."""
    ollama = pytest.importorskip("ollama", reason="needs the client of Ollama")
    client = ollama.Client(host=server.address)
    try:
        answer = client.embed(model="dense", input=TEXTS)
        old = client.embeddings(model="dense:latest", prompt=TEXTS[0])
        with pytest.raises(ollama.ResponseError, match="unknown model"):
            client.embed(model="other", input=TEXTS)
    finally:
        client._client.close()

    np.testing.assert_allclose(answer.embeddings, unit, atol=1e-6)
    assert len(old.embedding) == unit.shape[1]


def test_inference_client(server, unit):
    """huggingface_hub sends everything to the base URL."""
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    client = hub.InferenceClient(server.address)

    np.testing.assert_allclose(client.feature_extraction(TEXTS[0], normalize=True), unit[:1], atol=1e-6)
    found = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    np.testing.assert_allclose(found, unit @ unit[0], atol=1e-6)
