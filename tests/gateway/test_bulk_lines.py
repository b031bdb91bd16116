"""How the gateway reads bulk requests, whatever the pieces in which they arrive."""

from __future__ import annotations

import gzip
import json

import pytest

pytest.importorskip("h11", reason="needs the extra server")

from st_connectors.gateway.answers import Problem
from st_connectors.gateway.bulk import Inflater, Item, Lines, parts_of
from st_connectors.gateway.peers import end_to_end
from st_connectors.gateway.routes import Kind, Route, parse_route

BODY = (
    b'{"index":{"_index":"a","_id":"1"}}\n{"text":"one"}\n'
    b'{"delete":{"_index":"b","_id":2}}\n'
    b'{"create":{}}\r\n{"text":"two"}\r\n'
    b'{"update":{"_id":"3"}}\n{"script":"x"}\n'
)


def read(body: bytes, size: int) -> list[Item]:
    lines = Lines("books")
    items = [item for at in range(0, len(body), size) for item in lines.feed(body[at : at + size])]
    return items + lines.finish()


@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_items_do_not_depend_on_pieces(size):
    """Each item has its action, index and id; an action without an index has that of the path."""
    items = read(BODY, size)

    assert [(each.action, each.index, each.id) for each in items] == [
        ("index", "a", "1"),
        ("delete", "b", "2"),
        ("create", "books", None),
        ("update", "books", "3"),
    ]
    assert b"".join(each.line + each.source for each in items) == BODY
    assert [each.stores for each in items] == [True, False, True, True]


@pytest.mark.parametrize(
    "tail",
    [
        b'{"index":{}}',
        b'{"index":{}}\n{"text":"no line feed"}',
        b"nonsense\n{}\n",
        b'{"move":{}}\n{}\n',
        b"\n\n",
        b'{"index":1}\n',
    ],
)
def test_what_is_malformed_is_returned_unread(tail):
    """The bytes from a malformed line on are passed on as they are, since only the engine knows its answer."""
    items = read(BODY + tail, 13)

    assert b"".join(each.line + each.source for each in items) == BODY + tail
    assert all(each.action is None for each in items[4:])


def test_parts_have_limited_numbers_and_bytes():
    """A part ends before its limits are exceeded; an item that is larger is a part of its own."""
    items = [Item(b"x" * size) for size in (10, 10, 10, 50, 10)]

    assert [[each.size for each in part] for part in parts_of(items, 2, 35)] == [[10, 10], [10], [50], [10]]
    assert [len(part) for part in parts_of(items, 9, 35)] == [3, 1, 1]


def test_gzip_is_read_in_small_pieces():
    """A small body that decompresses to a large one is never whole in memory."""
    packed = gzip.compress(b"a" * 3_000_000)
    pieces = list(Inflater(b"gzip").feed(packed, 65_536))

    assert max(map(len, pieces)) <= 65_536
    assert sum(map(len, pieces)) == 3_000_000


def test_gzip_of_several_members_is_read_to_its_end():
    """A body of several compressed members, as tools that append write it, loses nothing."""
    inflater = Inflater(b"gzip")
    packed = gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])
    pieces = [piece for at in range(0, len(packed), 9) for piece in inflater.feed(packed[at : at + 9], 65_536)]
    inflater.finish()

    assert b"".join(pieces) == BODY


def test_gzip_that_is_cut_off_is_refused():
    """A compressed body without its end is refused, although its lines may be complete."""
    inflater = Inflater(b"gzip")
    list(inflater.feed(gzip.compress(BODY)[:-4], 65_536))

    with pytest.raises(Problem, match="cut off"):
        inflater.finish()


def test_unreadable_compression_is_refused():
    """A compression that the gateway cannot read, and a body that is not gzip, are refused with the reason."""
    with pytest.raises(Problem, match="in gzip"):
        Inflater(b"br")
    with pytest.raises(Problem, match="as gzip"):
        list(Inflater(b"gzip").feed(b"plain", 100))


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/_bulk?refresh=true", Route(Kind.BULK, params={"refresh": "true"})),
        ("PUT", "/my%20books/_bulk", Route(Kind.BULK, "my books")),
        ("PUT", "/books/_doc/a%2Fb", Route(Kind.WRITE, "books", "index", "a/b")),
        ("POST", "/books/_doc", Route(Kind.WRITE, "books", "index")),
        ("PUT", "/books/_doc/1?op_type=create", Route(Kind.WRITE, "books", "create", "1", {"op_type": "create"})),
        ("POST", "/books/_update/1", Route(Kind.WRITE, "books", "update", "1")),
        ("GET", "/books/_search", Route(Kind.SEARCH, "books")),
        ("POST", "/_msearch", Route(Kind.MULTI_SEARCH)),
        ("GET", "/books/_doc/1", Route(Kind.PASS)),
        ("DELETE", "/books/_doc/1", Route(Kind.PASS)),
        ("PUT", "/books", Route(Kind.PASS, changes_indices=True)),
        ("POST", "/_aliases", Route(Kind.PASS, changes_indices=True)),
        ("GET", "/_st_connectors/health", Route(Kind.HEALTH)),
        ("POST", "/_inference/_bulk", Route(Kind.PASS, changes_indices=True)),
    ],
)
def test_routes(method, target, expected):
    """What the gateway does follows from method and path alone."""
    assert parse_route(method, target) == expected


def test_headers_of_one_connection_are_not_passed_on():
    """The headers of a connection, and those that it names, stay; the others keep their order and case."""
    headers = [(b"Host", b"a"), (b"Connection", b"close, X-Mine"), (b"X-Mine", b"1"), (b"TE", b"x"), (b"X-B", b"2")]

    assert end_to_end(headers) == [(b"Host", b"a"), (b"X-B", b"2")]


def test_lines_survive_deep_nesting():
    """A line that Python cannot read is no error of the gateway."""
    deep = b'{"index":' + b"[" * 100_000 + b"\n"

    assert [each.action for each in read(deep + json.dumps({}).encode() + b"\n", 65_536)] == [None, None]
