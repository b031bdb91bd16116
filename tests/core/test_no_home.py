"""Without a home folder or a writable cache, what needs neither works and the rest says what to do."""

from __future__ import annotations

import logging
import pwd
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards
from st_core.backends.graph.openvino import session as openvino  # noqa: E402

pytestmark = pytest.mark.torch

NAME = "distilbert-cls"


@pytest.fixture
def homeless(monkeypatch):
    """No variable that names a folder, and a user that the system does not know."""
    for name in ("HOME", "XDG_CACHE_HOME", "ST_CONNECTORS_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)


@pytest.mark.long
@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_an_exported_folder_runs_without_a_home(exports, texts, agree, backend):
    """Nothing is kept then, and nothing is missed."""
    ours, theirs = exports.pair("SentenceTransformer", NAME, backend)[::-1]

    agree(ours.encode(texts), theirs.encode(texts))


@pytest.mark.usefixtures("homeless")
def test_a_graph_that_cannot_be_kept_without_a_home_is_told(checkpoints):
    """Before it is traced, with what to do."""
    with pytest.raises(
        OSError, match=r"has no home folder; set ST_CONNECTORS_CACHE to a writable folder, or export the model"
    ):
        st_core.SentenceTransformer(checkpoints.folder(NAME), backend="openvino")


@pytest.mark.long
@pytest.mark.usefixtures("homeless")
def test_the_fastest_is_chosen_without_a_home(exports, texts, caplog):
    """The choice is not kept, and the log says so."""
    with caplog.at_level(logging.WARNING, logger="st_core"):
        model = st_core.SentenceTransformer(exports.both(NAME), backend="auto")

    assert np.isfinite(model.encode(texts)).all()
    assert "cannot keep its choice: the user has no home folder" in caplog.text


@pytest.mark.long
@pytest.mark.usefixtures("homeless")
def test_a_graph_becomes_another_type_without_a_home(exports, tmp_path):
    """An export needs no cache."""
    made = st_core.export_model(exports.folder(NAME, "openvino"), tmp_path / "out", backend="openvino", dtype="int8")

    assert [place.name.rpartition("-")[0] for place in made.graphs] == ["openvino-int8"]


def test_a_cache_that_cannot_be_made_is_named(checkpoints, monkeypatch, tmp_path):
    """The folder for it would lie below a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "file" / "cache"))

    with pytest.raises(OSError, match=r"file/cache/graphs: .*; set ST_CONNECTORS_CACHE to a writable folder"):
        st_core.SentenceTransformer(checkpoints.folder(NAME), backend="onnx")


def test_an_openvino_that_looks_for_a_home_is_told(monkeypatch, tmp_path):
    """As its telemetry does when it is imported."""
    (tmp_path / "openvino.py").write_text('raise RuntimeError("Could not determine home directory.")')
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(OSError, match=r"Could not determine home directory\.\): set HOME to a folder"):
        openvino.check("float32")
