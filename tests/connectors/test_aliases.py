"""A collection is dropped by its own name only: an alias is refused, whoever created it, and nothing goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from st_connectors.errors import NotFound, Refused
from st_connectors.registry import describe_collection, open_store
from st_connectors.schema import DenseField, Schema
from st_connectors.store import Record

SCHEMA = Schema("books", {"dense": DenseField(2)})
RECORD = Record("a", {"dense": np.array([0.0, 1.0], np.float32)})


def _alias_in_qdrant(url: str, alias: str) -> None:
    from qdrant_client import models

    from st_connectors.qdrant.client import open_client
    from st_connectors.registry import parse_address

    operation = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="books", alias_name=alias))
    open_client(parse_address(url), None).client.update_collection_aliases([operation])


def _alias_in_milvus(url: str, alias: str) -> None:
    from st_connectors.milvus.client import open_client
    from st_connectors.registry import parse_address

    connection = open_client(parse_address(url), None)
    connection.client.create_alias("books", alias)
    connection.close()


STORES: dict[str, tuple[str, Callable[[str, str], None]]] = {
    "qdrant+memory:{node}": ("qdrant_client", _alias_in_qdrant),
    "milvus+lite:{folder}/lite": ("milvus_lite", _alias_in_milvus),
}


@pytest.fixture(params=STORES, ids=lambda url: url.partition(":")[0])
def aliased(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An address with a collection ``books`` of one record and its alias ``live``."""
    module, add_alias = STORES[request.param]
    pytest.importorskip(module)
    url = request.param.format(node=request.node.name, folder=tmp_path)
    store = open_store(url, "books", SCHEMA)
    store.create()
    assert store.upsert([RECORD]) == []
    add_alias(url, "live")
    yield url
    store.close()


def test_dropping_an_alias_is_refused_and_names_the_collection(aliased):
    """The error names both, and both stay."""
    store = open_store(aliased, "live")

    with pytest.raises(Refused, match="'live' is an alias of the collection 'books'"):
        store.drop()
    assert store.count() == 1
    store.close()
    assert open_store(aliased, "books").count() == 1


def test_a_collection_is_dropped_by_its_own_name(aliased):
    """Afterwards there is neither the collection nor its alias."""
    store = open_store(aliased, "books")
    store.drop()
    store.close()

    for name in ("books", "live"):
        with pytest.raises(NotFound):
            open_store(aliased, name)


def test_a_description_has_the_own_name_and_the_aliases(aliased):
    """It is the same by either name."""
    by_name, by_alias = (describe_collection(aliased, name) for name in ("books", "live"))

    assert (by_name.name, by_name.aliases) == ("books", ("live",))
    assert by_alias == by_name
    with pytest.raises(NotFound):
        describe_collection(aliased, "nope")


def test_a_folder_has_no_aliases_and_a_size(tmp_path):
    """A collection of Qdrant Edge is described by its folder."""
    pytest.importorskip("qdrant_edge")
    url = f"qdrant+edge:{tmp_path}"
    store = open_store(url, "books", SCHEMA)
    store.create()

    described = describe_collection(url, "books")

    assert (described.name, described.aliases) == ("books", ())
    assert described.options == {"folder": str(tmp_path.resolve() / "books")}
    assert described.size is not None
    assert described.size > 1000
    with pytest.raises(NotFound):
        describe_collection(url, "nope")
    store.close()


def test_a_collection_in_memory_has_only_its_name():
    """The reference store has neither aliases nor settings."""
    store = open_store("memory:described", "books", SCHEMA)
    store.create()
    described = describe_collection("memory:described", "books")
    store.drop()

    assert (described.name, described.aliases, described.size, dict(described.options)) == ("books", (), None, {})


@pytest.fixture(params=["elasticsearch", "opensearch"])
def cluster(request: pytest.FixtureRequest, lucene_stub):
    """A server with the index ``books@1`` under the aliases ``books`` and ``live``."""
    pytest.importorskip({"elasticsearch": "elasticsearch", "opensearch": "opensearchpy"}[request.param])
    from st_connectors._lucene.forms import Form, own_mapping

    stub = lucene_stub(request.param)
    mapping = own_mapping(SCHEMA, Form(dense={"dense": "hnsw" if request.param == "elasticsearch" else "lucene"}), {})
    for name in ("books", "live"):
        stub.on("GET", f"/{name}/_mapping", {"books@1": {"mappings": mapping}})
        stub.on("GET", f"/{name}/_alias", {"books@1": {"aliases": {"books": {}, "live": {}}}})
        stub.on("GET", f"/{name}/_settings", {"books@1": {"settings": {"index.number_of_shards": "3"}}})
        stub.on("GET", f"/{name}/_stats/store", {"_all": {"total": {"store": {"size_in_bytes": 1234}}}})
    stub.on("DELETE", "/books@1", {"acknowledged": True})
    return stub


def test_an_index_is_not_deleted_by_another_alias(cluster):
    """``live`` is refused before anything is deleted."""
    store = open_store(cluster.address, "live")

    with pytest.raises(Refused, match="'live' is an alias of the collection 'books'"):
        store.drop()
    assert not [path for method, path in cluster.requested() if method == "DELETE"]
    store.close()


def test_an_index_is_deleted_by_the_name_of_its_collection(cluster):
    """The alias ``books`` is the collection's own name."""
    store = open_store(cluster.address, "books")
    store.drop()
    store.close()

    assert [path for method, path in cluster.requested() if method == "DELETE"] == ["/books@1"]


def test_an_index_of_another_collection_under_the_own_alias_stays(cluster):
    """An alias that someone added to a further index does not delete that index."""
    mapping = {"mappings": {}}
    [answer] = cluster.answers["GET", "/books/_mapping"]
    cluster.on("GET", "/books/_mapping", answer[2] | {"papers@1": mapping})
    store = open_store(cluster.address, "books")

    with pytest.raises(Refused, match="also covers papers@1"):
        store.drop()
    assert not [path for method, path in cluster.requested() if method == "DELETE"]
    store.close()


def test_an_index_is_described_by_its_aliases_and_settings(cluster):
    """Either name gives the same description, which has the size of the index."""
    described = describe_collection(cluster.address, "live")

    assert described == describe_collection(cluster.address, "books")
    assert (described.name, described.aliases, described.size) == ("books", ("live",), 1234)
    assert described.options == {
        "payload": "string",
        "indices": ["books@1"],
        "books@1": {"index.number_of_shards": "3"},
    }
