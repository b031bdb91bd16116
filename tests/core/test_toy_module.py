"""A new module type touches two places: its own file, and its entry in the table of each backend that runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from toy_module import Scale

import st_core
from st_core import builtin
from st_core.backends.numpy.modules import STEPS
from st_core.modules import supported_names

TEXTS = ["How do I copy a directory tree?", "", "Parse a date."]


@pytest.fixture
def folder(tmp_path):
    """The built-in dense model with a toy module as its last one, and the factors of that."""
    folder = Path(shutil.copytree(builtin.path("dense"), tmp_path / "toy"))
    listing = json.loads((folder / "modules.json").read_text("utf-8"))
    entry = {"idx": len(listing), "name": "toy", "path": "toy", "type": Scale.type_path}
    (folder / "modules.json").write_text(json.dumps([*listing, entry]), "utf-8")
    factor = np.linspace(1, 2, 256, dtype=np.float32)
    (folder / "toy").mkdir()
    (folder / "toy" / "config.json").write_text(json.dumps({"dimension": factor.size}), "utf-8")
    save_file({"factor": factor}, folder / "toy" / "model.safetensors")
    return folder


@pytest.fixture
def on_numpy(monkeypatch):
    """The table of numpy, with the toy module's step."""
    monkeypatch.setitem(
        STEPS, Scale, lambda module, features: features | {module.writes: features[module.writes] * module.factor}
    )


@pytest.mark.usefixtures("on_numpy")
def test_a_toy_module_loads_encodes_and_saves(folder, tmp_path):
    """Its own file and one entry in a table are enough; the saved folder gives the same vectors and fingerprint."""
    plain = st_core.SentenceTransformer("builtin:dense")
    model = st_core.SentenceTransformer(folder)
    vectors = model.encode(TEXTS)
    model.save_pretrained(str(tmp_path / "saved"))
    again = st_core.SentenceTransformer(tmp_path / "saved")

    factor = np.linspace(1, 2, vectors.shape[1], dtype=np.float32)
    assert np.array_equal(vectors, plain.encode(TEXTS) * factor)
    assert np.array_equal(again.encode(TEXTS), vectors)
    assert dict(st_core.describe(again).fingerprint) == dict(st_core.describe(model).fingerprint)
    assert st_core.describe(model).fingerprint["weights"] != st_core.describe(plain).fingerprint["weights"]
    saved = json.loads((tmp_path / "saved" / "modules.json").read_text("utf-8"))
    assert [each["type"] for each in saved][-1] == "toy_module.Scale"


def test_a_type_that_is_not_registered_is_refused(folder):
    """The message names it and the types of the package; nothing is imported by the name in a checkpoint."""
    listing = (folder / "modules.json").read_text("utf-8")
    (folder / "modules.json").write_text(listing.replace(Scale.type_path, "toy_module.Other"), "utf-8")

    with pytest.raises(st_core.ModelUnsupported, match=r"custom code 'toy_module.Other'; expected one of Asym, BM25"):
        st_core.SentenceTransformer(folder)


def test_no_table_of_the_engine_is_keyed_by_a_type_s_name():
    """Outside a type's own file and the lists of public names, its name stands nowhere as text.

    Backends look it up by its class.
    """
    engine = Path(st_core.__file__).parent
    public = {engine / "models.py", *engine.glob("*/modules.py")}
    files = [path for path in engine.rglob("*.py") if path.parent != engine / "modules" and path not in public]
    names = [name for name in supported_names() if name != "Transformer"]

    assert [
        (path.relative_to(engine).as_posix(), name)
        for path in files
        for name in names
        if f'"{name}"' in path.read_text("utf-8")
    ] == []
