"""``backend="auto"`` takes the fastest float32 backend, remembers it, and gives torch's numbers."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards
from st_core.backends.graph.openvino import session as openvino  # noqa: E402
from st_core.engine import fastest  # noqa: E402
from st_core.install import install_command  # noqa: E402
from st_core.model import Recipe  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.long]

NAME = "roberta-six"
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = None
import st_core
model = st_core.SentenceTransformer(sys.argv[1], backend="auto")
print(json.dumps([model.backend, model.encode(json.loads(sys.argv[2])).tolist()]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def timed(monkeypatch):
    """What was timed, each time a choice was made.

    The time that a backend takes is what the test puts into ``slow``.
    """
    measured, slow = [], {}
    real = fastest._timed

    def spy(engines, task):
        measured.append(sorted(engines))
        return {name: slow.get(name, found) for name, found in real(engines, task).items()}

    monkeypatch.setattr(fastest, "_timed", spy)
    spy.measured, spy.slow = measured, slow
    return spy


@pytest.mark.parametrize("chosen", ["onnx", "openvino", "torch"])
def test_the_fastest_is_taken_and_gives_the_numbers_of_torch(exports, texts, agree, timed, chosen):
    """All three are timed, and the one that took least runs the model."""
    folder = exports.both(NAME)
    timed.slow |= {name: 1.0 + (name != chosen) for name in ("onnx", "openvino", "torch")}

    model = st_core.SentenceTransformer(folder, backend="auto")

    assert timed.measured == [["onnx", "openvino", "torch"]]
    assert model.backend == chosen
    agree(model.encode(texts), exports.checkpoints.load(st_core, "SentenceTransformer", NAME).encode(texts))
    assert st_core.describe(model).precision == "float32"


def test_the_choice_is_remembered_until_the_machine_changes(exports, cache, timed, monkeypatch):
    """A second load times nothing; another processor times again, and both choices are kept."""
    folder = exports.both(NAME)
    timed.slow |= {"onnx": 0.0}
    assert st_core.SentenceTransformer(folder, backend="auto").backend == "onnx"
    timed.slow |= {"onnx": 9.0, "openvino": 0.0}

    assert st_core.SentenceTransformer(folder, backend="auto").backend == "onnx"
    assert len(timed.measured) == 1

    here = fastest.machine()
    monkeypatch.setattr(fastest, "machine", lambda: here | {"processor": "another"})
    assert st_core.SentenceTransformer(folder, backend="auto").backend == "openvino"
    assert len(timed.measured) == 2
    kept = [json.loads(path.read_text()) for path in (cache / "fastest").iterdir()]
    assert sorted((each["backend"], each["machine"]["processor"]) for each in kept) == sorted(
        [("onnx", here["processor"]), ("openvino", "another")]
    )


def test_another_model_is_measured_by_itself(exports, timed):
    """On the same machine, in the same cache."""
    first = st_core.SentenceTransformer(exports.both(NAME), backend="auto")
    st_core.SentenceTransformer(exports.both("distilbert-cls"), backend="auto")

    assert first.backend in {"onnx", "openvino", "torch"}
    assert len(timed.measured) == 2


def test_a_broken_backend_is_passed_over_and_said(exports, texts, agree, timed, monkeypatch, caplog):
    """Its reason is in the log, and the others are timed."""
    folder = exports.both(NAME)

    def broken(*_):
        raise RuntimeError("no such instruction\nand more")

    monkeypatch.setattr(openvino, "open_session", broken)
    with caplog.at_level(logging.WARNING, logger="st_core"):
        model = st_core.SentenceTransformer(folder, backend="auto")

    assert timed.measured == [["onnx", "torch"]]
    assert "backend='auto' passes over openvino: no such instruction" in caplog.text
    agree(model.encode(texts[:3]), exports.checkpoints.load(st_core, "SentenceTransformer", NAME).encode(texts[:3]))


def test_a_remembered_backend_that_broke_is_passed_over(exports, timed, monkeypatch):
    """The others are measured, though the choice is there."""
    timed.slow |= {"openvino": 0.0}
    assert st_core.SentenceTransformer(exports.both(NAME), backend="auto").backend == "openvino"

    def broken(*_):
        raise RuntimeError("gone")

    monkeypatch.setattr(openvino, "open_session", broken)
    assert st_core.SentenceTransformer(exports.both(NAME), backend="auto").backend in {"onnx", "torch"}
    assert timed.measured[1:] == [["onnx", "torch"]]


def test_a_backend_that_fails_at_its_first_batch_is_passed_over(exports, monkeypatch, caplog):
    """Loading proves little: what cannot compute is not chosen."""
    folder = exports.both(NAME)
    monkeypatch.setattr(openvino.Session, "__call__", lambda *_: 1 / 0)
    monkeypatch.setattr("st_core.backends.graph.onnx.session.Session.__call__", lambda *_: 1 / 0)
    with caplog.at_level(logging.WARNING, logger="st_core"):
        model = st_core.SentenceTransformer(folder, backend="auto")

    assert model.backend == "torch"
    assert caplog.text.count("division by zero") == 2


def test_a_model_that_no_graph_holds_runs_on_torch(checkpoints, texts, agree, caplog):
    """The log says why the others were passed over."""
    with caplog.at_level(logging.WARNING, logger="st_core"):
        model = st_core.SparseEncoder(checkpoints.folder("csr"), backend="auto")

    assert model.backend == "torch"
    assert "passes over openvino: a SparseAutoEncoder cannot be part of a graph" in caplog.text
    agree(model.encode(texts[:3]), checkpoints.load(st_core, "SparseEncoder", "csr").encode(texts[:3]))


def test_without_torch_it_chooses_among_the_graphs_that_are_there(exports, texts, agree):
    """Both runtimes where both have a graph, one where the other has none, and neither needs torch."""
    expected = exports.checkpoints.load(st_core, "SentenceTransformer", NAME).encode(texts[:4])
    for folder, allowed in ((exports.both(NAME), {"onnx", "openvino"}), (exports.folder(NAME, "onnx"), {"onnx"})):
        command = [sys.executable, "-c", WITHOUT_TORCH, str(folder), json.dumps(texts[:4])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        chosen, vectors = json.loads(done.stdout)

        assert chosen in allowed
        agree(np.array(vectors), expected)


def test_without_torch_a_runtime_that_cannot_be_imported_is_passed_over(exports, tmp_path):
    """As openvino where the user has no home folder; the log says why, and the other runtime takes the model."""
    (tmp_path / "openvino.py").write_text('raise RuntimeError("no home")')
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exports.both(NAME)), '["text"]']
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(tmp_path)}
    )

    assert json.loads(done.stdout)[0] == "onnx"
    assert re.search(r"^backend='auto' passes over openvino: .*no home.*HOME", done.stderr, re.MULTILINE)


def test_without_torch_and_without_a_graph_the_message_says_what_to_install(checkpoints):
    """As without ``backend``."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(checkpoints.folder("bert-mean")), "[]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert install_command("torch") in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("dtype", ["int8", "float16", torch.bfloat16])
def test_another_type_is_refused(checkpoints, dtype):
    """Its numbers would depend on the machine."""
    with pytest.raises(ValueError, match=r"same float32 numbers; for dtype='\w+' name the backend"):
        st_core.SentenceTransformer(checkpoints.folder("bert-mean"), backend="auto", dtype=dtype)


def test_static_models_and_other_processes(exports, texts, agree, timed):
    """A static model is not measured, and the processes of a pool run what was chosen."""
    assert st_core.SentenceTransformer("builtin:dense", backend="auto").encode("text").shape == (256,)
    assert not timed.measured
    timed.slow |= {"onnx": 0.0}
    model = st_core.SentenceTransformer(exports.both(NAME), backend="auto")

    assert model._engine.plan.backend == "onnx"
    loading = Recipe.of(model).loading
    assert (loading["backend"], loading["dtype"]) == ("onnx", "float32")


def test_a_cache_that_cannot_be_written_to_is_no_hindrance(exports, tmp_path, monkeypatch, caplog):
    """It is measured again the next time, and the log says so."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(openvino, "installed", lambda: False)
    with caplog.at_level(logging.WARNING, logger="st_core"):
        assert st_core.SentenceTransformer(exports.both(NAME), backend="auto").backend in {"onnx", "torch"}

    assert "cannot keep its choice" in caplog.text
