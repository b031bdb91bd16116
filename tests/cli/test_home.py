"""``~`` at the start of a path is the home folder, wherever a command takes a path."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from st_core import builtin


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Make an empty folder the home folder, and another one the current folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize("address", ["qdrant+edge:~/library", "milvus+lite:~/library"])
def test_address_source_and_model_in_the_home_folder(cli, books, home, address):
    """Nothing is written to the current folder, and the collection records where the model is."""
    pytest.importorskip({"q": "qdrant_edge", "m": "milvus_lite"}[address[0]])
    shutil.copytree(builtin.path(builtin.DENSE), home / "model")
    shutil.copy(books, home / "books.jsonl")
    target = ["--in", address, "--collection", "books"]

    created = cli("ingest", "~/books.jsonl", *target, "--create", "--dense", "~/model", "--sparse", "none")

    assert (created.status, created.err) == (0, "")
    assert (home / "library").is_dir()
    assert not list((home.parent / "here").iterdir())
    assert cli("count", "--in", f"{address.partition(':')[0]}:{home}/library", "--collection", "books").out == "3\n"
    hits = cli("search", "submarine", *target, "--json").json["hits"]
    assert hits[0]["id"] == "submarine"


def test_files_in_the_home_folder(cli, home):
    """The shell does not expand the path in ``--out=~/vectors.npy``."""
    outcome = cli("encode", "a text", "--out=~/vectors.npy")

    assert outcome.err == f"wrote 1 vectors to {home}/vectors.npy\n"
    assert np.load(home / "vectors.npy").shape == (1, 256)


def test_an_unknown_home_folder_is_one_line(cli):
    """The status is that of a wrong argument."""
    outcome = cli("count", "--in", "qdrant+edge:~nobody-of-this-name/library", "--collection", "c")

    assert outcome.status == 2
    assert outcome.error_line().startswith("~nobody-of-this-name has no known home folder")


@pytest.mark.parametrize("store", ["elasticsearch", "opensearch", "qdrant", "milvus"])
def test_an_address_of_a_server_with_one_colon_is_one_line(cli, store):
    """Elasticsearch and OpenSearch would otherwise connect to localhost:9200."""
    outcome = cli("count", "--in", f"{store}:localhost:19201", "--collection", "c")

    assert outcome.status == 2
    assert outcome.error_line().startswith(f"{store} is a server: write {store}://HOST:PORT")
