"""Ten thousand malformed requests, and many clients at once: nothing hangs, nothing is swapped, nothing fails."""

from __future__ import annotations

import http.client
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from forms import has_form_of_api

from st_connectors.server.shapes.table import ROUTES

pytest.importorskip("fastapi", reason="needs the extra server")

pytestmark = pytest.mark.long

MALFORMED = int(os.environ.get("ST_SERVER_MALFORMED", "10000"))
REQUESTS = int(os.environ.get("ST_SERVER_REQUESTS", "4000"))
CLIENTS = 200


class Client:
    """A connection that is opened again when the server closes it."""

    def __init__(self, address):
        self.place = address.removeprefix("http://")
        self.connection = http.client.HTTPConnection(self.place, timeout=120)

    def post(self, path, content, headers=None):
        headers = {"content-type": "application/json"} if headers is None else headers
        try:
            self.connection.request("POST", path, content, headers)
            response = self.connection.getresponse()
        except (ConnectionError, http.client.BadStatusLine):
            self.connection.close()
            self.connection.request("POST", path, content, headers)
            response = self.connection.getresponse()
        body = response.read()
        return response.status, body


def broken(draw, example):
    """A request with one to three mistakes, as bytes."""
    body = json.loads(json.dumps(example))
    values = [None, True, -1, 0, 1e308, "", "x" * 2000, [], [[]], [1], ["a", 1], {}, {"a": {}}, [None], "\ud800"]
    for _ in range(draw.randint(1, 3)):
        if isinstance(body, dict) and body:
            name = draw.choice([*body, "extra"])
            if draw.random() < 0.3:
                body.pop(name, None)
            else:
                body[name] = draw.choice(values)
        else:
            body = draw.choice(values)
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    match draw.randint(0, 9):
        case 0:
            return content[: draw.randint(0, len(content))]
        case 1:
            at = draw.randint(0, len(content))
            return content[:at] + bytes([draw.randint(0, 255)]) + content[at:]
        case 2:
            return draw.choice([b"", b"NaN", b"[" * 5000, b"{}" * 3, b"\xff" * 10])
        case _:
            return content


def test_malformed_requests_are_refused_in_form(server):
    """An answer, or a refusal in the form of the API, and never an error of the server."""
    draw = random.Random(7)
    client = Client(server.address)
    bad = []
    for _ in range(MALFORMED):
        route = draw.choice(ROUTES)
        content = broken(draw, route.example)
        path = route.path + draw.choice(["", "", "?model=dense", "?model=none", "?input_type=%00", "?model="])
        status, body = client.post(path, content)
        answer = json.loads(body)
        if status != 200 and not (400 <= status < 500 and has_form_of_api(route.path, content, status, answer)):
            bad.append((path, content, status, answer))
    client.connection.close()

    assert bad == []
    assert server.get("/health").status == 200


def test_every_client_gets_its_own_vectors(server, dense, sparse):
    """Two hundred at once, with requests of all shapes and lengths."""
    words = [f"word{at}" for at in range(50)]

    def run(number):
        draw = random.Random(number)
        client = Client(server.address)
        for _ in range(max(1, REQUESTS // CLIENTS)):
            texts = [" ".join(draw.choices(words, k=draw.choice([1, 3, 10, 200]))) for _ in range(draw.randint(1, 4))]
            if draw.random() < 0.5:
                body = json.dumps({"inputs": texts, "normalize": False})
                status, answer = client.post("/embed", body)
                assert status == 200, answer
                np.testing.assert_allclose(json.loads(answer), dense.encode(texts), atol=1e-5)
            else:
                body = json.dumps({"inputs": texts, "models": ["sparse"]})
                status, answer = client.post("/v1/encode", body)
                assert status == 200, answer
                found = json.loads(answer)["models"]["sparse"]["vectors"]
                wanted = [row.indices.tolist() for row in sparse.encode(texts).rows()]
                assert [each["indices"] for each in found] == wanted
        client.connection.close()
        return number

    with ThreadPoolExecutor(CLIENTS) as threads:
        assert sorted(threads.map(run, range(CLIENTS))) == list(range(CLIENTS))
    assert server.service.model("dense")
    assert all(batcher.jobs == 0 for batcher in server.service._batchers.values())
