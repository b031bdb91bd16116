"""Addresses, plugins, and the stack that open_store builds."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from st_connectors import memory, registry
from st_connectors.elasticsearch import faults as elasticsearch_faults
from st_connectors.errors import NotFound
from st_connectors.milvus import client as milvus_client
from st_connectors.opensearch import faults as opensearch_faults
from st_connectors.plugin import Address, Place, Plugin
from st_connectors.qdrant import client as qdrant_client
from st_connectors.registry import collections, open_store, parse_address, plugins
from st_connectors.schema import DenseField, Schema
from st_connectors.store import Capabilities, Fuse, LegHit, Near, Record, SearchRequest
from st_core.install import install_command

ANYTHING = Plugin(
    "any",
    "any",
    dict.fromkeys(("", "edge", "grpc", "https", "memory"), ""),
    Capabilities(),
    memory._connect,
    memory._collections,
)


@pytest.fixture
def installed(monkeypatch):
    """Put entry points in place of the installed ones: name to object."""

    def install(*pairs):
        points = [EntryPoint(name, f"module{at}:PLUGIN", registry.GROUP) for at, (name, _) in enumerate(pairs)]
        objects = {point.value: value for point, (_, value) in zip(points, pairs, strict=True)}
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        monkeypatch.setattr(EntryPoint, "load", lambda point: objects[point.value])
        clear()

    yield install
    monkeypatch.undo()
    clear()


def clear():
    registry._points.cache_clear()
    registry._load.cache_clear()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("any:", Address("any")),
        ("any:name", Address("any", path="name")),
        ("any+edge:./a dir/library", Address("any", ("edge",), path="./a dir/library")),
        ("any+edge:/abs:with:colons", Address("any", ("edge",), path="/abs:with:colons")),
        (r"any+edge:C:\data", Address("any", ("edge",), path=r"C:\data")),
        ("any://localhost", Address("any", host="localhost")),
        ("any://host:6333", Address("any", host="host", port=6333)),
        ("any+grpc+https://h.example:6334/pre/fix", Address("any", ("grpc", "https"), "h.example", 6334, "/pre/fix")),
        ("any://[::1]:6333", Address("any", host="::1", port=6333)),
        ("any://host?timeout=5&a=b%20c", Address("any", host="host", options={"timeout": "5", "a": "b c"})),
        ("any+edge:dir?x=", Address("any", ("edge",), path="dir", options={"x": ""})),
    ],
)
def test_addresses_are_taken_apart(installed, url, address):
    """Scheme and variants, then a path or a host with a port, then options."""
    installed(("any", ANYTHING))
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url", ["any:", "any+edge:./library", "any+grpc://host:6334/p?timeout=5&a=b", "any://[::1]:6333", "any:?a=b%26c"]
)
def test_an_address_is_written_as_it_was_read(installed, url):
    """str() is the opposite."""
    installed(("any", ANYTHING))
    assert str(parse_address(url)) == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "expected an address SCHEME:PATH or SCHEME://HOST:PORT; expected one of any:, any+edge:"),
        ("./library", "expected an address SCHEME:PATH"),
        ("anny://host", "unknown scheme 'anny'; did you mean any:; expected one of any:"),
        ("any+egde:x", r"unknown scheme 'any+egde'; did you mean any+edge:"),
        ("zzzz://host", "unknown scheme 'zzzz'; expected one of"),
        ("any://", "has no host: write any://HOST:PORT"),
        ("any://host:port", "no valid host and port"),
        ("any://host:70000", "no valid host and port"),
        ("any://host?timeout", "?name=value"),
        ("any://host?a=1&a=2", "repeats option 'a'"),
    ],
)
def test_addresses_that_are_not_understood_say_what_is(installed, url, message):
    """ValueError, with the nearest spelling."""
    installed(("any", ANYTHING))
    with pytest.raises(ValueError) as caught:
        parse_address(url)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "url", ["any://user:hunter2@host", "any://hunter2@host:1", "any://host?api_key=hunter2", "any+edge:x?Token=hunter2"]
)
def test_secrets_in_an_address_are_refused_and_not_echoed(installed, url):
    """They come from the environment or with a client object."""
    installed(("any", ANYTHING))
    with pytest.raises(ValueError, match=r"must not contain.*: pass a client object$") as caught:
        parse_address(url)
    assert "hunter2" not in str(caught.value)


def schemes(*places):
    """Return the schemes of the installed stores whose addresses name one of ``places``."""
    return [
        f"{name}+{variant}" if variant else name
        for name, plugin in plugins().items()
        for variant, place in plugin.places.items()
        if place in places
    ]


def test_every_installed_store_says_what_its_addresses_name():
    """Otherwise a wrong address would be passed to its client, which would connect to a server of its own choice."""
    for plugin in plugins().values():
        assert plugin.places.keys() == plugin.variants.keys()


@pytest.mark.parametrize("rest", ["", "localhost:19201", "/localhost:19201", "///localhost:19201", "//:19201", "?a=b"])
@pytest.mark.parametrize("scheme", schemes(Place.SERVER))
def test_a_server_without_two_slashes_and_a_host_is_refused(scheme, rest):
    """It would otherwise be the client's default, such as localhost:9200."""
    with pytest.raises(ValueError, match=rf"^{re.escape(scheme)} is a server: write {re.escape(scheme)}://HOST:PORT"):
        parse_address(f"{scheme}:{rest}")


def test_the_folder_of_the_same_store_is_suggested():
    """A path after the scheme of a server often means the embedded store."""
    with pytest.raises(ValueError, match=r"write milvus://HOST:PORT, or for a folder milvus\+lite:PATH$"):
        parse_address("milvus:library")
    with pytest.raises(ValueError, match=r"write elasticsearch://HOST:PORT$"):
        parse_address("elasticsearch:library")


@pytest.mark.parametrize("scheme", schemes(Place.PATH, Place.NAME))
def test_a_host_is_refused_where_there_is_no_server(scheme):
    """It would otherwise be the current folder, or a store without a name."""
    with pytest.raises(ValueError, match=rf"{re.escape(scheme)} is not a server: .*, without //, not .*//library"):
        parse_address(f"{scheme}://library")
    with pytest.raises(ValueError, match="must not contain a user or password") as caught:
        parse_address(f"{scheme}://user:hunter2@library")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "variables"),
    [
        ("qdrant", qdrant_client.API_KEY),
        ("milvus+https", milvus_client.TOKEN),
        ("opensearch+https", f"{opensearch_faults.USERNAME}, {opensearch_faults.PASSWORD}"),
        (
            "elasticsearch",
            f"{elasticsearch_faults.API_KEY}, {elasticsearch_faults.USERNAME}, {elasticsearch_faults.PASSWORD}",
        ),
    ],
)
@pytest.mark.parametrize("rest", ["//user:hunter2@host", "//host?password=hunter2"])
def test_a_secret_in_an_address_is_refused_with_the_variables_of_the_store(scheme, variables, rest):
    """Those that its client reads."""
    with pytest.raises(ValueError, match="must not contain") as caught:
        parse_address(f"{scheme}:{rest}")

    assert str(caught.value).endswith(f": use the environment ({variables}), or pass a client object")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", schemes(Place.PATH))
def test_a_store_in_a_folder_needs_a_path(scheme):
    """The current folder has to be named."""
    with pytest.raises(ValueError, match=rf"^{re.escape(scheme)} needs a path: .* with \. for the current folder$"):
        parse_address(f"{scheme}:")
    assert parse_address(f"{scheme}:.").path == "."


@pytest.mark.parametrize("scheme", schemes(Place.PATH))
@pytest.mark.parametrize(("path", "expanded"), [("~", ""), ("~/library", "/library"), ("~/a b/~", "/a b/~")])
def test_the_home_folder_in_an_address_is_expanded(scheme, path, expanded, monkeypatch, tmp_path):
    """A shell does not expand it, because it is not at the start of a word."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert parse_address(f"{scheme}:{path}").path == f"{tmp_path}{expanded}"


@pytest.mark.parametrize("path", ["./~", "x/~", "~x", "/a/~/b"])
def test_other_tildes_in_an_address_stay(path, monkeypatch, tmp_path):
    """They are names of files, as for a shell."""
    monkeypatch.setenv("HOME", str(tmp_path))

    assert parse_address(f"qdrant+edge:{path}").path == path
    assert parse_address("memory:~").path == "~"


def test_an_unknown_home_folder_in_an_address_is_refused():
    """A folder with the name ``~nobody-of-this-name`` would otherwise appear in the current one."""
    with pytest.raises(ValueError, match="~nobody-of-this-name has no known home folder"):
        parse_address("qdrant+edge:~nobody-of-this-name/library")


def test_an_address_may_end_after_the_scheme_where_a_client_is_passed(installed):
    """The client is connected already."""
    plugin = Plugin("any", None, {"": ""}, Capabilities(), memory._connect, lambda *_: ["c"], places={"": Place.SERVER})
    installed(("any", plugin))

    assert collections("any:", client=object()) == ["c"]
    for url, client in (("any:", None), ("any:host", object())):
        with pytest.raises(ValueError, match="any is a server: write any://HOST:PORT"):
            collections(url, client=client)


def test_two_packages_of_one_name_are_refused(installed):
    """The message names both."""
    installed(("any", ANYTHING), ("any", ANYTHING))
    with pytest.raises(RuntimeError, match=r"'any': module0:PLUGIN and module1:PLUGIN; uninstall one"):
        plugins()


def test_a_plugin_of_another_contract_is_refused(installed):
    """Before anything is opened with it."""
    old = Plugin("old", None, {"": ""}, Capabilities(), memory._connect, memory._collections, contract=99)
    installed(("old", old), ("any", ANYTHING))

    with pytest.raises(RuntimeError, match="written for contract 99, not 1"):
        open_store("old:", "c")
    assert parse_address("any:") == Address("any")


def test_what_is_no_plugin_is_refused(installed):
    """An entry point has to name a Plugin."""
    installed(("any", object()))
    with pytest.raises(TypeError, match="must be a Plugin, not object"):
        plugins()


@pytest.mark.parametrize("call", [lambda: open_store("any:", "c"), lambda: collections("any:")])
def test_a_missing_extra_tells_the_install_command(installed, call):
    """ImportError with the exact command."""

    def missing(*_):
        raise ModuleNotFoundError("No module named 'driver.sub'", name="driver.sub")

    installed(("any", Plugin("any", "things", {"": ""}, Capabilities(), missing, missing)))
    with pytest.raises(ImportError, match=f"needs driver.sub: {re.escape(install_command('things'))}$"):
        call()


def test_a_bug_in_this_package_is_not_taken_for_a_missing_extra(installed):
    """Installing would not help."""

    def broken(*_):
        raise ModuleNotFoundError("No module named 'st_connectors.nowhere'", name="st_connectors.nowhere")

    installed(("any", Plugin("any", "things", {"": ""}, Capabilities(), broken, broken)))
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        open_store("any:", "c")


def test_client_and_schema_reach_the_plugin(installed):
    """Connect gets the parsed address, the collection, the schema and the caller's client."""
    got = []

    def connect(*arguments):
        got.append(arguments)
        return memory.MemoryStore("registry", arguments[2])

    installed(("any", Plugin("any", None, {"": ""}, Capabilities(), connect, memory._collections)))
    schema, client = Schema("c", {}), object()
    open_store("any:x?y=z", "c", schema, client=client)

    assert got == [(Address("any", path="x", options={"y": "z"}), "c", schema, client)]


def test_installed_stores_load_without_their_clients():
    """Listing stores and their abilities imports no driver."""
    code = (
        "import sys; from st_connectors.registry import plugins; found = plugins();"
        "clients = ('qdrant_client', 'qdrant_edge', 'elasticsearch', 'opensearchpy', 'pymilvus', 'torch', 'lark');"
        "print(sorted(found), [name for name in clients if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['elasticsearch', 'memory', 'milvus', 'opensearch', 'qdrant'] []"


def test_open_store_is_guarded_and_fusing():
    """Vectors are normalised, batches deduplicated, hybrid requests taken apart, over one in-process collection."""
    url = f"memory:{uuid.uuid4().hex}"
    store = open_store(url, "c", Schema("c", {"v": DenseField(2)}))
    store.create()

    rejected = store.upsert([Record("a", {"v": [0.0, 1.0]}), Record("a", {"v": [3, 4]}), Record("b", {"v": [1.0]})])

    assert [(item.position, item.id) for item in rejected] == [(2, "b")]
    (page,) = store.search([SearchRequest(Fuse((Near("v", np.array([3, 4])),)))])
    assert [(hit.id, hit.legs) for hit in page] == [("a", (LegHit(0, "v", 1, pytest.approx(1.0)),))]
    again = open_store(url, "c")
    np.testing.assert_allclose(again.get(["a"])[0].vectors["v"], [0.6, 0.8], rtol=1e-7)
    assert collections(url) == ["c"]


def test_a_misspelt_collection_is_not_found():
    """Opening never makes a collection."""
    with pytest.raises(NotFound, match="'nothing'"):
        open_store("memory:nowhere", "nothing")


@pytest.mark.parametrize(("collection", "schema"), [("", None), ("a", Schema("b", {}))])
def test_collection_and_schema_must_agree(collection, schema):
    """A name is needed, and it is the schema's."""
    with pytest.raises(ValueError):
        open_store("memory:", collection, schema)
