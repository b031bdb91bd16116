"""Bulk-loading settings on real servers are applied and restored; a mark names the engine, as in ``ST_REQUIRE``."""

from __future__ import annotations

import json
import urllib.request
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from integration.stores import address_of
from st_connectors.errors import NotFound
from st_connectors.registry import bulk_loading, open_store
from st_connectors.schema import Schema, TextField
from st_connectors.store import Record

NAMES = ("refresh_interval", "number_of_replicas")


def _settings(address: str) -> dict[str, str | None]:
    url = f"http://{urlsplit(address).netloc}/loading/_settings"
    with urllib.request.urlopen(url) as answer:
        [index] = json.load(answer).values()
    return {name: index["settings"]["index"].get(name) for name in NAMES}


def _set(address: str, **settings: object) -> None:
    url = f"http://{urlsplit(address).netloc}/loading/_settings"
    body = json.dumps({"index": settings}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="PUT")
    urllib.request.urlopen(request).close()


def _fail_inside(address: str) -> None:
    with bulk_loading(address, "loading"):
        with bulk_loading(address, "loading"):
            pass
        assert _settings(address)["refresh_interval"] == "-1"
        raise KeyError


@pytest.fixture(
    params=[pytest.param(each, marks=pytest.mark.engine(each)) for each in ("elasticsearch-9", "opensearch")]
)
def address(request, engines) -> str:
    """Yield a server of each engine."""
    return address_of(request.param, engines.url(request.param))


def test_loading(address):
    """Settings are applied inside the block, also nested, and restored afterwards, also after an error."""
    schema = Schema("loading", {"text": TextField()})
    with pytest.raises(NotFound), bulk_loading(address, "nothing-there"):
        pass
    with closing(open_store(address, "loading", schema)) as held:
        held.create()
        unset = _settings(address)
        with bulk_loading(address, "loading"):
            assert _settings(address) == {"refresh_interval": "-1", "number_of_replicas": "0"}
            held.upsert([Record("a", {}, {"text": "tea"})])
        assert held.count() == 1
        assert _settings(address) == unset
        _set(address, refresh_interval="7s", number_of_replicas=2)
        with pytest.raises(KeyError):
            _fail_inside(address)
        assert _settings(address) == {"refresh_interval": "7s", "number_of_replicas": "2"}
        held.drop()
