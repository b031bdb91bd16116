"""What the gateway writes: the documents that ``Index.ingest`` writes, and an error for each that it cannot."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_nodes import StoringNode, storing_node

pytest.importorskip("h11", reason="needs the extra server")
elasticsearch = pytest.importorskip("elasticsearch", reason="needs the extra elasticsearch")
pytest.importorskip("fastapi", reason="needs the extra server")

from elasticsearch import Elasticsearch, helpers  # noqa: E402 - after the guard

from st_connectors import Index  # noqa: E402 - after the guard
from st_connectors.elasticsearch import wire  # noqa: E402 - after the guard
from st_connectors.gateway import Limits, Rule, Settings, serving  # noqa: E402 - after the guard
from st_connectors.models import ModelOptions  # noqa: E402 - after the guard
from st_connectors.schemas import build_schema, lazy_models  # noqa: E402 - after the guard
from st_core import SentenceTransformer, SparseEncoder  # noqa: E402 - after the guard

TEXTS = ["a whale hunts a ship", "a voyage under the sea", "cooking pasta", "the moon and a rocket", ""]
RULE = Rule(
    "their*",
    text="body",
    dense="embedding",
    dense_model="builtin:dense",
    sparse="tokens",
    sparse_model="builtin:sparse",
)
LIMITS = Limits(check_s=3600)


def own_mapping(name: str, payload: str) -> dict[str, Any]:
    """Return the mapping of a collection of the built-in models."""
    models = lazy_models("builtin:dense", "builtin:sparse", ModelOptions("torch", None))
    schema = build_schema(name, models, None, text=True, filterable={"year": "int"}, fusion=None)
    form = wire.form_for(schema, payload=payload)
    return dict(wire.index_body(schema, form, "9.5.3", {})["mappings"])


@pytest.fixture(scope="module")
def mappings() -> dict[str, Any]:
    """The mappings of a collection in both forms, of an index of another program, and of one without vectors."""
    theirs = {
        "properties": {
            "body": {"type": "text"},
            "embedding": {"type": "dense_vector", "dims": 256, "index": True, "similarity": "cosine"},
            "tokens": {"type": "sparse_vector"},
        }
    }
    dimension = SentenceTransformer("builtin:dense").get_embedding_dimension()
    theirs["properties"]["embedding"]["dims"] = dimension
    own = {"books": own_mapping("books", "string"), "tales": own_mapping("tales", "fields")}
    return {**own, "theirs": theirs, "plain": {"properties": {}}}


@pytest.fixture
def node(mappings) -> Iterator[StoringNode]:
    with storing_node(**mappings) as started:
        yield started


@contextmanager
def gateway(node: StoringNode, *rules: Rule, **limits: Any) -> Iterator[str]:
    settings = Settings((f"elasticsearch://127.0.0.1:{node.port}",), rules=rules, limits=replace(LIMITS, **limits))
    with serving(settings) as address:
        yield address


@contextmanager
def client(address: str) -> Iterator[Elasticsearch]:
    with Elasticsearch(address, max_retries=0, request_timeout=60) as opened:
        yield opened


def bulk(address: str, *lines: Any, path: str = "/_bulk", pack: bool = False) -> tuple[int, Any]:
    """Send lines, JSON or bytes, as a bulk request and return the status and body of the answer."""
    body = b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)
    headers = {"content-type": "application/x-ndjson", **({"content-encoding": "gzip"} if pack else {})}
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.request("POST", path, gzip.compress(body) if pack else body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content)


def as_float32(value: Any) -> Any:
    """Return a JSON value with its numbers rounded to float32, as the engines store those of vectors."""
    match value:
        case dict():
            return {key: as_float32(each) for key, each in value.items()}
        case list():
            return [as_float32(each) for each in value]
        case float():
            return float(np.float32(value))
        case _:
            return value


@pytest.mark.parametrize("collection", ["books", "tales"])
def test_bulk_writes_what_ingest_writes(node, collection):
    """Ids, payloads, copies for filters, and vectors are those of ``Index.ingest``, for both forms of payloads."""
    documents = [{"id": str(number), "text": text, "year": 1990 + number} for number, text in enumerate(TEXTS)]
    place = f"//127.0.0.1:{node.port}"
    with (
        client(f"http:{place}") as direct,
        Index.open(f"elasticsearch:{place}", collection=collection, client=direct) as index,
    ):
        index.ingest(documents)
    ingested = dict(node.documents)
    node.documents.clear()
    with gateway(node) as address, client(address) as through:
        actions = [{"_index": collection, "_id": each["id"], **each} for each in documents]
        done, errors = helpers.bulk(through, actions)

    assert (done, errors) == (len(TEXTS), [])
    assert len(ingested) == len(TEXTS)
    assert as_float32(node.documents) == as_float32({(collection, key): each for (_, key), each in ingested.items()})


def expected(text: str) -> tuple[Any, Any]:
    """Return the vectors of a text by the models themselves."""
    dense = SentenceTransformer("builtin:dense").encode_document([text])[0]
    sparse = SparseEncoder("builtin:sparse").encode_document([text])
    row = next(iter(sparse.rows()))
    return dense / np.linalg.norm(dense), {
        str(index): float(value) for index, value in zip(row.indices, row.values, strict=True)
    }


def test_rule_adds_vectors_to_documents_of_another_program(node):
    """The document is theirs, with vectors at the fields of the rule."""
    with gateway(node, RULE) as address:
        status, answer = bulk(address, {"index": {"_id": "1"}}, {"body": TEXTS[0], "n": 1.0}, path="/theirs/_bulk")

    written = node.documents["theirs", "1"]
    dense, sparse = expected(TEXTS[0])
    assert (status, answer["errors"]) == (200, False)
    assert written.keys() == {"body", "n", "embedding", "tokens"}
    assert written["embedding"] == pytest.approx(dense.tolist(), abs=1e-6)
    assert written["tokens"] == pytest.approx(sparse, abs=1e-6)


def test_items_keep_their_order_around_errors(node):
    """An item without a text fails with its own error; the others, also of other indices, are written in order."""
    with gateway(node) as address:
        status, answer = bulk(
            address,
            {"index": {"_index": "books", "_id": "1"}},
            {"text": TEXTS[0]},
            {"index": {"_index": "books", "_id": "2"}},
            {"title": "no text"},
            {"delete": {"_index": "books", "_id": "9"}},
            {"create": {"_index": "plain", "_id": "3"}},
            {"anything": 1},
            {"index": {"_index": "books", "_id": "4"}},
            {"text": 7},
            {"index": {"_index": "books", "_id": "5"}},
            {"text": TEXTS[1], "year": "late"},
        )

    results = [(action, each["_id"], each["status"]) for item in answer["items"] for action, each in item.items()]
    assert status == 200
    assert answer["errors"]
    assert results == [
        ("index", "1", 200),
        ("index", "2", 400),
        ("delete", "9", 200),
        ("create", "3", 200),
        ("index", "4", 400),
        ("index", "5", 400),
    ]
    assert "'text' is missing" in answer["items"][1]["index"]["error"]["reason"]
    assert "year" in answer["items"][5]["index"]["error"]["reason"]
    assert set(node.documents) == {("books", "1"), ("plain", "3")}
    assert node.documents["plain", "3"] == {"anything": 1}


def test_bulk_without_vectors_is_passed_as_it_is(node):
    """Not a byte of a bulk request to other indices changes, malformed or not."""
    lines = [
        {"index": {"_index": "plain", "_id": "1"}},
        b'{ "a" : 1.50, "a":2 }',
        {"delete": {"_index": "x", "_id": 1}},
    ]
    body = b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)
    with gateway(node) as address:
        bulk(address, *lines)
        bulk(address, *lines, pack=True)
        status, _ = bulk(address, *lines, b"nonsense", {})

    assert node.bulks == [body, body, body + b"nonsense\n{}\n"]
    assert status == 400


def test_malformed_line_is_answered_by_the_engine(node):
    """A line that is no action reaches the engine, whose refusal of the whole request is the answer."""
    with gateway(node) as address:
        status, answer = bulk(address, {"index": {"_index": "books", "_id": "1"}}, {"text": "x"}, b"nonsense", {})

    assert status == 400
    assert answer["error"]["type"] == "x_content_parse_exception"


@pytest.mark.parametrize("pack", [False, True])
def test_large_bulk_is_written_in_parts(node, pack):
    """Parts are limited, and their results are those of one request."""
    lines = [each for n in range(25) for each in ({"index": {"_id": str(n)}}, {"text": f"document {n}"})]
    with gateway(node, part_documents=10, whole_bytes=200) as address:
        status, answer = bulk(address, *lines, path="/books/_bulk", pack=pack)

    assert (status, answer["errors"]) == (200, False)
    assert [item["index"]["_id"] for item in answer["items"]] == [str(n) for n in range(25)]
    assert all(body.count(b"\n") <= 20 for body in node.bulks)
    assert len(node.documents) == 25


def test_refused_part_fails_its_items_only(node):
    """If the engine is overloaded in the middle, the items of this part fail with its status, to be sent again."""
    node.bulk_statuses = [200, 429, 200]
    lines = [each for n in range(6) for each in ({"index": {"_id": str(n)}}, {"text": f"document {n}"})]
    with gateway(node, part_documents=2) as address:
        status, answer = bulk(address, *lines, path="/books/_bulk")

    assert status == 200
    assert [item["index"]["status"] for item in answer["items"]] == [200, 200, 429, 429, 200, 200]
    assert answer["items"][2]["index"]["error"]["type"] == "stub_exception"


def test_refusal_of_the_first_part_is_the_answer(node):
    """As long as nothing is written, the answer is that of the engine: its status, and its body."""
    node.bulk_statuses = [429]
    lines = [each for n in range(6) for each in ({"index": {"_id": str(n)}}, {"text": f"document {n}"})]
    with gateway(node, part_documents=2) as address:
        status, answer = bulk(address, *lines, path="/books/_bulk")

    assert (status, answer["error"]["type"]) == (429, "stub_exception")


def test_equal_ids_are_all_written(node):
    """Two documents with one id in one request are both written, in order, as without the gateway."""
    lines = [{"index": {"_id": "1"}}, {"text": "first"}, {"index": {"_id": "1"}}, {"text": "second"}]
    with gateway(node) as address:
        _, answer = bulk(address, *lines, path="/books/_bulk")

    assert len(answer["items"]) == 2
    assert node.bulks[0].index(b"first") < node.bulks[0].index(b"second")


def test_document_without_an_id_gets_one(node):
    """A collection of st-connectors needs the id in the document: that of its field ``id``, else a new one."""
    with gateway(node) as address, client(address) as through:
        bulk(address, {"index": {}}, {"text": "a", "id": "mine"}, {"index": {}}, {"text": "b"}, path="/books/_bulk")
        single = through.index(index="books", document={"text": "c"})

    ids = [identifier for _, identifier in node.documents]
    assert ids[0] == "mine"
    assert len({*ids}) == 3
    assert single["_id"] == ids[2]
    assert all(document["id"] == identifier for (_, identifier), document in node.documents.items())


def test_single_documents(node):
    """``_doc``, ``_create`` and ``_update`` write vectors, and refuse a document without a text by the same error."""
    with gateway(node, RULE) as address, client(address) as through:
        through.index(index="books", id="1", document={"text": TEXTS[0]})
        through.create(index="theirs", id="2", document={"body": TEXTS[1]})
        through.update(index="theirs", id="3", doc={"body": TEXTS[2]}, upsert={"body": TEXTS[3]})
        with pytest.raises(elasticsearch.BadRequestError, match="st_connectors_document_exception"):
            through.index(index="books", id="4", document={"title": "x"})

    assert node.documents["books", "1"]["vector"]["dense"] == pytest.approx(expected(TEXTS[0])[0].tolist(), abs=1e-6)
    assert node.documents["theirs", "2"]["embedding"] == pytest.approx(expected(TEXTS[1])[0].tolist(), abs=1e-6)
    update = node.documents["theirs", "3"]
    assert update["doc"]["embedding"] == pytest.approx(expected(TEXTS[2])[0].tolist(), abs=1e-6)
    assert update["upsert"]["tokens"] == pytest.approx(expected(TEXTS[3])[1], abs=1e-6)
    assert ("books", "4") not in node.documents


def test_updates_in_part(node):
    """A new text gets new vectors and no text removes them; other changes and scripts are sent as they are."""
    lines = [
        {"update": {"_id": "1"}},
        {"doc": {"body": TEXTS[0]}},
        {"update": {"_id": "2"}},
        {"doc": {"n": 5}},
        {"update": {"_id": "3"}},
        {"doc": {"body": None}},
        {"update": {"_id": "4"}},
        {"script": {"source": "ctx._source.n++"}},
    ]
    with gateway(node, RULE) as address:
        status, answer = bulk(address, *lines, path="/theirs/_bulk")

    parts = [node.documents["theirs", str(number)] for number in range(1, 5)]
    assert (status, answer["errors"]) == (200, False)
    assert parts[0]["doc"].keys() == {"body", "embedding", "tokens"}
    assert parts[1:] == [
        {"doc": {"n": 5}},
        {"doc": {"body": None, "embedding": None, "tokens": None}},
        {"script": {"source": "ctx._source.n++"}},
    ]


def test_updates_of_own_collections(node):
    """With payload=fields the copies for filters follow; a payload in one string cannot be updated in part."""
    fields = [{"update": {"_index": "tales", "_id": "1"}}, {"doc": {"year": 1999}}]
    text = [{"update": {"_index": "tales", "_id": "2"}}, {"doc": {"text": TEXTS[0], "year": None}}]
    string = [{"update": {"_index": "books", "_id": "3"}}, {"doc": {"year": 1999}}]
    with gateway(node) as address:
        _, answer = bulk(address, *fields, *text, *string)

    assert node.documents["tales", "1"]["doc"] == {
        "year": 1999,
        "st_connectors": {"id": "1", "filter": {"year": [1999]}},
    }
    second = node.documents["tales", "2"]["doc"]["st_connectors"]
    assert second["filter"] == {"year": None}
    assert second["vector"]["dense"] == pytest.approx(expected(TEXTS[0])[0].tolist(), abs=1e-6)
    error = answer["items"][2]["update"]
    assert error["status"] == 400
    assert "payload=fields" in error["error"]["reason"]


def test_documents_that_have_vectors_pass(node):
    """What ``Index.ingest`` writes through a gateway is not encoded again, and neither are vectors of a client."""
    own = {"body": TEXTS[0], "embedding": [1.0], "tokens": {"a": 1.0}}
    with gateway(node, RULE) as address:
        place = address.replace("http", "elasticsearch")
        with client(address) as through, Index.open(place, collection="books", client=through) as index:
            assert index.ingest([{"id": "1", "text": TEXTS[0]}]).records == 1
        bulk(address, {"index": {"_id": "2"}}, own, path="/theirs/_bulk")

    assert json.loads(node.documents["books", "1"]["payload"]) == {"text": TEXTS[0]}
    assert node.documents["theirs", "2"] == own


def test_rule_decides_about_documents_without_a_text(node):
    """Without a text a document fails, unless the rule says that it is stored."""
    lines = [{"index": {"_id": "1"}}, {"n": 1}]
    with gateway(node, RULE) as address:
        _, refused = bulk(address, *lines, path="/theirs/_bulk")
    with gateway(node, replace(RULE, without_text="store")) as address:
        _, stored = bulk(address, *lines, path="/theirs/_bulk")

    assert refused["items"][0]["index"]["status"] == 400
    assert stored["items"][0]["index"]["status"] == 200
    assert node.documents == {("theirs", "1"): {"n": 1}}


@pytest.mark.parametrize(("on_failure", "status"), [("fail", 503), ("store", 200)])
def test_encoder_that_is_down(node, on_failure, status):
    """Without an encoder nothing is stored without vectors, unless the rule says so; the error can be retried."""
    rule = Rule("their*", text="body", dense="embedding", dense_model="builtin:dense", on_failure=on_failure)

    def fail(*_: object) -> None:
        raise OSError("the encoder is down")

    with pytest.MonkeyPatch.context() as patch, gateway(node, rule) as address:
        patch.setattr("st_connectors.gateway.encoding.BatchedModel.encode_document", fail)
        _, answer = bulk(address, {"index": {"_id": "1"}}, {"body": "x"}, path="/theirs/_bulk")

    assert answer["items"][0]["index"]["status"] == status
    assert bool(node.documents) is (on_failure == "store")


def test_models_of_a_rule_can_be_on_a_server(node):
    """Their vectors are those of the local models; without the server, the item fails with 503 and is not stored."""
    from st_connectors.server import Settings as ServerSettings
    from st_connectors.server import serving as encoders

    lines = [{"index": {"_id": "1"}}, {"body": TEXTS[0]}]
    with encoders(ServerSettings(access_log=False)) as encoder:
        remote = replace(RULE, dense_model=f"{encoder}#dense", sparse_model=f"{encoder}#sparse")
        with gateway(node, remote) as address:
            _, stored = bulk(address, *lines, path="/theirs/_bulk")
    with gateway(node, remote) as address:
        _, failed = bulk(address, {"index": {"_id": "2"}}, {"body": TEXTS[1]}, path="/theirs/_bulk")

    dense, sparse = expected(TEXTS[0])
    assert stored["items"][0]["index"]["status"] == 200
    assert node.documents["theirs", "1"]["embedding"] == pytest.approx(dense.tolist(), abs=1e-6)
    assert node.documents["theirs", "1"]["tokens"] == pytest.approx(sparse, abs=1e-6)
    assert failed["items"][0]["index"]["status"] == 503
    assert "127.0.0.1" in failed["items"][0]["index"]["error"]["reason"]
    assert ("theirs", "2") not in node.documents


def test_index_of_a_rule_must_exist(node):
    """An index that the engine would create by itself has no fields for vectors, so that the item fails."""
    with gateway(node, RULE) as address:
        _, answer = bulk(address, {"index": {"_id": "1"}}, {"body": "x"}, path="/theirs-new/_bulk")

    assert answer["items"][0]["index"]["status"] == 404
    assert "create it first" in answer["items"][0]["index"]["error"]["reason"]
    assert not node.bulks


@pytest.mark.parametrize(("unreadable", "status"), [("fail", 403), ("store", 200)])
def test_mapping_that_may_not_be_read(node, unreadable, status):
    """A user who may not read the mapping gets an error that names the privilege, unless the settings say otherwise."""
    node.statuses["/plain/_mapping"] = 403
    settings = Settings((f"elasticsearch://127.0.0.1:{node.port}",), limits=LIMITS, unreadable=unreadable)
    with serving(settings) as address:
        _, answer = bulk(address, {"index": {"_index": "plain", "_id": "1"}}, {"a": 1})

    assert answer["items"][0]["index"]["status"] == status
    assert bool(node.documents) is (unreadable == "store")


def test_requests_of_the_gateway_have_the_credentials_of_the_client(node):
    """The gateway has no rights of its own: it reads mappings as the client that writes."""
    with gateway(node) as address, Elasticsearch(address, basic_auth=("ada", "secret")) as through:
        helpers.bulk(through, [{"_index": "books", "_id": "1", "text": "x"}])
        bulk(address, {"index": {"_index": "books", "_id": "2"}}, {"text": "x"})

    own = [
        headers.get("authorization")
        for path, headers in zip(node.paths, node.headers, strict=True)
        if "_mapping" in path
    ]
    assert set(own) == {"Basic YWRhOnNlY3JldA==", None}


def test_mapping_is_read_again_after_a_change(node, mappings):
    """An index that is created through the gateway asks for vectors at once."""
    with gateway(node, mapping_s=3600) as address, client(address) as through:
        bulk(address, {"index": {"_id": "1"}}, {"text": "x"}, path="/plain/_bulk")
        node.mappings["plain"] = mappings["books"]
        through.indices.put_mapping(index="plain", properties={})
        bulk(address, {"index": {"_id": "2"}}, {"text": "x"}, path="/plain/_bulk")

    assert node.documents["plain", "1"] == {"text": "x"}
    assert "vector" in node.documents["plain", "2"]


def test_body_that_is_not_json_is_refused(node):
    """Documents in a format that the gateway cannot read would be stored without vectors."""
    connection_headers = {"content-type": "application/smile"}
    with gateway(node) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        connection.request("POST", "/books/_bulk", b":)\n", connection_headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()

    assert response.status == 415
    assert "media type" in answer["error"]["reason"]


def test_body_that_is_too_large_is_refused(node):
    """A request with more than the limit is refused while it is read, also if it is compressed."""
    lines = [{"index": {"_id": "1"}}, {"text": "x" * 100_000}]
    with gateway(node, bulk_bytes=50_000) as address:
        plain, answer = bulk(address, *lines, path="/books/_bulk")
        packed, _ = bulk(address, *lines, path="/books/_bulk", pack=True)

    assert (plain, packed) == (413, 413)
    assert answer["error"]["type"] == "content_too_long_exception"
    assert not node.bulks


def test_rule_that_does_not_fit_the_mapping_names_the_difference(node):
    """A field of the rule that the mapping lacks fails the item, with the fields that it has."""
    with gateway(node, replace(RULE, dense="vectors")) as address:
        _, answer = bulk(address, {"index": {"_id": "1"}}, {"body": "x"}, path="/theirs/_bulk")

    error = answer["items"][0]["index"]
    assert error["status"] == 400
    assert "'embedding'" in error["error"]["reason"]


def test_settings_are_read_from_a_file(tmp_path: Path):
    """A file has nodes, limits and rules."""
    from st_connectors.gateway import read_settings

    file = tmp_path / "gateway.toml"
    file.write_text(
        'nodes = ["opensearch://a:9200", "opensearch://b"]\nport = 1\n[limits]\nmapping_s = 1\n'
        '[[rules]]\nindex = "a*"\nsparse = "s"\nsparse_model = "builtin:sparse"\non_failure = "store"\n'
    )

    settings = read_settings(file)
    assert (settings.port, settings.limits.mapping_s, len(settings.nodes)) == (1, 1, 2)
    assert settings.rules == (Rule("a*", sparse="s", sparse_model="builtin:sparse", on_failure="store"),)
    assert read_settings(file, "elasticsearch://c").nodes == ("elasticsearch://c",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nodes = 1", "nodes: expected"),
        ('nodes = ["qdrant://a"]', "elasticsearch or opensearch"),
        ('nodes = ["elasticsearch://a", "opensearch://a"]', "one engine"),
        ("colour = 1", "unknown setting colour"),
        ("[limits]\nparts = 1", "unknown setting limits.parts"),
        ('[[rules]]\nindex = "a"\nnodes = []', "unknown setting rules"),
        ('[[rules]]\nindex = "a"\ndense = "v"', "both or neither"),
        ('[[rules]]\nindex = "a"', "expected dense and dense_model"),
        ('[[rules]]\nindex = "a"\ndense = "v"\ndense_model = "m"\non_failure = "wait"', "wait"),
        ("port = ", "not a TOML file"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, reason):
    """A mistake is one line with the file and the entry."""
    from st_connectors.gateway import read_settings

    file = tmp_path / "gateway.toml"
    file.write_text(text if "nodes" in text.partition("[[")[0] else f'nodes = ["elasticsearch://a"]\n{text}')
    with pytest.raises(ValueError, match=reason) as error:
        read_settings(file)
    assert str(file) in str(error.value)
