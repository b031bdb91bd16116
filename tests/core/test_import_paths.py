"""The import paths of sentence-transformers: of what exists here, deprecated ones, and those that say what to use."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec

import pytest

import st_core
from st_core.models import Normalize

MODULES = "st_core.sentence_transformer.modules"
PATHS = [
    ("st_core.base.model", "BaseModel"),
    ("st_core.base.modules", "Normalize"),
    ("st_core.base.modules.dense", "Dense"),
    ("st_core.base.modules.input_module", "InputModule"),
    ("st_core.base.modules.module", "Module"),
    ("st_core.base.modules.normalize", "Normalize"),
    ("st_core.base.modules.router", "Router"),
    ("st_core.base.modules.transformer", "Transformer"),
    ("st_core.cross_encoder", "CrossEncoder"),
    ("st_core.cross_encoder.model", "CrossEncoder"),
    ("st_core.cross_encoder.model_card", "CrossEncoderModelCardData"),
    ("st_core.cross_encoder.modules", "LogitScore"),
    ("st_core.cross_encoder.modules.logit_score", "LogitScore"),
    ("st_core.quantization", "quantize_embeddings"),
    ("st_core.sentence_transformer.model_card", "SentenceTransformerModelCardData"),
    *[
        (f"{MODULES}.{path}", name)
        for path, name in (
            ("bow", "BoW"),
            ("clip_model", "CLIPModel"),
            ("cnn", "CNN"),
            ("dropout", "Dropout"),
            ("layer_norm", "LayerNorm"),
            ("lstm", "LSTM"),
            ("pooling", "Pooling"),
            ("static_embedding", "StaticEmbedding"),
            ("weighted_layer_pooling", "WeightedLayerPooling"),
            ("word_embeddings", "WordEmbeddings"),
            ("word_weights", "WordWeights"),
        )
    ],
    ("st_core.sparse_encoder.modules", "SpladePooling"),
    ("st_core.sparse_encoder.modules.mlm_transformer", "MLMTransformer"),
    ("st_core.sparse_encoder.modules.sparse_auto_encoder", "SparseAutoEncoder"),
    ("st_core.sparse_encoder.modules.sparse_static_embedding", "SparseStaticEmbedding"),
    ("st_core.sparse_encoder.modules.splade_pooling", "SpladePooling"),
]
OLD = [
    ("st_core.SentenceTransformer", "SentenceTransformer"),
    ("st_core.cross_encoder.CrossEncoder", "CrossEncoder"),
    ("st_core.models.CNN", "CNN"),
    ("st_core.models.Pooling", "Pooling"),
    ("st_core.similarity_functions", "SimilarityFunction"),
    ("st_core.sparse_encoder.SparseEncoder", "SparseEncoder"),
    ("st_core.sparse_encoder.models", "SpladePooling"),
    ("st_core.sparse_encoder.models.SpladePooling", "SpladePooling"),
]


@pytest.fixture
def fresh():
    """Import the paths anew."""
    before = dict(sys.modules)
    for name in [name for name, _ in PATHS + OLD if name in sys.modules and not sys.modules[name].__spec__.origin]:
        del sys.modules[name]
    yield
    sys.modules.update(before)


@pytest.mark.filterwarnings("ignore:Importing from 'sentence_transformers:DeprecationWarning")
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("path", "name"), PATHS)
def test_a_path_of_theirs_has_the_class(path, name):
    """One that they have too, under the same name."""
    if find_spec("sentence_transformers"):
        assert hasattr(import_module(path.replace("st_core", "sentence_transformers")), name)

    found = getattr(import_module(path), name)

    home = {"BaseModel": "st_core.model", "quantize_embeddings": "st_core.quantize"}.get(name, "st_core.models")
    home = "st_core.model_card" if name.endswith("Data") else "st_core" if name == "CrossEncoder" else home
    assert found is getattr(import_module(home), "Model" if name == "BaseModel" else name)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("path", "name"), OLD)
def test_a_deprecated_path_warns_and_replaces_no_class(path, name):
    """The warning names the importing line; a class of the name of the path is still the class."""
    parent, _, last = path.rpartition(".")
    with warnings.catch_warnings(action="ignore"):
        before = getattr(import_module(parent), last, None)
    with pytest.warns(DeprecationWarning, match=f"import from {path}: the path is now st_core") as caught:
        found = getattr(import_module(path), name)

    assert caught[0].filename == __file__
    assert isinstance(found, type)
    if last == name:
        assert found is before is getattr(import_module(parent), last)
        assert getattr(st_core, name, found) is found


def test_the_base_classes_of_modules_recognise_modules_and_refuse_to_build_others():
    """A file that defines a module of its own can be imported; the error of building it says what to do."""
    from st_core.base.modules import InputModule, Module

    class Mine(Module):
        config_keys = ("decay",)

        def forward(self, features):
            return features

    model = st_core.SentenceTransformer("builtin:dense")
    assert [isinstance(each, Module) for each in (*model, Normalize(), Mine, "text")] == [True] * (len(model) + 1) + [
        False,
        False,
    ]
    assert isinstance(model[0], InputModule)
    assert not isinstance(Normalize(), InputModule)
    with pytest.raises(st_core.ModelUnsupported, match=r"registered by st_core\.modules\.register"):
        Mine(decay=0.5)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("st_core.data_collator", "lists of mappings"),
        ("st_core.readers", "lists of mappings"),
        ("st_core.sentence_transformer.fit_mixin", "lists of mappings"),
        ("st_core.sparse_encoder.search_engines", "st_connectors"),
        ("st_core.multi_vector_encoder", "one vector per token"),
        ("st_core.sentence_transformer.modules.tokenizer", "tokenizers of words"),
    ],
)
def test_a_path_of_what_is_not_there_says_what_to_use(path, reason):
    """In the error of the import; other paths raise Python's own."""
    with pytest.raises(ModuleNotFoundError, match=f"no module {path}: .*{reason}") as caught:
        import_module(path)
    assert caught.value.name == path
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'st_core\.no_such'$"):
        import_module("st_core.no_such")


@pytest.mark.parametrize("name", ["SentenceTransformerDataCollator", "InputExample"])
def test_a_name_of_training_says_what_to_use(name):
    """An ImportError, as for functions that are not there."""
    with pytest.raises(ImportError, match=f"st_core has no {name}: a training reads lists of mappings"):
        exec(f"from st_core import {name}")


def test_modules_are_attributes_of_the_package():
    """``import st_core`` is enough to reach those that theirs imports with its package."""
    code = "import st_core; print(st_core.util.cos_sim.__name__, st_core.models.Pooling.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["cos_sim", "Pooling"]


def test_no_path_imports_a_large_library():
    """Neither torch nor a tokenizer."""
    code = (
        "import importlib, json, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        f"for path in {[path for path, _ in PATHS + OLD]!r}: importlib.import_module(path)\n"
        "print(json.dumps([name for name in ('torch', 'transformers', 'tokenizers') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []
