"""Exported folders run without torch, stay whole for sentence-transformers, and what is kept in the cache is safe."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards
from st_core.backends.graph.folders import READ, read_spec, write_graph  # noqa: E402
from st_core.checkpoint.read import read_checkpoint  # noqa: E402
from st_core.install import install_command  # noqa: E402
from st_core.saving import export as exporting  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.long]

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import json
import st_core
model = getattr(st_core, sys.argv[1])(sys.argv[2], backend=sys.argv[3], dtype=sys.argv[4])
found = getattr(model, sys.argv[5])(json.loads(sys.argv[6]))
found = found.to_dense() if hasattr(found, "to_dense") else found
print(json.dumps([found.tolist(), dict(st_core.describe(model).fingerprint)]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def without_torch(kind, folder, backend, dtype, method, inputs):
    """What a process gives that cannot import torch, and the fingerprint it sees."""
    command = [sys.executable, "-c", WITHOUT_TORCH, kind, str(folder), backend, dtype, method, json.dumps(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, fingerprint = json.loads(done.stdout)
    return np.array(found), fingerprint


@pytest.mark.parametrize(
    ("name", "kind", "method", "backend"),
    [
        ("roberta-six", "SentenceTransformer", "encode", "openvino"),
        ("splade-sum", "SparseEncoder", "encode", "onnx"),
        ("rerank-roberta", "CrossEncoder", "predict", "openvino"),
    ],
)
def test_an_exported_folder_runs_without_torch(exports, texts, agree, name, kind, method, backend):
    """With torch's numbers and the fingerprint of the model on torch; sentence-transformers still loads the folder."""
    expected, folder = exports.checkpoints.load(st_core, kind, name), exports.folder(name, backend)
    some = [text for text in texts if len(text) < 1000]
    inputs = some if kind != "CrossEncoder" else [[text, some[0]] for text in some]

    found, fingerprint = without_torch(kind, folder, backend, "float32", method, inputs)
    wanted = getattr(expected, method)(inputs)

    agree(found, wanted.to_dense() if kind == "SparseEncoder" else wanted)
    assert fingerprint == dict(st_core.describe(expected).fingerprint)
    theirs = getattr(oracle, kind)(str(folder), device="cpu")
    agree(getattr(theirs, method)(inputs), getattr(expected, method)(inputs, convert_to_tensor=True))


@pytest.mark.parametrize(
    ("name", "kind", "method", "backend"),
    [
        ("roberta-six", "SentenceTransformer", "encode", "onnx"),
        ("router", "SentenceTransformer", "encode_document", "openvino"),
        ("rerank-roberta", "CrossEncoder", "predict", "openvino"),
    ],
)
def test_a_model_on_a_graph_is_saved_with_it(exports, texts, agree, tmp_path, name, kind, method, backend):
    """What was set since comes too; the folder runs without torch, and sentence-transformers loads it."""
    some = [text for text in texts if len(text) < 1000]
    inputs = some if kind != "CrossEncoder" else [[text, some[0]] for text in some]
    model = getattr(st_core, kind)(exports.folder(name, backend), backend=backend)
    model.max_seq_length = 9
    expected = getattr(model, method)(inputs)

    model.save_pretrained(tmp_path / "saved")

    found, _ = without_torch(kind, tmp_path / "saved", backend, "float32", method, inputs)
    agree(found, expected)
    theirs = getattr(oracle, kind)(str(tmp_path / "saved"), device="cpu")
    agree(getattr(theirs, method)(inputs), expected)


def test_a_model_on_a_graph_is_saved_with_the_options_of_its_tokenizer(exports, texts, agree, tmp_path):
    """One folder gives the same numbers on its graph, on torch and in sentence-transformers."""
    some = [text for text in texts if len(text) < 1000]
    options = {"processor_kwargs": {"do_lower_case": False}}
    folder = exports.checkpoints.folder("bert-mean")
    expected = oracle.SentenceTransformer(str(folder), device="cpu", **options).encode(some)

    st_core.SentenceTransformer(folder, backend="onnx", **options).save_pretrained(tmp_path / "saved")

    found, _ = without_torch("SentenceTransformer", tmp_path / "saved", "onnx", "float32", "encode", some)
    agree(found, expected)
    for engine in (oracle, st_core):
        agree(engine.SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(some), expected)


def test_a_graph_of_another_calibration_is_replaced_when_a_model_is_saved(exports, texts, tmp_path):
    """Both are the same model's and have one name."""
    source, some = exports.checkpoints.folder("bert-mean"), [text for text in texts if 0 < len(text) < 1000]
    for calibration in (some, ()):
        made = tmp_path / f"of-{len(calibration)}"
        st_core.export_model(source, made, backend="openvino", dtype="int8", calibration=calibration)
        model = st_core.SentenceTransformer(made, backend="openvino", dtype="int8")

        model.save_pretrained(tmp_path / "saved")

        (place,) = (tmp_path / "saved" / "graphs").iterdir()
        assert read_spec(place).calibrated == len(calibration)
        found = st_core.SentenceTransformer(tmp_path / "saved", backend="openvino", dtype="int8").encode(some)
        np.testing.assert_array_equal(found, model.encode(some))


def test_a_graph_that_came_without_weights_is_not_saved(exports, tmp_path):
    """The message says what to do, and nothing is written."""
    model = st_core.SentenceTransformer(
        exports.given("bert-no-prompt", "onnx"), backend="onnx", model_kwargs={"file_name": "model.onnx"}
    )

    with pytest.raises(
        st_core.ModelUnsupported, match=r"runs the graph .*model\.onnx, not its weights: copy its folder"
    ):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(("backend", "dtype"), [("openvino", "float16"), ("openvino", "int8"), ("onnx", "bfloat16")])
def test_another_type_is_made_of_the_graph_in_the_models_folder(exports, tmp_path, monkeypatch, backend, dtype):
    """In a new folder and without torch, with the numbers that loading the first folder with that type gives."""
    folder = exports.both("distilbert-cls")
    expected = st_core.SentenceTransformer(folder, backend=backend, dtype=dtype).encode(["a tree"])
    monkeypatch.setitem(sys.modules, "torch", None)

    made = st_core.export_model(folder, tmp_path / "out", backend=backend, dtype=dtype)

    assert [place.name.rpartition("-")[0] for place in made.graphs] == [f"{backend}-{dtype}"]
    found, _ = without_torch("SentenceTransformer", made.folder, backend, dtype, "encode", ["a tree"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_model_that_cannot_be_exported_is_named(checkpoints, tmp_path, monkeypatch):
    """By the name it was given, not by that of the folder that was being written; nothing of that is left."""
    name = str(checkpoints.folder("distilbert-cls"))
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(ImportError, match=f"exporting a graph of {re.escape(name)} for backend='openvino'"):
        st_core.export_model(name, tmp_path / "out", backend="openvino")
    with pytest.raises(ImportError, match=f"exporting a graph of {re.escape(name)} for backend='onnx'"):
        st_core.export_model(name, tmp_path / "out", backend="onnx", family="CrossEncoder")
    assert not list(tmp_path.glob("*out*"))


def test_the_graphs_that_a_folder_has_are_named_where_another_cannot_be_made(exports, tmp_path, monkeypatch):
    """With what to load them with; a graph of another model in the same folder is not among them."""
    folder = Path(shutil.copytree(exports.folder("distilbert-cls", "openvino", "int8"), tmp_path / "out"))
    shutil.rmtree(next((folder / "graphs").glob("openvino-float32-*")))
    (folder / "graphs" / "onnx-float32-0123456789abcdef01234567").mkdir()
    monkeypatch.setitem(sys.modules, "torch", None)

    for backend in ("openvino", "onnx"):
        with pytest.raises(ImportError) as caught:
            st_core.SentenceTransformer(folder, backend=backend)
        assert str(caught.value) == (
            f"exporting a graph of {folder} for backend='{backend}' in float32 needs the extra 'export': "
            f"{install_command('export')}; the folder has graphs already, load it with backend='openvino', "
            "dtype='int8'"
        )


def test_files_that_transformers_does_not_read_change_no_graph(exports, tmp_path, monkeypatch):
    """Notes and requirements beside the configuration: the graph is found as before."""
    folder = Path(shutil.copytree(exports.folder("distilbert-cls", "openvino"), tmp_path / "out"))
    for name in ("my_notes.json", "requirements.txt"):
        (folder / name).write_text("[]")
    monkeypatch.setitem(sys.modules, "torch", None)

    model = st_core.SentenceTransformer(folder, backend="openvino")

    untouched = st_core.SentenceTransformer(exports.folder("distilbert-cls", "openvino"), backend="openvino")
    assert np.array_equal(model.encode("a"), untouched.encode("a"))


def test_all_files_of_tokenizers_count():
    """Every name of a JSON or text file that a tokenizer of the transformers library reads its vocabulary from."""
    from pathlib import PurePath

    import transformers

    names = set()
    for path in (Path(transformers.__file__).parent / "models").glob("*/tokenization*.py"):
        for listed in re.findall(r"VOCAB_FILES_NAMES = \{(.*?)\}", path.read_text("utf-8"), re.DOTALL):
            names.update(re.findall(r': "([^"]+\.(?:json|txt))"', listed))

    assert {"vocab.txt", "vocab.json", "tokenizer.json"} <= names
    assert not [name for name in names if not any(PurePath(name).match(pattern) for pattern in READ)]


@pytest.mark.parametrize("gone", ["model.safetensors", "tokenizer_config.json"])
@pytest.mark.parametrize("backend", ["openvino", "auto"])
def test_a_graph_of_another_state_of_the_folder_is_named(exports, tmp_path, monkeypatch, backend, gone):
    """Without torch, and where torch has no weights to make another of, with what to do."""
    folder = Path(shutil.copytree(exports.folder("distilbert-cls", "openvino"), tmp_path / "out"))
    (folder / gone).unlink()
    (place,) = (folder / "graphs").iterdir()
    told = f"the folder has graphs/{place.name}, exported from other weights, settings or tokenizer .* export the model"

    if gone == "model.safetensors":
        with pytest.raises(st_core.ModelBroken, match=told):
            st_core.SentenceTransformer(folder, backend=backend)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=told):
        st_core.SentenceTransformer(folder, backend=backend)


def test_a_graph_stays_where_another_cannot_be_made(exports, tmp_path, monkeypatch):
    """An export into the model's own folder that fails leaves what was there."""
    folder = Path(shutil.copytree(exports.folder("distilbert-cls", "openvino"), tmp_path / "out"))
    before = sorted(folder.rglob("*"))
    monkeypatch.setitem(sys.modules, "torch", None)

    with pytest.raises(ImportError, match="needs the extra 'export'"):
        st_core.export_model(folder, folder, backend="openvino")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("backend", "dtype", "calibration", "missing", "says"),
    [
        ("onnx", "float16", (), ("onnx", "onnx_ir"), "to float16 needs the package onnx: pip install onnx"),
        ("onnx", "bfloat16", (), ("onnx",), "to bfloat16 needs the package onnx: pip install onnx"),
        (
            "onnx",
            "int8",
            (),
            ("onnx", "onnx_ir"),
            "to int8 needs the packages onnx and onnx-ir: pip install onnx onnx-ir",
        ),
        ("onnx", "int8", (), ("onnx_ir",), "to int8 needs the package onnx-ir: pip install onnx-ir"),
        ("openvino", "int8", ("a tree",), ("nncf",), "to int8 needs the package nncf: pip install nncf"),
    ],
)
def test_the_packages_that_another_type_takes_are_named(
    exports, tmp_path, monkeypatch, backend, dtype, calibration, missing, says
):
    """Not an extra that brings torch, which the graph of a float32 graph does not need."""
    folder = exports.both("distilbert-cls")
    for name in (*missing, "torch"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ImportError) as caught:
        st_core.export_model(folder, tmp_path / "out", backend=backend, dtype=dtype, calibration=calibration)
    assert str(caught.value) == f"converting a graph {says}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_an_exported_folder_runs_where_the_cache_cannot_be_written(exports, monkeypatch, tmp_path, backend):
    """What OpenVINO compiles is not kept then: the folder for it would lie below a file."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "file" / "cache"))

    model = st_core.SentenceTransformer(exports.folder("distilbert-cls", backend), backend=backend)

    assert np.isfinite(model.encode(["a text"])).all()


@pytest.fixture
def graph(exports, tmp_path):
    """A copy of the folder of a graph, to be damaged."""
    (place,) = (exports.folder("distilbert-cls", "openvino") / "graphs").iterdir()
    return Path(shutil.copytree(place, tmp_path / "copy" / place.name))


def test_a_damaged_graph_in_the_cache_is_made_again(exports, texts, agree, cache, graph):
    """And takes the place of the old one; nothing else is left."""
    expected = exports.checkpoints.load(st_core, "SentenceTransformer", "distilbert-cls").encode(texts)
    place = Path(shutil.copytree(graph, cache / "graphs" / graph.name))
    (place / "openvino_model.bin").write_bytes(b"short")

    model = st_core.SentenceTransformer(exports.checkpoints.folder("distilbert-cls"), backend="openvino")

    agree(model.encode(texts), expected)
    assert read_spec(place) is not None
    assert [path.name for path in place.parent.iterdir()] == [place.name]


@pytest.mark.parametrize("damage", ["cut", "lost", "garbled"])
def test_damage_is_seen(graph, damage):
    """A cut file, a lost file and a broken description."""
    if damage == "cut":
        (graph / "openvino_model.bin").write_bytes(b"short")
    elif damage == "lost":
        (graph / "tokenizer.json").unlink()
    else:
        (graph / "graph.json").write_text("{")

    with pytest.raises(st_core.ModelBroken, match=r"damaged|not a readable description"):
        read_spec(graph)


def test_a_damaged_exported_graph_is_named(exports, tmp_path):
    """The folder is the user's: it is not mended behind their back."""
    folder = Path(shutil.copytree(exports.folder("distilbert-cls", "openvino"), tmp_path / "out"))
    with next(folder.glob("graphs/*/openvino_model.xml")).open("ab") as file:
        file.write(b"more")

    with pytest.raises(st_core.ModelBroken, match=r"openvino_model\.xml: the file is missing or damaged"):
        st_core.SentenceTransformer(folder, backend="openvino")


def test_several_may_keep_the_same_graph_at_once(cache, graph):
    """Eight at once: one folder is there afterwards, whole, and nothing beside it."""
    spec = read_spec(graph)
    place = cache / "graphs" / "same"

    def write(folder):
        for name in spec.files:
            (folder / name).write_bytes((graph / name).read_bytes())
        return spec

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: write_graph(place, write), range(16)))

    assert read_spec(place).files == spec.files
    assert [path.name for path in place.parent.iterdir()] == ["same"]


def test_another_model_has_another_graph(exports, cache, texts, agree):
    """A pooling that leaves out the prompt is another stack: its graph is made and its numbers are torch's."""
    model = st_core.SentenceTransformer(exports.folder("distilbert-cls", "openvino"), backend="openvino")
    expected = st_core.SentenceTransformer(exports.checkpoints.folder("distilbert-cls"))
    assert not list(cache.glob("graphs/*"))
    for each in (model, expected):
        each.set_pooling_include_prompt(False)

    agree(model.encode(texts[:3], prompt="Group these: "), expected.encode(texts[:3], prompt="Group these: "))
    assert len(list((cache / "graphs").iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "tensorrt"}, ValueError, "unknown backend 'tensorrt'; expected one of torch, onnx, openvino"),
        (
            {"backend": "onnx", "dtype": "int4"},
            ValueError,
            "unknown dtype 'int4' for backend 'onnx'; expected one of float32, int8, float16, bfloat16",
        ),
        ({"backend": "openvino", "dtype": "int4"}, ValueError, "unknown dtype 'int4' for backend 'openvino'"),
        ({"dtype": "int8"}, ValueError, "needs backend='onnx' or backend='openvino'"),
        ({"backend": "openvino", "device": "cuda"}, ValueError, "runs on the cpu"),
    ],
)
def test_what_does_not_go_together_is_refused(checkpoints, options, error, message):
    """Before anything is loaded, saying what there is."""
    with pytest.raises(error, match=message):
        st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), **options)


def test_modules_that_no_graph_holds_are_named(checkpoints):
    """And the message says what runs them."""
    with pytest.raises(st_core.ModelUnsupported, match=r"SparseAutoEncoder cannot be part of a graph.*backend='torch'"):
        st_core.SparseEncoder(str(checkpoints.folder("csr")), backend="openvino")


@pytest.fixture
def own(exports, tmp_path):
    """An exported folder that a test may change."""
    return Path(shutil.copytree(exports.folder("bert-mean", "onnx"), tmp_path / "own"))


def export(source, out, **options):
    return st_core.export_model(source, out, **{"backend": "onnx", "family": "SentenceTransformer"} | options)


def test_an_export_that_fails_leaves_the_graph_that_was_there(own, monkeypatch):
    """The new graph takes its place only when it is whole."""
    (before,) = (own / "graphs").iterdir()
    monkeypatch.setattr("st_core.backends.graph.backend.can_export", lambda: False)

    with pytest.raises(ImportError, match="export"):
        export(own, own)

    assert [each.name for each in (own / "graphs").iterdir()] == [before.name]
    assert read_spec(before) is not None


def test_an_export_replaces_the_graph_that_was_there(own):
    """It is made anew, since it may have been calibrated on other texts, and nothing else is left beside it."""
    (before,) = (own / "graphs").iterdir()
    made = before.stat().st_ino

    export(own, own)

    (after,) = (own / "graphs").iterdir()
    assert after.name == before.name
    assert after.stat().st_ino != made
    assert read_spec(after) is not None


def test_a_model_that_may_not_be_written_to_is_exported(own, tmp_path):
    """Its folders' modes are not taken over: nothing could be put there, nor taken away."""
    folders = [own, *(each for each in own.rglob("*") if each.is_dir())]
    for folder in folders:
        folder.chmod(0o555)

    exported = export(own, tmp_path / "out")

    assert {each.stat().st_mode & 0o777 for each in exported.folder.rglob("*") if each.is_dir()} == {0o755}


def test_a_name_that_is_taken_meanwhile_is_told(own, tmp_path):
    """What another process has put there stays, and nothing of the unfinished export."""
    out = tmp_path / "out"

    def told(_):
        out.mkdir(exist_ok=True)
        (out / "theirs").write_text("theirs")

    with pytest.raises(ValueError, match="is there already"):
        export(own, out, told=lambda words: told(words) if words != "locating it" else None)

    assert [each.name for each in out.iterdir()] == ["theirs"]
    assert not list(tmp_path.glob(".out-*"))


@pytest.mark.parametrize("target", ["nothing", "blob.json", ".", "../own"])
def test_links_that_cannot_be_copied_are_named(own, tmp_path, target):
    """To nothing, to themselves or to a folder that they lie in.

    One that leads elsewhere is copied as what is there.
    """
    (own / "blob.json").symlink_to(target)

    with pytest.raises(st_core.ModelBroken, match=r"/blob\.json: the link points to (nothing|a folder)[^\n]*remove it"):
        export(own, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    (own / "blob.json").unlink()
    (tmp_path / "elsewhere.json").write_text("{}")
    (own / "blob.json").symlink_to("../elsewhere.json")
    export(own, tmp_path / "out")
    assert (tmp_path / "out" / "blob.json").read_text() == "{}"


def test_a_folder_within_the_model_holds_no_copy_of_itself(own):
    """What is being written there is no part of the model."""
    exported = export(own, own / "sub")

    assert not list(exported.folder.rglob(".sub-*"))


@pytest.mark.parametrize(
    ("name", "family", "says"),
    [
        ("plain-bert-masked", "SentenceTransformer", "for a SPLADE model pass family='SparseEncoder' (--kind sparse)"),
        ("rerank-plain", "CrossEncoder", ""),
        ("splade-max", "SparseEncoder", ""),
        ("plain-bert", "SentenceTransformer", ""),
    ],
)
def test_a_folder_that_leaves_open_what_it_gives_is_told_of(checkpoints, caplog, name, family, says):
    """A masked language model may be a SPLADE model or the beginning of a dense one."""
    folder = checkpoints.folder(name)

    assert exporting._family(read_checkpoint(folder, name=str(folder), revision=None)) == family
    assert says in caplog.text
    assert bool(says) == bool(caplog.records)
