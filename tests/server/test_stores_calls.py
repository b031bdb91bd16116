"""What stores send from inside: Qdrant's inference objects through its real client, and the calls of Milvus."""

from __future__ import annotations

import json
import urllib.parse
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest

from st_connectors.testing.serving import Serving

TEXTS = ["copy a directory tree", "parse a date string"]


def inference_objects(value):
    """Yield the inference objects of a request with their places, as Qdrant finds them."""
    if isinstance(value, dict) and "model" in value and "text" in value:
        yield value
        return
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inference_objects(each)


def resolved(value, vectors):
    """Return a request with the vectors in place of its inference objects, in the same order."""
    if isinstance(value, dict) and "model" in value and "text" in value:
        return next(vectors)
    if isinstance(value, dict):
        return {name: resolved(each, vectors) for name, each in value.items()}
    return [resolved(each, vectors) for each in value] if isinstance(value, list) else value


class Qdrant(BaseHTTPRequestHandler):
    """Forwards the inference objects of a request as Qdrant 1.18 does, and keeps the request with its vectors."""

    protocol_version = "HTTP/1.1"
    encoder = None
    requests: list

    def do_PUT(self):
        self.answer("update")

    def do_POST(self):
        self.answer("search")

    def do_GET(self):
        self.send(200, {"title": "qdrant", "version": "1.18.3", "result": {"exists": True}, "status": "ok", "time": 0})

    def answer(self, inference):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        objects = [
            {"data": each["text"], "data_type": "text", "model": each["model"], "options": each.get("options")}
            for each in inference_objects(body)
        ]
        found = type(self).encoder.post("/qdrant/inference", {"inputs": objects, "inference": inference, "token": None})
        if found.status != 200:
            self.send(found.status, {"status": {"error": found.json["error"]}, "time": 0})
            return
        type(self).requests.append(resolved(body, iter(found.json["embeddings"])))
        result = {"points": []} if inference == "search" else {"operation_id": 1, "status": "completed"}
        self.send(200, {"result": result, "status": "ok", "time": 0})

    def send(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def test_qdrant(server, dense, sparse):
    """Points and queries of its client arrive with the vectors of documents and of queries, dense and sparse mixed."""
    qdrant_client = pytest.importorskip("qdrant_client", reason="needs the client of Qdrant")
    models = qdrant_client.models
    handler = type("Handler", (Qdrant,), {"encoder": server, "requests": []})
    with Serving(handler) as store:
        client = qdrant_client.QdrantClient(
            url=f"http://127.0.0.1:{store.port}", cloud_inference=True, check_compatibility=False
        )
        points = [
            models.PointStruct(
                id=at,
                vector={
                    "sparse": models.Document(text=text, model="sparse"),
                    "dense": models.Document(text=text, model="dense"),
                },
            )
            for at, text in enumerate(TEXTS)
        ]
        client.upsert("books", points)
        client.query_points(
            "books",
            prefetch=[
                models.Prefetch(query=models.Document(text="copy", model="sparse"), using="sparse"),
                models.Prefetch(query=models.Document(text="copy", model="dense"), using="dense"),
            ],
            query=models.FusionQuery(fusion=models.Fusion.RRF),
        )
        with pytest.raises(qdrant_client.http.exceptions.UnexpectedResponse, match="unknown model"):
            client.upsert("books", [models.PointStruct(id=1, vector=models.Document(text="a", model="other"))])
        client.close()

    upserted, searched = handler.requests
    for row, point in zip(dense.encode_document(TEXTS), upserted["points"], strict=True):
        np.testing.assert_allclose(point["vector"]["dense"], row, atol=1e-6)
    for row, point in zip(sparse.encode_document(TEXTS).rows(), upserted["points"], strict=True):
        assert point["vector"]["sparse"]["indices"] == row.indices.tolist()
    first, second = (
        each["query"]["nearest"] if "nearest" in each["query"] else each["query"] for each in searched["prefetch"]
    )
    assert first["indices"] == sparse.encode_query("copy").indices.tolist()
    np.testing.assert_allclose(second, dense.encode_query("copy"), atol=1e-6)


def test_milvus(server, dense):
    """It sets the path of its endpoint, so that the model is named in the query string, which stays."""
    endpoint = urllib.parse.urlsplit(f"{server.address}?model=dense")
    path = f"/embed?{endpoint.query}"

    answer = server.post(path, {"inputs": TEXTS, "truncate": True, "truncation_direction": "Right"})

    np.testing.assert_allclose(answer.json, dense.encode(TEXTS, normalize_embeddings=True), atol=1e-6)
