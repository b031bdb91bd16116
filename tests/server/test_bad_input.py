"""Bad input of every sort is one clear refusal in the form of the API, or an answer where the protocol allows it."""

from __future__ import annotations

import json
import socket

import pytest
from forms import has_form_of_api

pytest.importorskip("fastapi", reason="needs the extra server")

DIGITS = b'{"inputs": "a", "dimensions": %s}'

REFUSED = {
    "text for ids": ("/decode", {"ids": "text"}, 422, "ids: expected a list, got a text"),
    "texts for ids": (
        "/decode",
        {"ids": [["a"]]},
        422,
        "ids[0]: expected a list of token ids, got a list of other values",
    ),
    "ids outside the vocabulary": ("/decode", {"ids": [2**31 - 1]}, 422, "a token id is outside the vocabulary"),
    "ids of others": ("/v1/embeddings", {"input": [[1]], "model": "dense"}, 400, "input contains token ids"),
    "no inputs, TEI": ("/embed", {"inputs": []}, 400, "`inputs` cannot be empty"),
    "no inputs, OpenAI": ("/v1/embeddings", {"input": [], "model": "dense"}, 400, "input cannot be empty"),
    "no inputs, Cohere": ("/v2/embed", {"model": "dense", "texts": []}, 400, "texts cannot be empty"),
    "no documents": ("/v2/rerank", {"query": "q", "documents": []}, 400, "documents cannot be empty"),
    "an empty text, OpenAI": ("/v1/embeddings", {"input": "", "model": "dense"}, 400, "input cannot be empty, nor"),
    "NaN": ("/embed", DIGITS % b"NaN", 400, "the body is not valid JSON: see line 1, column"),
    "infinity": ("/embed", DIGITS % b"1e999", 400, "the body is not valid JSON"),
    "a huge whole number": ("/embed", DIGITS % b"1%s" % (b"0" * 40), 422, "dimensions: expected a number from 1 to"),
    "a huge number": ("/embed", DIGITS % b"1e300", 422, "dimensions: expected a number from 1 to 2147483647"),
    "a negative number": ("/embed", DIGITS % b"-1", 422, "dimensions: expected a number from 1 to 2147483647"),
    "a fraction": ("/embed", DIGITS % b"1.5", 422, "dimensions: expected a whole number, got a fraction"),
    "too many dimensions": ("/embed", DIGITS % b"999", 422, "dimensions: the model 'dense' has 256, got 999"),
    "nested lists": (
        "/embed",
        {"inputs": [["a"]]},
        422,
        "inputs[0]: expected a text or a list of token ids, got a list",
    ),
    "deeply nested lists": ("/embed", b"[" * 100_000, 400, "the body is not valid JSON"),
    "a number for texts": ("/embed", {"inputs": 5}, 422, "inputs: expected a text or a list of texts, got a number"),
    "no object": ("/embed", b"null", 422, "the body: expected an object, got null"),
    "half a character": ("/embed", b'{"inputs": "\\ud800"}', 400, "the body is not valid JSON: see line 1"),
    "wrong kind, OpenSearch": ("/opensearch/sparse?model=dense", {"inputs": ["a"]}, 400, "the model 'dense' is dense"),
    "unknown model, Qdrant": ("/qdrant/inference", {"inputs": [{"data": "a", "model": "x"}]}, 404, "unknown model"),
    "a list for a text, Qdrant": (
        "/qdrant/inference",
        {"inputs": [{"data": ["a"], "model": "dense"}]},
        400,
        "inputs[0].data: expected a text, got a list",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused(server, name):
    """With the status of the API, its form, and what was expected."""
    path, body, status, message = REFUSED[name]
    answer = server.post(path, body)

    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert (answer.status, has_form_of_api(path.partition("?")[0], content, status, answer.json)) == (status, True)
    error = answer.json.get("error", answer.json.get("message"))
    assert (error["message"] if isinstance(error, dict) else error).startswith(message)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed?model=dense", {"inputs": ["", "\x00"]}),
        ("/embed_sparse", {"inputs": ""}),
        ("/api/embed", {"model": "dense", "input": ""}),
        ("/api/embed", {"model": "dense", "input": []}),
        ("/vectors", {"text": ""}),
        ("/qdrant/inference", {"inputs": []}),
    ],
)
def test_empty_input_is_answered_where_the_protocol_allows_it(server, path, body):
    """TEI, Ollama, Weaviate and Qdrant."""
    assert server.post(path, body).status == 200


def test_a_body_that_is_cut_off(server):
    """The connection ends before the body: nothing is computed, and others are served."""
    host, port = server.address.removeprefix("http://").split(":")
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(head + b'{"inputs": "a')
        connection.shutdown(socket.SHUT_WR)
        assert b"200" not in connection.recv(100)
    assert server.post("/embed", {"inputs": "a"}).status == 200
