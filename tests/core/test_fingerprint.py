"""What describe says of a model, and what makes two fingerprints differ."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import MappingProxyType

import numpy as np
import pytest

from st_core import ModelKind, ModelRef, SentenceTransformer, SparseEncoder, SparseMatrix, describe
from st_core.checkpoint.find import find_checkpoint

COMPONENTS = {"weights", "tokenizer", "configuration", "prompts", "precision"}


@pytest.fixture
def copy(tmp_path):
    """A copy of the built-in dense checkpoint that a test may change."""
    folder, _, _ = find_checkpoint("builtin:dense", organisation="")
    return shutil.copytree(folder, tmp_path / "copy")


def fingerprint(folder, **options):
    return dict(describe(SentenceTransformer(folder, **options)).fingerprint)


def differing(first, second):
    return {name for name in COMPONENTS if first[name] != second[name]}


def edit(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_our_models_are_described():
    """Name, kind, width, and all components of the fingerprint."""
    dense = describe(SentenceTransformer("builtin:dense"))
    sparse = describe(SparseEncoder("builtin:sparse"))

    assert (dense.name, dense.kind, dense.dimension) == ("builtin:dense", ModelKind.DENSE, 256)
    assert (sparse.name, sparse.kind) == ("builtin:sparse", ModelKind.SPARSE)
    assert set(dense.fingerprint) == COMPONENTS
    assert set(sparse.fingerprint) == {*COMPONENTS, "max_active_dims"}
    assert differing(dense.fingerprint, sparse.fingerprint) >= {"weights", "configuration"}
    assert (dense.backend, sparse.backend) == (None, None)


def test_the_number_of_active_dimensions_is_a_component_of_its_own():
    """It changes vectors and nothing else, and is described as a number too."""
    whole, ten, eleven = (describe(SparseEncoder("builtin:sparse", max_active_dims=n)) for n in (None, 10, 11))

    assert [ref.max_active_dims for ref in (whole, ten, eleven)] == [None, 10, 11]
    for other in (whole, eleven):
        parts = ten.fingerprint.keys()
        assert {part for part in parts if ten.fingerprint[part] != other.fingerprint[part]} == {"max_active_dims"}


def test_a_truncated_model_is_described_with_its_width():
    """The setting and the width that results."""
    ref = describe(SentenceTransformer("builtin:dense", truncate_dim=32))

    assert (ref.truncate_dim, ref.dimension) == (32, 32)


def test_a_reference_survives_json():
    """What is kept beside a collection compares equal to what was described."""
    reference = describe(SentenceTransformer("builtin:dense"))

    kept = ModelRef.from_json(json.loads(json.dumps(reference.to_json())))

    assert kept == reference


def test_a_copy_elsewhere_has_the_same_fingerprint(copy):
    """The folder's name and the files' times do not count."""
    assert fingerprint(copy) == fingerprint("builtin:dense")


def test_other_weights_differ_in_the_weights_alone(copy):
    """One changed number is a different model, and the component says so."""
    from safetensors.numpy import load_file, save_file

    before = fingerprint(copy)
    path = copy / "0_StaticEmbedding" / "model.safetensors"
    tensors = load_file(path)
    tensors["weights"] = tensors["weights"].copy()
    tensors["weights"][0] += 1
    save_file(tensors, path)

    assert differing(before, fingerprint(copy)) == {"weights"}


def test_another_tokenizer_differs_in_the_tokenizer_alone(copy):
    """The same table behind another normaliser is a different model."""
    before = fingerprint(copy)
    edit(copy / "0_StaticEmbedding" / "tokenizer.json", lambda value: value | {"normalizer": None})

    assert differing(before, fingerprint(copy)) == {"tokenizer"}


def test_another_stack_differs_in_the_configuration_alone(copy):
    """Without the normalising module the vectors are others."""
    before = fingerprint(copy)
    edit(copy / "modules.json", lambda value: value[:1])

    assert differing(before, fingerprint(copy)) == {"configuration"}


def test_other_prompts_differ_in_the_prompts_alone(copy):
    """A prompt given by the caller counts."""
    assert differing(fingerprint(copy), fingerprint(copy, prompts={"query": "q: "})) == {"prompts"}


def test_hashing_waits_until_it_is_asked_for(copy, monkeypatch):
    """Describing a model reads nothing: opening a collection by name and width costs nothing."""
    model = SentenceTransformer(copy)

    def refuse(*_):
        raise AssertionError("hashed")

    monkeypatch.setattr("st_core.fingerprint._hash", refuse)
    reference = describe(model)

    assert reference.dimension == 256
    with pytest.raises(AssertionError, match="hashed"):
        dict(reference.fingerprint)


class Foreign:
    """Somebody's encoder."""

    prompts = MappingProxyType({"query": "q: ", "document": ""})
    max_seq_length = 77
    model_name_or_path = "somebody/model"

    def encode_query(self, inputs):
        return np.ones((len(inputs), 3), np.float32)

    def encode_document(self, inputs):
        return np.ones((len(inputs), 3), np.float32)


class ForeignSparse(Foreign):
    """Somebody's sparse encoder."""

    def encode_document(self, inputs):
        return SparseMatrix.from_dense(np.ones((len(inputs), 5))).to_scipy()


class ForeignReranker:
    """Somebody's reranker."""

    def predict(self, inputs):
        return [0.0 for _ in inputs]


def test_foreign_objects_are_described_by_what_they_give():
    """Attributes where there are some, one probe text for kind and width, and no fingerprint."""
    pytest.importorskip("scipy")
    dense, sparse, reranker = describe(Foreign()), describe(ForeignSparse()), describe(ForeignReranker())

    assert (dense.name, dense.kind, dense.dimension) == ("somebody/model", ModelKind.DENSE, 3)
    assert (dense.max_tokens, dict(dense.prompts), dict(dense.fingerprint)) == (77, {"query": "q: "}, {})
    assert (sparse.kind, sparse.dimension) == (ModelKind.SPARSE, 5)
    assert (reranker.kind, reranker.dimension) == (ModelKind.RERANKER, 1)


def test_what_is_no_model_is_refused():
    """An object that neither encodes nor predicts is a mistake."""
    with pytest.raises(TypeError, match="expected a model"):
        describe(object())


@pytest.mark.torch
@pytest.mark.parametrize("name", ["bert-mean", "roberta-six", "static"])
def test_pickled_and_safe_weights_agree(checkpoints, name):
    """One model in the newest and in the oldest layout has one fingerprint."""
    pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    new, old = (SentenceTransformer(checkpoints.folder(name + layout), device="cpu") for layout in ("", "-old"))

    assert dict(describe(new).fingerprint) == dict(describe(old).fingerprint)


@pytest.mark.torch
@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"layer_norm_eps": 0.1}, {"num_hidden_layers": 1}])
def test_another_configuration_of_the_same_files_differs(checkpoints, tmp_path, change):
    """Asked for when the model is loaded, and as it is saved then."""
    plain = fingerprint(checkpoints.folder("bert-mean"))
    model = SentenceTransformer(checkpoints.folder("bert-mean"), config_kwargs=change)

    assert differing(plain, dict(describe(model).fingerprint)) == {"configuration"}
    model.save_pretrained(tmp_path / "saved")
    assert fingerprint(tmp_path / "saved") == dict(describe(model).fingerprint)


@pytest.mark.torch
def test_a_document_model_beside_its_inference_free_twin(checkpoints):
    """A router with SPLADE for documents has the weights and the tokenizer of that SPLADE model alone."""
    pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    both = describe(SparseEncoder(checkpoints.folder("sparse-router"), device="cpu"))
    alone = describe(SparseEncoder(checkpoints.folder("sparse-router") / "document_0_Transformer", device="cpu"))

    assert both.fingerprint["weights"] == alone.fingerprint["weights"]
    assert both.fingerprint["tokenizer"] == alone.fingerprint["tokenizer"]


WITHOUT_TORCH = """
import json, sys
if {block}:
    sys.modules["torch"] = sys.modules["transformers"] = None
from st_core import SparseEncoder, describe
model = SparseEncoder({folder!r})
query = model.encode_query("copy a tree")
found = describe(model)
print(json.dumps([found.to_json(), model.max_seq_length, model.decode(query), not {block} and "torch" in sys.modules]))
"""


@pytest.mark.torch
@pytest.mark.parametrize("block", [True, False])
def test_a_model_for_queries_is_described_without_its_document_model(checkpoints, block):
    """A process without torch says of it what one says that has loaded it.

    One with torch does not import it for that.
    """
    pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    folder = checkpoints.folder("sparse-router")
    code = WITHOUT_TORCH.format(block=block, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    described, length, decoded, imported = json.loads(done.stdout)

    model = SparseEncoder(folder, device="cpu")
    model.encode_document("copy a tree")
    assert described == describe(model).to_json()
    assert length == model.max_seq_length
    assert [tuple(each) for each in decoded] == model.decode(model.encode_query("copy a tree"))
    assert not imported


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sparse-router", {}),
        ("sparse-router", {"dtype": "bfloat16"}),
        ("sparse-router", {"model_kwargs": {"dtype": "auto"}}),
        ("sparse-router", {"processor_kwargs": {"model_max_length": 20}}),
        ("router-halves", {}),
    ],
    ids=str,
)
def test_loading_a_route_changes_nothing_of_what_is_described(checkpoints, tmp_path, name, options):
    """Length, precision and hashes read from files equal those of the loaded model, also in half precision."""
    pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers")
    folder = checkpoints.folder("sparse-router")
    if name == "router-halves":
        from safetensors.torch import load_file, save_file

        folder = shutil.copytree(folder, tmp_path / name)
        path = folder / "document_0_Transformer" / "model.safetensors"
        halves = {key: tensor.half() for key, tensor in load_file(path).items()}
        save_file(halves, path, metadata={"format": "pt"})
        edit(path.parent / "config.json", lambda value: value | {"dtype": "float16"})
    model = SparseEncoder(folder, device="cpu", **options)
    before, length = describe(model).to_json(), model.max_seq_length
    assert model._engine.factory.torch is None

    model.encode_document("copy a tree")

    assert model._engine.factory.torch is not None
    assert (describe(model).to_json(), model.max_seq_length) == (before, length)


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.parametrize("made", [True, False], ids=["exported", "not exported"])
@pytest.mark.parametrize(("backend", "dtype"), [("openvino", "int8"), ("onnx", "float32")])
def test_loading_a_graph_changes_nothing_of_what_is_described(exports, tmp_path, monkeypatch, made, backend, dtype):
    """For queries by a table of weights the graph for documents is neither loaded nor made, also without torch."""
    pytest.importorskip(backend if backend == "openvino" else "onnxruntime")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    folder = exports.folder("sparse-router", backend, dtype) if made else exports.checkpoints.folder("sparse-router")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        model = SparseEncoder(folder, backend=backend, dtype=dtype)
        before, length = describe(model).to_json(), model.max_seq_length
    assert list(model._engine._ready) == ["query"]
    assert before["precision"] == dtype

    model.encode_document("copy a tree")

    assert list(model._engine._ready) == ["query", "document"]
    assert (describe(model).to_json(), model.max_seq_length) == (before, length)
