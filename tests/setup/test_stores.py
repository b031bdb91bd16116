"""The command against imitated stores: what it creates, refuses and removes."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest
from imitated import Imitation

pytest.importorskip("opensearchpy", reason="needs the opensearch extra")
pytest.importorskip("elasticsearch", reason="needs the elasticsearch extra")


def elasticsearch(licence, stored=()):
    """Return the answers of a cluster with a licence, which keeps what is sent by PUT."""
    kept = dict(stored)

    def answer(method, path, body):
        place = path.partition("?")[0]
        if place == "/_license":
            return 200, {"license": licence}
        if method == "PUT":
            kept[place] = body
            return 200, {"acknowledged": True}
        if place not in kept:
            return 404, {"error": {"type": "resource_not_found_exception", "reason": "no such object"}, "status": 404}
        if method == "DELETE":
            del kept[place]
            return 200, {"acknowledged": True}
        name = place.rpartition("/")[2]
        if name == "_count":
            return 200, kept[place]
        if "/_inference/" in place:
            return 200, {"endpoints": [{"inference_id": name, **kept[place]}]}
        return 200, {name: kept[place]}

    return answer, kept


def arguments(store, place, encoder, *more):
    return store, "--in", f"{store}://{place}", "--collection", "books", "--encoder", encoder, *more


def test_a_basic_licence_gets_nothing_and_is_told_of_the_gateway(setup, encoder_server):
    """No request changes anything, with and without ``--dry-run``."""
    answer, kept = elasticsearch({"type": "basic", "status": "active"})
    with Imitation(answer) as cluster:
        for more in ([], ["--dry-run"]):
            status, out, err = setup(*arguments("elasticsearch", cluster.place, encoder_server, *more))
            assert (status, out) == (3, "")
            assert "needs an Enterprise or trial licence, got basic: nothing was created" in err
            assert "st-connectors gateway" in err

    assert kept == {}
    assert cluster.changes() == []


def test_an_expired_trial_counts_as_none(setup, encoder_server):
    """The message says so."""
    with Imitation(elasticsearch({"type": "trial", "status": "expired"})[0]) as cluster:
        status, _, err = setup(*arguments("elasticsearch", cluster.place, encoder_server))

    assert status == 3
    assert "got trial, which is expired" in err


def test_a_trial_gets_everything_and_removal_leaves_nothing(setup, encoder_server, monkeypatch):
    """A second run changes nothing; the key goes to the store, and is never printed."""
    monkeypatch.setenv("ST_REMOTE_API_KEY", "s3cret")
    answer, kept = elasticsearch({"type": "trial", "status": "active"})
    with Imitation(answer) as cluster:
        first = setup(*arguments("elasticsearch", cluster.place, encoder_server, "--json"))
        created = set(kept)
        second = setup(*arguments("elasticsearch", cluster.place, encoder_server, "--json"))
        dry = setup(*arguments("elasticsearch", cluster.place, encoder_server, "--dry-run"))
        keys = [
            body["service_settings"]["secret_parameters"]["api_key"]
            for path, body in kept.items()
            if "/_inference/" in path
        ]
        kept["/books/_count"] = {"count": 0}
        removed = setup(*arguments("elasticsearch", cluster.place, encoder_server, "--remove", "--json"))

    assert created == {
        "/_inference/text_embedding/books-dense",
        "/_inference/sparse_embedding/books-sparse",
        "/_ingest/pipeline/books-ingest",
        "/books",
    }
    assert {each["outcome"] for each in json.loads(first[1])["done"]} == {"created"}
    assert {each["outcome"] for each in json.loads(second[1])["done"]} == {"unchanged"}
    assert keys == ["s3cret", "s3cret"]
    assert not any("s3cret" in text for outcome in (first, second, dry, removed) for text in outcome[1:])
    assert {each["outcome"] for each in json.loads(removed[1])["done"]} == {"removed"}
    assert created.isdisjoint(kept)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/_ingest/pipeline/books-ingest", {"processors": []}, "the ingest pipeline 'books-ingest' exists and was not"),
        ("/books", {"mappings": {}}, "--backfill books copies its documents"),
        ("/_inference/text_embedding/books-dense", {"service": "openai", "service_settings": {}}, "another --name"),
    ],
)
def test_objects_of_others_in_elasticsearch_stay(setup, encoder_server, path, body, message):
    """Nothing is created, and removal leaves them."""
    answer, kept = elasticsearch({"type": "enterprise", "status": "active"}, {path: body})
    with Imitation(answer) as cluster:
        status, _, err = setup(*arguments("elasticsearch", cluster.place, encoder_server))
        removal = setup(*arguments("elasticsearch", cluster.place, encoder_server, "--remove"))

    assert status == 3
    assert message in err
    assert removal[:2] == (0, "there is no set-up 'books'\n")
    assert kept == {path: body}


class Qdrant:
    """The answers of a server that encodes the documents of points at an address, or not at all."""

    def __init__(self, encoder, **collections):
        self.encoder, self.collections, self.points = encoder, dict(collections), {}

    def __call__(self, method, path, body):
        steps = path.partition("?")[0].strip("/").split("/")
        if steps == ["collections", "books"]:
            return self.collection(method, body)
        if steps[2:] == ["points"] and method == "PUT":
            return self.upsert(body)
        if steps[2:] == ["points", "delete"]:
            self.points.clear()
            return 200, {"result": {}}
        if steps[2:] == ["points", "count"]:
            return 200, {"result": {"count": len(self.points)}}
        return 200, {"result": list(self.points.values())}

    def collection(self, method, body):
        if method == "PUT":
            self.collections["books"] = {"params": {"vectors": body["vectors"]}, "metadata": body["metadata"]}
            return 200, {"result": True}
        if "books" not in self.collections:
            return 404, {"status": {"error": "Not found: Collection `books` doesn't exist!"}}
        if method == "DELETE":
            del self.collections["books"]
            return 200, {"result": True}
        return 200, {"result": {"config": self.collections["books"]}}

    def upsert(self, body):
        if self.encoder is None:
            return 500, {"status": {"error": "Service internal error: InferenceService is not initialized"}}
        for point in body["points"]:
            inputs = [
                {"data": each["text"], "data_type": "text", "model": each["model"], "options": None}
                for each in point["vector"].values()
            ]
            sent = json.dumps({"inputs": inputs, "inference": "update", "token": None}).encode()
            request = urllib.request.Request(
                f"{self.encoder}/qdrant/inference", sent, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request) as answer:
                vectors = json.load(answer)["embeddings"]
            self.points[point["id"]] = {"id": point["id"], "vector": dict(zip(point["vector"], vectors, strict=True))}
        return 200, {"result": {}}


def test_qdrant_is_checked_by_a_point_that_it_encodes(setup, encoder_server):
    """The vectors of the point are compared with the library's, and the point is deleted."""
    with Imitation(Qdrant(encoder_server)) as store:
        status, out, err = setup(*arguments("qdrant", store.place, encoder_server))
        again = setup(*arguments("qdrant", store.place, encoder_server, "--check"))
        removed = setup(*arguments("qdrant", store.place, encoder_server, "--remove"))

    assert status == 0
    assert f"QDRANT__INFERENCE__ADDRESS={encoder_server}/qdrant/inference" in err
    assert len(re.findall("as by the library", out)) == 2
    assert again[0] == 0
    assert removed[1] == "removed: collection books\n"
    assert ("POST", "/collections/books/points/delete?wait=true") in store.changes()


def test_qdrant_without_the_settings_keeps_no_collection(setup, encoder_server):
    """The message names the settings and the way without them."""
    qdrant = Qdrant(None)
    with Imitation(qdrant) as store:
        status, _, err = setup(*arguments("qdrant", store.place, encoder_server))

    assert status == 3
    assert "set the three QDRANT__INFERENCE__ variables" in err
    assert "InferenceService is not initialized" in err
    assert "st-connectors ingest" in err
    assert qdrant.collections == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"params": {}}, "exists and was not created by this set-up: choose another --collection"),
        (
            {
                "params": {"vectors": {"dense": {"size": 8, "distance": "Cosine"}}},
                "metadata": {"st_connectors_setup": "created by st-connectors setup: books"},
            },
            "has vectors 'dense' of 8 Cosine, and the model needs 256 Cosine",
        ),
    ],
)
def test_other_collections_of_qdrant_stay(setup, encoder_server, config, message):
    """Collections of others, and those of another model."""
    qdrant = Qdrant(encoder_server, books=config)
    with Imitation(qdrant) as store:
        status, _, err = setup(*arguments("qdrant", store.place, encoder_server))

    assert status == 3
    assert message in err
    assert qdrant.collections == {"books": config}


def milvus(collections):
    """Return the answers of Milvus, whose status is 200 for errors too."""

    def answer(_method, path, body):
        name, action = body["collectionName"], path.rpartition("/")[2]
        if action == "create":
            collections[name] = body["schema"]
        elif name not in collections:
            return 200, {"code": 100, "message": f"can't find collection[collection={name}]"}
        elif action == "drop":
            del collections[name]
        elif action == "query":
            return 200, {"code": 0, "data": [{"count(*)": 0}]}
        elif action == "describe":
            return 200, {"code": 0, "data": {"collectionName": name, **collections[name]}}
        return 200, {"code": 0, "data": {}}

    return answer


def test_milvus_gets_a_collection_with_a_function(setup, encoder_server):
    """Created once, then unchanged, then removed."""
    collections = {}
    with Imitation(milvus(collections)) as store:
        outcomes = [
            setup(*arguments("milvus", store.place, encoder_server, *more))[:2]
            for more in ([], ["--json"], ["--remove"])
        ]

    assert [status for status, _ in outcomes] == [0, 0, 0]
    assert outcomes[0][1].startswith("created: collection books\n")
    assert json.loads(outcomes[1][1])["done"][0]["outcome"] == "unchanged"
    assert outcomes[2][1] == "removed: collection books\n"
    assert collections == {}


def test_collections_of_others_in_milvus_stay(setup, encoder_server):
    """They have another description."""
    collections = {"books": {"description": "mine", "fields": []}}
    with Imitation(milvus(collections)) as store:
        status, _, err = setup(*arguments("milvus", store.place, encoder_server))

    assert status == 3
    assert "was not created by this set-up" in err
    assert collections == {"books": {"description": "mine", "fields": []}}


OPENSEARCH = {"version": {"number": "2.19.1", "distribution": "opensearch"}}


@pytest.mark.parametrize(
    ("root", "plugins", "message"),
    [
        ({"version": {"number": "2.11.0", "distribution": "opensearch"}}, [], "2.19 is the oldest"),
        ({"version": {"number": "9.5.3"}}, [], "expected OpenSearch, got Elasticsearch"),
        (OPENSEARCH, ["opensearch-knn"], "need the plugin opensearch-ml"),
        (OPENSEARCH, ["opensearch-ml"], "need the plugin opensearch-neural-search"),
    ],
)
def test_clusters_that_cannot_call_an_encoder(setup, encoder_server, root, plugins, message):
    """Too old, another product, without a plugin."""

    def answer(_method, path, _body):
        nodes = {"nodes": {"a": {"plugins": [{"name": name} for name in plugins]}}} if plugins else {}
        return 200, root if path == "/" else nodes

    with Imitation(answer) as cluster:
        status, _, err = setup(*arguments("opensearch", cluster.place, encoder_server))

    assert status == 3
    assert message in err
    assert cluster.changes() == []


@pytest.mark.parametrize("store", ["opensearch", "elasticsearch", "qdrant", "milvus"])
def test_something_else_answers_at_the_address_of_the_store(setup, encoder_server, store):
    """A page in HTML is named as such, in one line."""
    with Imitation(lambda *_: (200, b"<html>hello</html>")) as page:
        status, _, err = setup(*arguments(store, page.place, encoder_server, "--remove"))

    assert status == 3
    assert len(err.splitlines()) == 1
    assert "JSON" in err


@pytest.mark.parametrize("store", ["opensearch", "elasticsearch", "qdrant", "milvus"])
def test_nothing_answers_at_the_address_of_the_store(setup, encoder_server, store):
    """One line, status 3."""
    with Imitation(lambda *_: (200, {})) as gone:
        place = gone.place
    status, _, err = setup(*arguments(store, place, encoder_server, "--remove"))

    assert status == 3
    assert place.partition(":")[2] in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["nowhere"], "unknown store 'nowhere'; expected one of opensearch"),
        (["opensearch"], "setup opensearch needs --in, such as opensearch://localhost:9200, and --collection"),
        (["opensearch", "--in", "qdrant://localhost", "--collection", "c"], "expected an address of opensearch"),
        (["qdrant", "--in", "qdrant+edge:./x", "--collection", "c"], "expected the address of a server"),
        (["opensearch", "--check", "--remove"], "--check and --remove exclude each other"),
        (["opensearch", "--yes"], "need --remove"),
        (["opensearch", "--backfill-by", "magic"], "expected reindex or scan"),
        (["opensearch", "--in", "opensearch://localhost", "--collection", "A"], "name 'A': expected lower-case"),
    ],
)
def test_wrong_options(setup, encoder_server, more, message):
    """Status 2 and one line that says what to do."""
    status, _, err = setup(*more, "--encoder", encoder_server)

    assert status == 2
    assert message in err


def test_an_encoder_server_that_is_down(setup):
    """No request is sent to the store."""
    with Imitation(lambda *_: (200, {})) as store, Imitation(lambda *_: (200, {})) as gone:
        address = f"http://{gone.place}"
        gone.serving.close()
        status, _, err = setup(*arguments("qdrant", store.place, address))
        gone.serving.close = lambda: None

    assert status == 3
    assert address in err
    assert store.requests == []


@pytest.mark.parametrize("store", ["vespa", "weaviate"])
def test_components_are_printed(setup, encoder_server, store):
    """As text for files, and as JSON."""
    status, out, _ = setup(store, "--encoder", encoder_server)
    as_json = json.loads(setup(store, "--encoder", encoder_server, "--json")[1])

    assert status == 0
    assert all(text in out for text in as_json["files"].values())
    assert any(encoder_server in text for text in as_json["files"].values())
