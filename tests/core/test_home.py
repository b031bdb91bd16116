"""``~`` at the start of a path is the home folder, wherever the engine takes a path."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from st_core import SentenceTransformer, builtin
from st_core.backends.graph.folders import cache_root
from st_core.checkpoint.find import find_checkpoint
from st_core.home import expand_home


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Make an empty folder the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("path", "expanded"), [("~", ""), ("~/a", "/a"), ("~/a/~", "/a/~"), (Path("~/a"), "/a")], ids=str
)
def test_the_home_folder_is_expanded(home, path, expanded):
    """Only at the start of the path."""
    assert expand_home(path) == f"{home}{expanded}"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("path", ["", "a", "./~", "a/~", "~$letter.docx", "/~/a", "-"])
def test_other_paths_stay(path):
    """A file name may begin with a tilde."""
    assert expand_home(path) == path


def test_an_unknown_user_is_refused():
    """The path would otherwise be a folder in the current one."""
    with pytest.raises(ValueError, match=r"^~nobody-of-this-name has no known home folder: write the path without ~"):
        expand_home("~nobody-of-this-name/models")


def test_a_model_in_the_home_folder_is_loaded_and_saved(home):
    """A new folder of the name ``~`` would otherwise appear in the current one."""
    shutil.copytree(builtin.path(builtin.DENSE), home / "model")

    model = SentenceTransformer("~/model")
    model.save_pretrained("~/saved")

    again = SentenceTransformer(home / "saved")
    np.testing.assert_array_equal(again.encode(["a text"]), model.encode(["a text"]))


def test_caches_in_the_home_folder(home, monkeypatch):
    """Both the argument and the variables are paths."""
    asked = []

    def download(_name, **options):
        asked.append(options["cache_dir"])
        (home / "model.safetensors").touch()
        return str(home)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", "~/one")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", "~/three")
    find_checkpoint("someone/model", organisation="our-org")
    find_checkpoint("someone/model", organisation="our-org", cache_folder="~/two")
    monkeypatch.delenv("SENTENCE_TRANSFORMERS_HOME")
    find_checkpoint("someone/model", organisation="our-org")

    assert asked == [f"{home}/one", f"{home}/two", None]
    assert cache_root() == home / "three"
    monkeypatch.delenv("ST_CONNECTORS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/four")
    assert cache_root() == home / "four" / "st-connectors"
