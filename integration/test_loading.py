"""Loading settings on real servers: put in, and what was found put back; a mark names the engine, as in ``ST_REQUIRE``."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from integration.nodes import required
from integration.stores import Absent, opened
from st_connectors.errors import NotFound
from st_connectors.registry import bulk_loading, open_store
from st_connectors.store import Record, Schema, TextField

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


@pytest.mark.parametrize(
    ("store", "variable"),
    [
        pytest.param("opensearch", "ST_OPENSEARCH_URL", marks=pytest.mark.engine("opensearch")),
        pytest.param("elasticsearch-9", "ST_ELASTICSEARCH_URL", marks=pytest.mark.engine("elasticsearch-9")),
    ],
)
def test_loading(store, variable):
    """Set inside, also nested; afterwards the found values, after an error too, and what was written is seen."""
    if not (os.environ.get(variable) or required(store)):
        pytest.skip(f"not asked for: ST_REQUIRE={store} starts one, {variable} names one")
    schema = Schema("loading", {"text": TextField()})
    try:
        with tempfile.TemporaryDirectory() as folder, opened(store, Path(folder)) as address:
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
    except Absent as reason:
        pytest.skip(str(reason))
