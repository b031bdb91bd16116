"""Backends and dtypes of the models that an index names."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import st_core
from st_connectors import Index
from st_connectors.errors import ModelWarning, SchemaMismatch
from st_connectors.models import ModelOptions
from st_connectors.registry import collections
from st_core import ModelKind, ModelRef

pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

pytestmark = pytest.mark.long

DOCUMENTS = [
    {"id": "tree", "text": "Copy a directory tree to another place."},
    {"id": "parse", "text": "Parse the arguments of the command line."},
    {"id": "join", "text": "Join strings by a separator."},
    {"id": "random", "text": "A random number between two others."},
]
QUESTIONS = ["how do I copy a folder?", "random", "split a string"]
BUILTIN = {"dense": "builtin:dense", "sparse": "builtin:sparse"}
MODELS = {
    "dense": ("SentenceTransformer", "bert-mean"),
    "sparse": ("SparseEncoder", "splade-sum"),
    "reranker": ("CrossEncoder", "rerank-bert"),
}
WAYS: list[Mapping[str, Any]] = [{"mode": "dense"}, {"mode": "sparse"}, {}, {"rerank": True, "depth": 4}]
SETTINGS = "config_sentence_transformers.json"
OPENVINO_INT8 = ("openvino", "int8")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def here(request):
    """An address in memory, of this test alone."""
    return f"memory:{request.node.nodeid}"


def names(exports, backend, dtype):
    """Exported folders of the three models."""
    return {key: str(exports.folder(name, backend, dtype)) for key, (_, name) in MODELS.items()}


def objects(exports, backend, dtype):
    """The same as objects."""
    folders = names(exports, backend, dtype)
    return {
        key: getattr(st_core, kind)(folders[key], backend=backend, dtype=dtype) for key, (kind, _) in MODELS.items()
    }


def filled(url, **options):
    index = Index.create(url, collection="c", **options)
    assert index.ingest(DOCUMENTS).confirmed == len(DOCUMENTS)
    return index


def answers(index, ways=tuple(WAYS)):
    return [[result.to_json() for result in index.search_many(QUESTIONS, **way)] for way in ways]


def precisions(index):
    return {key: ref.precision for key, ref in index.schema.models.items()}


@pytest.mark.torch
@pytest.mark.parametrize(("backend", "dtype"), [OPENVINO_INT8, ("openvino", "float32"), ("onnx", "float32")])
def test_names_give_the_hits_of_the_objects(exports, here, backend, dtype):
    """To the last bit, reranked or not, and what is remembered of the models is the same."""
    named = filled(f"{here} names", **names(exports, backend, dtype), backend=backend, dtype=dtype)
    given = filled(f"{here} objects", **objects(exports, backend, dtype))

    assert answers(named) == answers(given)
    assert named.schema.to_json()["models"] == given.schema.to_json()["models"]
    assert precisions(named) == dict.fromkeys(MODELS, dtype)
    assert all(model.load().backend == backend for model in named._models.values())


@pytest.mark.torch
@pytest.mark.parametrize(("backend", "dtype"), [OPENVINO_INT8, ("openvino", "float16"), ("onnx", "float32")])
def test_a_collection_is_opened_in_the_type_it_was_made_in(exports, here, backend, dtype):
    """Where no type is named: remembered models, the reranker too, and the same models under names given anew."""
    before = answers(filled(here, **names(exports, backend, dtype), backend=backend, dtype=dtype))
    folders = names(exports, backend, dtype)

    with Index.open(here, collection="c", backend=backend) as again:
        assert answers(again) == before
    with Index.open(here, collection="c", backend=backend, dtype=dtype) as again:
        assert answers(again) == before
    with Index.open(here, collection="c", dense=folders["dense"], sparse=folders["sparse"], backend=backend) as again:
        assert answers(again) == before


@pytest.mark.torch
@pytest.mark.parametrize(("backend", "dtype"), [OPENVINO_INT8, ("openvino", "float32"), ("onnx", "float32")])
def test_a_collection_remembers_backend_and_dtype(exports, here, backend, dtype):
    """Opened without naming either, every model runs as when the collection was created, the reranker too."""
    before = answers(filled(here, **names(exports, backend, dtype), backend=backend, dtype=dtype))

    with warnings.catch_warnings(action="error"), Index.open(here, collection="c") as again:
        assert answers(again) == before
        assert {ref.backend for ref in again.schema.models.values()} == {backend}
        assert {model.load().backend for model in (*again._models.values(), again._reranker)} == {backend}


@pytest.mark.torch
def test_a_collection_remembers_a_dtype_of_torch(checkpoints, here):
    """A type that was named at create is used where none is named, and not the default of this machine."""
    folder = str(checkpoints.folder("bert-mean"))
    before = answers(filled(here, dense=folder, dtype="bfloat16"), [{}])

    with Index.open(here, collection="c") as again:
        assert answers(again, [{}]) == before
    with pytest.warns(ModelWarning, match="were computed by torch bfloat16; texts are now encoded by torch float32"):
        other = Index.open(here, collection="c", dtype="float32", trust_model=True)
    assert answers(other, [{}]) != before


@pytest.mark.torch
def test_another_backend_is_used_if_named_and_said(exports, here):
    """One warning for all fields, with what computed the vectors and what encodes now; the numbers are the latter's."""
    filled(here, **names(exports, *OPENVINO_INT8), backend="openvino", dtype="int8")
    floats = {
        key: getattr(st_core, kind)(names(exports, *OPENVINO_INT8)[key], device="cpu")
        for key, (kind, _) in MODELS.items()
    }

    with pytest.warns(ModelWarning) as said:
        named = Index.open(here, collection="c", backend="torch")
    with Index.open(here, collection="c", **floats, trust_model=True) as trusted:
        assert answers(named) == answers(trusted)
    assert [str(each.message) for each in said] == [
        (
            "the dense and sparse vectors of 'c' were computed by openvino int8; texts are now encoded by torch, as "
            "named, so that scores and ranks can differ"
        )
    ]
    assert Path(said[0].filename) == Path(__file__)


@pytest.mark.torch
def test_a_graph_with_fixed_ranges_is_found_again(exports, here):
    """Its precision is a name of its own; its graph is asked for as int8."""
    pytest.importorskip("nncf", reason="needs nncf")
    folder = exports.folder("bert-mean", "openvino", "int8", calibration=tuple(each["text"] for each in DOCUMENTS))
    index = filled(here, dense=str(folder), backend="openvino", dtype="int8")

    with Index.open(here, collection="c", backend="openvino") as again:
        assert precisions(again) == {"dense": "int8-static"}
        assert answers(again, [{}]) == answers(index, [{}])


@pytest.mark.torch
def test_a_collection_that_records_no_backend_is_opened_on_torch(exports, here):
    """Collections stored before the backend was recorded open as they did: in the default type, not compared."""
    index = filled(here, **names(exports, *OPENVINO_INT8), backend="openvino", dtype="int8")
    folders = names(exports, *OPENVINO_INT8)
    floats = {key: getattr(st_core, kind)(folders[key], device="cpu") for key, (kind, _) in MODELS.items()}
    new = ("backend", "truncate_dim", "max_active_dims")
    stored = {
        name: {key: value for key, value in ref.to_json().items() if key not in new}
        for name, ref in index.schema.models.items()
    }
    earlier = replace(index.schema, models={name: ModelRef.from_json(value) for name, value in stored.items()})
    index.store.alter(earlier)

    with (
        warnings.catch_warnings(action="error"),
        Index.open(here, collection="c") as remembered,
        Index.open(here, collection="c", **floats, trust_model=True) as trusted,
    ):
        assert answers(remembered) == answers(trusted)


@pytest.mark.torch
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_a_named_type_that_is_not_the_collections(exports, here, backend):
    """Both types are told, whoever names the model.

    Trusting it gives float32's numbers, and what needs no model works.
    """
    folders = names(exports, *OPENVINO_INT8)
    filled(here, **folders, backend="openvino", dtype="int8")
    running = {"backend": backend, "dtype": "float32"}
    says = r"made by '.*', which as loaded now differs in precision \(int8 then, float32 now\): use the model as it was"
    warned = rf"were computed by openvino int8; texts are now encoded by {backend} float32, as named"

    with pytest.warns(ModelWarning, match=warned):
        index = Index.open(here, collection="c", **running)
    with index:
        assert index.count() == len(DOCUMENTS)
        with pytest.raises(SchemaMismatch, match=says):
            index.search("copy")
        with pytest.raises(SchemaMismatch, match=says):
            index.ingest(DOCUMENTS)
    with pytest.warns(ModelWarning, match=warned), pytest.raises(SchemaMismatch, match=says):
        Index.open(here, collection="c", dense=folders["dense"], **running)
    floats = {
        key: getattr(st_core, kind)(folders[key], backend=backend, dtype="float32") for key, (kind, _) in MODELS.items()
    }
    with pytest.warns(ModelWarning, match=warned):
        named = Index.open(here, collection="c", trust_model=True, **running)
    with (
        named,
        Index.open(here, collection="c", trust_model=True, **floats) as given,
        Index.open(here, collection="c", backend="openvino") as own,
    ):
        assert answers(named) == answers(given)
        assert all(mine != theirs for mine, theirs in zip(answers(named), answers(own), strict=True))


@pytest.mark.torch
def test_another_model_of_another_type(exports, here, tmp_path):
    """Everything that differs is told, and of the types which they are."""
    folder = exports.folder("bert-mean", *OPENVINO_INT8)
    filled(here, dense=str(folder), backend="openvino", dtype="int8")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    settings = json.loads((other / SETTINGS).read_text("utf-8"))
    (other / SETTINGS).write_text(json.dumps(settings | {"prompts": {"document": "other: "}}), "utf-8")

    says = r"and '.*other' differs in precision \(int8 then, float32 now\), prompts"
    with pytest.warns(ModelWarning), pytest.raises(SchemaMismatch, match=says):
        Index.open(here, collection="c", dense=str(other), backend="openvino", dtype="float32")


@pytest.mark.torch
def test_making_a_collection_again_in_another_type(exports, here):
    """Is a mismatch that tells both types; in the same type it is opened."""
    folders = names(exports, *OPENVINO_INT8)
    filled(here, **folders, backend="openvino", dtype="int8")

    with Index.create(here, collection="c", **folders, backend="openvino", dtype="int8") as again:
        assert again.count() == len(DOCUMENTS)
    with pytest.raises(SchemaMismatch, match=r"in its precision, int8 and not float32"):
        Index.create(here, collection="c", **folders, backend="openvino")


@pytest.mark.torch
def test_a_reranker_is_never_compared(exports, here):
    """Remembered it runs in the type it had, in another one where that is named, and given by name in the default."""
    folder = names(exports, *OPENVINO_INT8)["reranker"]
    filled(here, **BUILTIN, reranker=folder, backend="openvino", dtype="int8")
    pairs = [(QUESTIONS[0], each["text"]) for each in DOCUMENTS]

    def expected(dtype):
        model = st_core.CrossEncoder(folder, backend="openvino", dtype=dtype)
        return dict(zip((each["id"] for each in DOCUMENTS), model.predict(pairs), strict=True))

    def found(**options):
        with Index.open(here, collection="c", backend="openvino", **options) as index:
            return {hit.id: hit.score for hit in index.search(QUESTIONS[0], rerank=True, mode="dense")}

    assert found() == found(dtype="int8") == pytest.approx(expected("int8"), abs=1e-6)
    assert found(dtype="float32") == found(reranker=folder) == pytest.approx(expected("float32"), abs=1e-6)
    assert np.abs(np.subtract(list(expected("int8").values()), list(expected("float32").values()))).max() > 1e-5


@pytest.mark.torch
def test_objects_stay_as_they_are(exports, here, letters):
    """Beside models by name, which alone are run as is said."""
    folders = names(exports, *OPENVINO_INT8)
    index = filled(here, dense=letters, sparse=folders["sparse"], backend="openvino", dtype="int8")

    assert index._models["dense"].load() is letters
    assert index._models["sparse"].load().backend == "openvino"
    assert precisions(index)["sparse"] == "int8"


@pytest.mark.torch
def test_their_collection_is_adopted_by_name(exports):
    """With the vectors and the hits of the object."""
    qdrant_client = pytest.importorskip("qdrant_client")
    models = qdrant_client.models
    folder = str(exports.folder("bert-mean", *OPENVINO_INT8))
    loaded = st_core.SentenceTransformer(folder, backend="openvino", dtype="int8")
    client = qdrant_client.QdrantClient(":memory:")
    found = []
    for name, options in [("names", {"backend": "openvino", "dtype": "int8"}), ("objects", {})]:
        size = loaded.get_embedding_dimension()
        client.create_collection(name, {"theirs": models.VectorParams(size=size, distance=models.Distance.COSINE)})
        model = folder if options else loaded
        index = Index.adopt("qdrant+memory:", collection=name, dense=("theirs", model), client=client, **options)
        index.ingest({**each, "id": number} for number, each in enumerate(DOCUMENTS))
        found.append(answers(index, [{}]))
    client.close()

    assert found[0] == found[1]
    assert len(found[0][0][0]["hits"]) == len(DOCUMENTS)


@pytest.mark.parametrize(
    ("backend", "dtype"), [OPENVINO_INT8, ("onnx", "bfloat16"), ("torch", "float16"), ("auto", None)]
)
def test_built_in_models_run_on_numpy_whatever_is_said(here, monkeypatch, backend, dtype):
    """No runtime is imported, the numbers are the same, and their type is that of the collection."""
    for package in ("openvino", "onnxruntime", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    plain = filled(f"{here} plain", **BUILTIN)

    said = filled(here, **BUILTIN, backend=backend, dtype=dtype)

    ways = WAYS[:3]
    assert answers(said, ways) == answers(plain, ways)
    assert said.schema.to_json() == plain.schema.to_json()
    with Index.open(here, collection="c", backend=backend, dtype=dtype) as again:
        assert answers(again, ways) == answers(plain, ways)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"backend": "tensorrt"}, "unknown backend 'tensorrt'; expected one of torch, onnx, openvino, auto"),
        ({"backend": "torch", "dtype": "int8"}, "dtype='int8' needs backend='onnx' or backend='openvino'"),
        (
            {"dtype": "flaot32"},
            "unknown dtype 'flaot32' for backend 'torch'; expected one of float32, float16, bfloat16, float64, auto",
        ),
        ({"dtype": ""}, "dtype is empty"),
        (
            {"backend": "openvino", "dtype": "int4"},
            "unknown dtype 'int4' for backend 'openvino'; expected one of float32, int8",
        ),
        ({"backend": "onnx", "dtype": "float64"}, "unknown dtype 'float64' for backend 'onnx'"),
        ({"backend": "auto", "dtype": "int8"}, "for dtype='int8' name the backend"),
    ],
)
def test_what_runs_nothing_is_refused_at_once(here, options, says):
    """Before a store or a model is looked for, also where the models are built in or objects."""
    for call in (Index.create, Index.open, Index.adopt):
        given = ("theirs", "builtin:dense") if call == Index.adopt else "builtin:dense"
        with pytest.raises(ValueError, match=says):
            call(here, collection="c", dense=given, **options)
    assert collections(here) == []


def test_int8_without_a_backend_needs_a_collection_that_has_one(here):
    """Neither a new collection nor one of built-in models records a backend; one filled on openvino does."""
    says = "dtype='int8' needs backend='onnx' or backend='openvino'"
    for call in (Index.create, Index.adopt):
        given = ("theirs", "builtin:dense") if call == Index.adopt else "builtin:dense"
        with pytest.raises(ValueError, match=says):
            call(here, collection="c", dense=given, dtype="int8")
    assert collections(here) == []
    filled(here, **BUILTIN)
    with pytest.raises(ValueError, match=says):
        Index.open(here, collection="c", dtype="int8")


@pytest.mark.parametrize(
    ("running", "precision", "dtype"),
    [
        (("openvino", None), "int8", "int8"),
        (("onnx", None), "bfloat16", "bfloat16"),
        (("openvino", None), "float32", "float32"),
        (("openvino", None), "int8-static", "int8"),
        (("openvino", None), "int8-model_qint8", None),
        (("onnx", None), "float64", None),
        (("torch", None), "float16", None),
        (("auto", None), "float16", None),
        (("openvino", "float32"), "int8", "float32"),
    ],
)
def test_the_type_of_a_model_that_is_remembered(running, precision, dtype):
    """Its own on the backends of graphs where they have it, unless another is named."""
    ref = ModelRef("org/model", ModelKind.DENSE, 3, precision=precision)

    assert ModelOptions(*running).matching(ref) == ModelOptions(running[0], dtype)
    assert ModelOptions(*running).matching(None) == ModelOptions(*running)


def test_a_model_that_records_its_backend():
    """Its backend and its type, unless another is named; on another backend the type if graphs have it."""
    ref = ModelRef("org/model", ModelKind.DENSE, 3, precision="bfloat16", backend="torch")
    named = {
        None: ("torch", "bfloat16"),
        "torch": ("torch", "bfloat16"),
        "onnx": ("onnx", "bfloat16"),
        "auto": ("auto", None),
    }
    for backend, expected in named.items():
        assert ModelOptions(backend, None).matching(ref) == ModelOptions(*expected)
    assert ModelOptions(None, "float32").matching(ref) == ModelOptions("torch", "float32")
