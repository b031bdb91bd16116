"""Repository graphs, with the modules behind them, give sentence-transformers' vectors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")
pytest.importorskip("openvino", reason="needs openvino")
pytest.importorskip("onnxruntime", reason="needs onnxruntime")

import st_core  # noqa: E402 -- after the guards
from st_core.backends.graph.onnx.dtypes import weight_types  # noqa: E402
from st_core.checkpoint.find import find_checkpoint  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.long]

FILES = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
CASES = [
    ("bert-no-prompt", "SentenceTransformer", "onnx"),  # token types; the prompt's tokens do not count
    ("roberta-six", "SentenceTransformer", "openvino"),  # no token types; every pooling
    ("distilbert-cls", "SentenceTransformer", "onnx"),  # a Dense behind the pooling
    ("splade-sum", "SparseEncoder", "openvino"),
    ("splade-max", "SparseEncoder", "onnx"),
    ("rerank-bert", "CrossEncoder", "onnx"),
    ("rerank-roberta", "CrossEncoder", "openvino"),  # three labels
]
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
import json
import st_core
model = getattr(st_core, sys.argv[1])(sys.argv[2], backend=sys.argv[3])
found = [getattr(model, name)(json.loads(sys.argv[4])) for name in sys.argv[5:]]
found = [each.to_dense() if hasattr(each, "to_dense") else each for each in found]
print(json.dumps([model.backend, [each.tolist() for each in found]]))
"""
METHODS = {
    "SentenceTransformer": ["encode_query", "encode_document"],
    "SparseEncoder": ["encode_query", "encode_document"],
    "CrossEncoder": ["predict"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test."""
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))


def given_inputs(kind, texts):
    """Texts, or pairs of them."""
    return [[first, second] for first in texts[:4] for second in texts] if kind == "CrossEncoder" else texts


@pytest.mark.parametrize(("name", "kind", "backend"), CASES)
def test_a_named_graph_gives_the_numbers_of_the_oracle(exports, texts, agree, name, kind, backend):
    """All kinds of heads, pooled by numpy; the tokenizer is the one sentence-transformers uses."""
    expected = exports.checkpoints.load(oracle, kind, name)
    folder, inputs = exports.given(name, backend), given_inputs(kind, texts)

    model = getattr(st_core, kind)(folder, backend=backend, model_kwargs={"file_name": FILES[backend]})

    assert model.backend == backend
    assert st_core.describe(model).precision == "float32"
    for method in METHODS[kind]:
        agree(getattr(model, method)(inputs), getattr(expected, method)(inputs, convert_to_tensor=True))


@pytest.mark.parametrize(
    ("name", "kind", "backend"),
    [CASES[0], CASES[1], CASES[3], CASES[5], ("roberta-six", "SentenceTransformer", "auto")],
)
def test_without_torch_it_is_taken_by_itself(exports, texts, agree, name, kind, backend):
    """No name is needed, nor weights, torch or transformers; "auto" takes what is there."""
    expected = exports.checkpoints.load(oracle, kind, name)
    folder = exports.given(name, "openvino" if backend == "auto" else backend)
    inputs = given_inputs(kind, [text for text in texts if len(text) < 1000])

    command = [sys.executable, "-c", WITHOUT_TORCH, kind, str(folder), backend, json.dumps(inputs), *METHODS[kind]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ran, found = json.loads(done.stdout)

    assert ran == backend.replace("auto", "openvino")
    for method, values in zip(METHODS[kind], found, strict=True):
        agree(np.array(values), getattr(expected, method)(inputs, convert_to_tensor=True))


@pytest.mark.parametrize("asked", ["onnx", "openvino", "auto"])
def test_without_weights_it_is_taken_by_itself(exports, texts, agree, asked):
    """Also where torch is there, which has nothing to make a graph of."""
    backend = asked.replace("auto", "onnx")
    folder = exports.given("distilbert-cls", backend)
    named = st_core.SentenceTransformer(folder, backend=backend, model_kwargs={"file_name": FILES[backend]})

    model = st_core.SentenceTransformer(folder, backend=asked)

    assert model.backend == backend
    agree(model.encode(texts), named.encode(texts), 0)


@pytest.mark.parametrize("asked", ["onnx", "auto"])
def test_without_weights_a_graph_of_another_name_is_told(exports, tmp_path, asked):
    """With what loads it."""
    folder = Path(shutil.copytree(exports.given("distilbert-cls", "onnx"), tmp_path / "other"))
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_O3.onnx")

    with pytest.raises(st_core.ModelBroken, match=r"no weights .*model_kwargs=\{'file_name': 'onnx/model_O3.onnx'\}"):
        st_core.SentenceTransformer(folder, backend=asked)


@pytest.mark.parametrize(
    "name",
    ["bert-mean", "roberta-six", "distilbert-cls", "mpnet-max", "xlm-roberta-weighted", "rerank-short"],
)
def test_the_tokenizer_of_the_files_is_that_of_transformers(checkpoints, texts, name):
    """Texts and pairs, cut and whole, and what is known beside the ids.

    Not so for "cased-lower": its ``tokenizer.json`` lowers texts, and transformers 5 rebuilds the tokenizer from the
    vocabulary without that step.
    """
    from st_core.backends.tokenizer_files import from_files
    from st_core.backends.torch.library import tokenizer_of

    module = read_transformer(checkpoints.folder(name))
    (expected, limit), (found, found_limit) = tokenizer_of(module), from_files(module)

    assert (found_limit, found.pad_id, found.pad_left) == (limit, expected.pad_id, expected.pad_left)
    assert (found.keep_left, found.special_ids) == (expected.keep_left, expected.special_ids)
    for inputs in (texts, [(texts[0], text) for text in texts]):
        for most in (limit, 12):
            wanted = expected.tokenize(inputs, most).ids
            assert all(np.array_equal(*rows) for rows in zip(found.tokenize(inputs, most).ids, wanted, strict=True))


def read_transformer(folder):
    """The Transformer module of a checkpoint."""
    from st_core.checkpoint.read import read_checkpoint
    from st_core.modules import LoadOptions
    from st_core.modules.stack import assemble

    checkpoint = read_checkpoint(folder, name=str(folder), revision=None)
    return assemble(checkpoint, checkpoint.family, LoadOptions())[0]


def test_an_option_that_only_transformers_follows_needs_it(checkpoints, tmp_path):
    """The tokenizer's file would give other tokens without a word; options that change none are passed over."""
    from st_core.backends.tokenizer_files import from_files

    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "given")
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    for options in ({"token": "a", "model_max_length": 9, "use_fast": True}, {"do_lower_case": False}):
        settings["processor_kwargs"] = options
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
        if "do_lower_case" in options:
            with pytest.raises(
                ImportError, match=r"option 'do_lower_case' of the tokenizer .* needs the extra 'torch'"
            ):
                from_files(read_transformer(folder))
        else:
            assert from_files(read_transformer(folder))[1] == 9


def test_prompts_batches_and_token_vectors(exports, texts, agree):
    """A prompt whose tokens do not count, batches of two, and the vectors before pooling."""
    expected = exports.checkpoints.load(oracle, "SentenceTransformer", "bert-no-prompt")
    folder = exports.given("bert-no-prompt", "onnx")
    model = st_core.SentenceTransformer(folder, backend="onnx", model_kwargs={"file_name": "model.onnx"})

    agree(
        model.encode(texts, prompt="Group these: ", batch_size=2, normalize_embeddings=True),
        expected.encode(texts, prompt="Group these: ", normalize_embeddings=True),
    )
    for found, wanted in zip(
        model.encode(texts[:3], output_value="token_embeddings"),
        expected.encode(texts[:3], output_value="token_embeddings"),
        strict=True,
    ):
        agree(found, wanted)
    with pytest.raises(st_core.InputTooLong, match="does not fit into the"):
        model.encode("tree " * 2000, processing_kwargs={"truncation": False})


@pytest.mark.parametrize(("last", "expected"), [(False, [1, 0, 0]), (True, [0, 0, 1])])
def test_a_text_without_tokens_is_read_as_one_of_padding(last, expected):
    """The graph attends to something, on the side where texts are.

    What was given to it stays as it is, for the pooling.
    """
    from st_core.backends.graph.repository import _Attending

    mask = np.array([[0, 0, 0], [0, 1, 1]])
    feed = {"input_ids": np.ones((2, 3), np.int64), "attention_mask": mask}

    (seen,) = _Attending(lambda given: [None, given["attention_mask"]], 1, last)(feed)

    assert seen.tolist() == [expected, [0, 1, 1]]
    assert mask.tolist() == [[0, 0, 0], [0, 1, 1]]


def test_the_fingerprint_tells_what_is_known(exports):
    """Tokenizer and configuration are the checkpoint's.

    Of weights that are not there nothing is said, but the graph is told from another.
    """
    expected = st_core.describe(exports.checkpoints.load(st_core, "SentenceTransformer", "bert-no-prompt")).fingerprint
    folder = exports.given("bert-no-prompt", "onnx")
    model = st_core.SentenceTransformer(folder, backend="onnx", model_kwargs={"file_name": "model.onnx"})

    found = dict(st_core.describe(model).fingerprint)

    assert "weights" not in found
    assert len(found.pop("graph")) == 32
    assert found.items() <= dict(expected).items()


@pytest.fixture
def reduced(exports, tmp_path):
    """Folders with an int8 graph beside the plain one."""
    folder = Path(shutil.copytree(exports.given("bert-no-prompt", "onnx"), tmp_path / "reduced"))
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_qint8_avx512.onnx")
    from st_core.backends.graph.onnx.session import reduce

    reduce(folder / "onnx/model_qint8_avx512.onnx", "int8", ())
    return folder


def test_the_type_is_read_from_the_graph(reduced, texts):
    """An int8 graph is not taken for float32, whatever its name, and its precision names the file."""
    import onnx

    options = {"backend": "onnx", "model_kwargs": {"file_name": "model_qint8_avx512.onnx"}}
    model = st_core.SentenceTransformer(reduced, **options)
    plain = st_core.SentenceTransformer(reduced, backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"})

    assert st_core.describe(model).precision == "int8-model_qint8_avx512"
    assert np.abs(model.encode(texts[:3]) - plain.encode(texts[:3])).max() > 1e-5
    with pytest.raises(ValueError, match="contains weights in int8, not in float32"):
        st_core.SentenceTransformer(reduced, dtype="float32", **options)
    for path in (reduced / "onnx").glob("*.onnx"):
        kinds = {
            {1: "float32", 2: "int8", 7: None, 9: None}[each.data_type]
            for each in onnx.load(path).graph.initializer
            if np.prod(each.dims) >= 256
        }
        assert weight_types(path) == kinds - {None}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"file_name": "onnx/model_O3.onnx"},
            st_core.ModelNotFound,
            r"no graph 'onnx/model_O3.onnx'; graphs: onnx/model.onnx$",
        ),
        ({"file_name": "openvino/openvino_model.xml"}, ValueError, r"expected an \.onnx file"),
        ({"file_name": "model.onnx", "provider": "CUDAExecutionProvider"}, ValueError, "run on the processor"),
    ],
)
def test_a_wrong_name(exports, options, error, message):
    """The message says what is there."""
    with pytest.raises(error, match=message):
        st_core.SentenceTransformer(exports.given("roberta-six", "onnx"), backend="onnx", model_kwargs=options)
    if "provider" not in options:
        with pytest.raises(ValueError, match="use backend='onnx' or backend='openvino'"):
            st_core.SentenceTransformer(exports.given("roberta-six", "onnx"), backend="auto", model_kwargs=options)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_padding_that_the_configuration_leaves_open_is_the_tokenizers(exports, tmp_path, texts, agree, backend):
    """Positions are numbered from behind it."""
    given = exports.given("roberta-six", backend)
    folder = Path(shutil.copytree(given, tmp_path / "open"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    options = {"backend": backend, "model_kwargs": {"file_name": FILES[backend]}}

    model = st_core.SentenceTransformer(folder, **options)

    agree(model.encode(texts), st_core.SentenceTransformer(given, **options).encode(texts), 0)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_damaged_graph_is_named(exports, tmp_path, backend, damage):
    """Whatever is in the file."""
    folder = Path(shutil.copytree(exports.given("roberta-six", backend), tmp_path / "copy"))
    path = folder / FILES[backend]
    path.write_bytes({"cut": path.read_bytes()[:2000], "text": b"no graph at all", "empty": b""}[damage])

    with pytest.raises(st_core.ModelBroken, match=path.name):
        st_core.SentenceTransformer(folder, backend=backend, model_kwargs={"file_name": FILES[backend]})


def test_a_graph_that_gives_something_else_is_refused(exports, tmp_path):
    """A graph of logits under a model of vectors: the shapes are in the message."""
    folder = Path(shutil.copytree(exports.given("roberta-six", "onnx"), tmp_path / "copy"))
    shutil.copytree(exports.given("rerank-roberta", "openvino") / "openvino", folder / "openvino")

    with pytest.raises(
        st_core.ModelUnsupported, match=r"'logits' for one text has the shape \[1, 3\], expected \[texts, t"
    ):
        st_core.SentenceTransformer(folder, backend="openvino", model_kwargs={"file_name": "openvino_model.xml"})


HUB = {
    "config.json": True,
    "modules.json": True,
    "tokenizer.json": True,
    "model.safetensors": False,
    "2_Dense/model.safetensors": True,
    "onnx/model.onnx": True,
    "onnx/model_O3.onnx": False,
    "openvino/openvino_model.xml": False,
    "openvino/openvino_model.bin": False,
    "pytorch_model.bin": False,
    "document_0_Transformer/model.safetensors": False,
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with one repository that holds the files of ``HUB``; ``hub.fetched`` are those that were downloaded."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    fetched = set()

    def download(_name, *, allow_patterns, ignore_patterns, **_options):
        for name in filter_repo_objects(HUB, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            fetched.add(name)
            path = tmp_path / "hub" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *_args, **_options: list(HUB))
    return fetched


@pytest.mark.parametrize(
    ("backend", "file_name", "graphs"),
    [
        ("onnx", None, {"onnx/model.onnx"}),
        ("auto", None, {"openvino/openvino_model.xml", "openvino/openvino_model.bin"}),
        ("onnx", "model_O3.onnx", {"onnx/model_O3.onnx"}),
        ("openvino", "openvino/openvino_model.xml", {"openvino/openvino_model.xml", "openvino/openvino_model.bin"}),
    ],
)
def test_without_torch_only_the_graph_is_downloaded(monkeypatch, hub, backend, file_name, graphs):
    """Settings, the weights of small modules, and one graph: no weights of a transformer."""
    from st_core.backends.graph import backend as graph_backend
    from st_core.engine import plan

    monkeypatch.setattr(graph_backend, "can_export", lambda: False)
    monkeypatch.setattr(plan, "RUNTIMES", ("openvino", "onnx"))
    find_checkpoint("someone/model", organisation="o", fetch=plan.fetches(plan.Request(backend, file_name=file_name)))

    plain = {"config.json", "modules.json", "tokenizer.json", "2_Dense/model.safetensors"}
    assert hub == plain | graphs


def test_with_torch_the_weights_are_downloaded_and_no_foreign_graph(hub):
    """Graphs are made of them."""
    from st_core.engine import plan

    for backend in ("torch", "onnx", "auto"):
        hub.clear()
        find_checkpoint("someone/model", organisation="o", fetch=plan.fetches(plan.Request(backend)))
        assert "model.safetensors" in hub
        assert not any(name.startswith(("onnx", "openvino")) for name in hub)


def test_a_graph_that_the_hub_lacks(hub):
    """The message lists what the repository has, after a look at its files."""
    with pytest.raises(st_core.ModelNotFound, match=r"no graph 'onnx/model_O4.onnx'; graphs: onnx/model.onnx, onnx/mo"):
        st_core.SentenceTransformer("someone/model", backend="onnx", model_kwargs={"file_name": "model_O4.onnx"})


@pytest.mark.parametrize("backend", ["onnx", "openvino", "auto"])
def test_a_repository_of_a_graph_alone_loads_by_its_name(monkeypatch, exports, tmp_path, backend):
    """Weights are requested first; the graph is downloaded only without them, although it could be exported here."""
    pytest.importorskip("openvino" if backend != "onnx" else "onnxruntime", reason=f"needs the runtime of {backend}")
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    from st_core import SentenceTransformer

    source = exports.given("bert-mean", "onnx" if backend == "onnx" else "openvino")
    files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]

    def download(_name, *, allow_patterns, ignore_patterns, **_options):
        for name in filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, tmp_path / name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    by_name = SentenceTransformer("someone/model", backend=backend, device="cpu")
    wanted = SentenceTransformer(str(source), backend=by_name.backend, device="cpu").encode(["a tree", "copy"])

    np.testing.assert_array_equal(by_name.encode(["a tree", "copy"]), wanted)


def test_weights_are_downloaded_without_the_graph(hub):
    """Where a repository has both, a graph is exported from the weights."""
    from st_core.engine import plan

    find_checkpoint("someone/model", organisation="o", fetch=plan.fetches(plan.Request("onnx")))

    assert "model.safetensors" in hub
    assert not any(name.startswith("onnx/") for name in hub)
