"""Arguments, settings and names in which sentence-transformers has a rule of its own."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from families import make_tokenizer

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

TEXTS = ["How do I copy a directory tree?", "a", "Parse a DATE string"]
PAIRS = [("where is heat", text) for text in TEXTS]
DENSE, SPARSE, CROSS = "SentenceTransformer", "SparseEncoder", "CrossEncoder"


@pytest.mark.parametrize("width", [5, None])
def test_all_features_of_a_text_are_truncated(checkpoints, agree, width):
    """``output_value=None`` with a width, and with the width of the model."""
    theirs, ours = checkpoints.pair(DENSE, "mpnet-max")
    options = {"output_value": None} | ({} if width is None else {"truncate_dim": width})

    for mine, wanted in zip(ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options), strict=True):
        assert wanted["sentence_embedding"].shape == (width or 10,)
        agree(mine["sentence_embedding"], wanted["sentence_embedding"])


def test_an_activation_that_is_false_is_used(checkpoints, agree):
    """An empty ``Sequential`` has the length 0."""
    theirs, ours = checkpoints.pair(CROSS, "rerank-bert")
    empty = torch.nn.Sequential()

    agree(ours.predict(PAIRS, activation_fn=empty), theirs.predict(PAIRS, activation_fn=empty))
    agree(
        ours.finish(ours.compute([ours.prepare(PAIRS)])[0], activation_fn=empty),
        ours.predict(PAIRS, None, None, None, None, empty),
    )
    built = st_core.CrossEncoder(str(checkpoints.folder("rerank-bert")), activation_fn=empty, device="cpu")
    agree(built.predict(PAIRS), theirs.predict(PAIRS, activation_fn=empty))


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_are_refused_and_columns_taken(checkpoints, agree, library):
    """A table counted as its column names: "text" was encoded, and two columns were one pair."""
    package = pytest.importorskip(library, reason=f"needs {library}")
    make = package.table if library == "pyarrow" else package.DataFrame
    texts, two = make({"text": TEXTS, "id": TEXTS}), make({"q": TEXTS, "d": TEXTS})
    dense, cross = checkpoints.load(st_core, DENSE, "bert-mean"), checkpoints.load(st_core, CROSS, "rerank-bert")
    kind = type(texts).__name__

    with pytest.raises(ValueError, match=f"the input is a {kind}, a table; .*pass one column"):
        dense.encode(texts)
    with pytest.raises(ValueError, match=f"the input is a {kind}, a table; .*zip"):
        cross.predict(two)
    agree(dense.encode(texts["text"]), dense.encode(TEXTS))
    agree(cross.predict(list(zip(TEXTS, TEXTS, strict=True))), cross.predict(np.array([TEXTS, TEXTS]).T))


def test_a_text_in_a_dict_is_the_text(checkpoints, agree):
    """The form that other modalities have."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")

    agree(ours.encode({"text": TEXTS[0]}), theirs.encode({"text": TEXTS[0]}))
    agree(ours.encode([{"text": each} for each in TEXTS]), theirs.encode([{"text": each} for each in TEXTS]))
    with pytest.raises(ValueError, match="input 0 is a dict"):
        ours.encode([{"image": "a.png"}])


def test_a_prompt_beside_the_name_of_one_is_said(checkpoints, agree, caplog):
    """The prompt is used, as there, and the name is named in a warning."""
    theirs, ours = checkpoints.pair(DENSE, "bert-mean")
    with caplog.at_level(logging.WARNING, "st_core"):
        agree(ours.encode(TEXTS, "query", "ask: "), theirs.encode(TEXTS, "query", "ask: "))

    assert "prompt_name='query' are both set" in caplog.text


def test_loading_is_logged(checkpoints, caplog):
    """What was loaded, from where, and the prompts, at INFO."""
    folder = str(checkpoints.folder("bert-mean"))
    with caplog.at_level(logging.INFO, "st_core"):
        st_core.SentenceTransformer(folder, device="cpu")

    assert f"Loaded SentenceTransformer from {folder}, on torch" in caplog.text
    assert "Loaded 3 prompts: query, document, clustering" in caplog.text


@pytest.fixture
def copied(checkpoints, tmp_path, monkeypatch):
    """Copies a checkpoint to a relative name."""
    monkeypatch.chdir(tmp_path)

    def copy(name, target):
        shutil.copytree(checkpoints.folder(name), target)
        return target

    return copy


@pytest.mark.parametrize("name", ["hkunlp/instructor-large", "hkunlp/instructor-xl", "me/my-Instructor", "me/other"])
def test_instructor_models_leave_the_prompt_out(copied, agree, caplog, name):
    """Their files do not say so: the three names do, and others with the word get a warning."""
    folder = copied("roberta-six", name)
    with caplog.at_level(logging.WARNING, "st_core"):
        ours = st_core.SentenceTransformer(folder, device="cpu")
    theirs = oracle.SentenceTransformer(folder, device="cpu")

    agree(ours.encode(TEXTS, prompt="Represent: "), theirs.encode(TEXTS, prompt="Represent: "))
    assert ours[1].include_prompt == (not name.startswith("hkunlp"))
    assert ("leave the prompt out" in caplog.text) == (name == "me/my-Instructor")


class Halved(torch.nn.Module):
    """An activation that only a trusted checkpoint may name."""

    def forward(self, logits):
        return logits / 2


@pytest.mark.parametrize("place", ["config", "settings"])
def test_an_activation_of_the_checkpoints_own_is_named_or_imported(copied, agree, caplog, monkeypatch, place):
    """The default takes its place with a warning; a trusted one is used, and saved by its name."""
    module = types.ModuleType("own_activation")
    module.Halved = Halved
    monkeypatch.setattr(Halved, "__module__", "own_activation")
    monkeypatch.setitem(sys.modules, "own_activation", module)
    folder = copied("rerank-plain" if place == "config" else "rerank-bert", "own")
    path = Path("own", "config.json" if place == "config" else "config_sentence_transformers.json")
    config = json.loads(path.read_text())
    if place == "config":
        config["sentence_transformers"] = {"activation_fn": "own_activation.Halved"}
    else:
        config["activation_fn"] = "own_activation.Halved"
    path.write_text(json.dumps(config))

    with caplog.at_level(logging.WARNING, "st_core"):
        untrusted = st_core.CrossEncoder(folder, device="cpu")
    assert "'own_activation.Halved' of the checkpoint is not a class of torch" in caplog.text
    agree(untrusted.predict(PAIRS), oracle.CrossEncoder(folder, device="cpu").predict(PAIRS))

    trusted = st_core.CrossEncoder(folder, device="cpu", trust_remote_code=True)
    wanted = oracle.CrossEncoder(folder, device="cpu", trust_remote_code=True).predict(PAIRS)
    agree(trusted.predict(PAIRS), wanted)
    assert np.abs(wanted - untrusted.predict(PAIRS)).max() > 1e-3
    trusted.save_pretrained("saved")
    agree(st_core.CrossEncoder("saved", device="cpu", trust_remote_code=True).predict(PAIRS), wanted)


def test_errors_are_those_of_python_too(copied, tmp_path):
    """Handlers of sentence-transformers' errors catch them."""
    with pytest.raises(FileNotFoundError, match="no folder") as missing:
        st_core.SentenceTransformer("./nowhere")
    assert isinstance(missing.value, st_core.ModelNotFound)

    folder = copied("static", "needy")
    path = Path("needy", "config_sentence_transformers.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"requirements": {"no-such-package": ">=3"}}))
    with pytest.raises(ImportError, match="no-such-package") as unmet:
        st_core.SentenceTransformer(folder)
    assert isinstance(unmet.value, st_core.ModelUnsupported)


@pytest.mark.parametrize("options", [{"export": True}, {"file_name": "onnx/model.onnx"}, {"provider": "x"}])
def test_options_of_graphs_are_refused_by_name_on_torch(checkpoints, options):
    """The checkpoint was called broken."""
    (name,) = options
    with pytest.raises(ValueError, match=f"model_kwargs has '{name}', which is an option of graphs"):
        st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), model_kwargs=options)


def test_an_option_that_no_loader_takes_is_named(checkpoints):
    """Unknown arguments of transformers' loaders are not the fault of the files."""
    with pytest.raises(ValueError, match="model_kwargs has 'no_such_option'"):
        st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), model_kwargs={"no_such_option": 1})


@pytest.mark.long
@pytest.mark.parametrize("export", [True, False])
def test_export_chooses_between_weights_and_the_repositorys_graph(checkpoints, exports, tmp_path, export):
    """The option of optimum: True exports, False runs what is there."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    folder = Path(shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "model"))
    shutil.copytree(exports.given("bert-mean", "onnx") / "onnx", folder / "onnx")
    model = st_core.SentenceTransformer(str(folder), backend="onnx", model_kwargs={"export": export})

    graph = model._engine.runner(None).info.repository_graph
    assert (graph is None) == export
    np.testing.assert_allclose(
        model.encode(TEXTS), checkpoints.load(st_core, DENSE, "bert-mean").encode(TEXTS), atol=1e-5
    )
    with pytest.raises(ValueError, match=r"export=True exports a graph, and file_name=.a\.onnx. names one"):
        st_core.SentenceTransformer(str(folder), backend="onnx", model_kwargs={"export": True, "file_name": "a.onnx"})


@pytest.mark.parametrize(
    ("kind", "name", "attribute"),
    [
        (SPARSE, "splade-max", "splade_pooling_chunk_size"),
        (DENSE, "bert-mean", "max_length"),
        (CROSS, "rerank-bert", "truncate_dim"),
    ],
)
def test_attributes_that_do_not_exist_cannot_be_set(checkpoints, kind, name, attribute):
    """An assignment without effect is an error."""
    model = getattr(st_core, kind)(str(checkpoints.folder(name)), device="cpu")
    with pytest.raises(AttributeError, match=attribute):
        setattr(model, attribute, 8)


def test_attributes_that_exist_can_be_set(checkpoints):
    """All that a model has, and anything on a subclass."""
    model = st_core.CrossEncoder(str(checkpoints.folder("rerank-bert")), device="cpu")
    model.prompts, model.default_prompt_name, model.max_length = {"a": "b: "}, "a", 9
    model.activation_fn = torch.nn.Identity()
    sparse = st_core.SparseEncoder(str(checkpoints.folder("splade-max")), device="cpu")
    sparse.max_active_dims, sparse.similarity_fn_name = 3, "cosine"
    dense = type("Own", (st_core.SentenceTransformer,), {})(str(checkpoints.folder("bert-mean")), device="cpu")
    dense.note, dense.quantization_ranges, dense.truncate_dim = "ours", None, 4

    assert (model.max_length, sparse.encode("a tree").indices.size, dense.note) == (9, 3, "ours")


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("unpad_inputs", "padding is left out"),
        ("model_args", "load the model with model_kwargs"),
        ("auto_model", "save other weights"),
        ("config", "load the model with config_kwargs"),
        ("processing_kwargs", "pass processing_kwargs to the call"),
        ("no_such_setting", "its settings are document_length, query_length"),
    ],
)
def test_settings_of_modules_are_refused_in_words(checkpoints, setting, advice):
    """Those that do not change after loading; the message says what to do in their place."""
    model = checkpoints.load(st_core, DENSE, "bert-mean")
    with pytest.raises(AttributeError, match=f"{setting} of Transformer cannot be set.*{advice}"):
        setattr(model[0], setting, False)
    with pytest.raises(AttributeError, match="its settings are include_prompt, pooling_mode"):
        model[1].pooling_mode_mean_tokens = False
    with pytest.raises(AttributeError, match="cannot be set"):
        del model[1].include_prompt


@pytest.mark.parametrize(
    ("kind", "head"), [("Blenderbot", "Model"), ("BlenderbotSmall", "ForConditionalGeneration"), ("Marian", "MTModel")]
)
def test_the_encoder_of_a_whole_model_is_used(tmp_path, agree, kind, head):
    """An encoder saved alone has the vectors of theirs; for the one in a whole model theirs has random weights."""
    import transformers
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    tokenizer = make_tokenizer("roberta")
    sizes = {
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
        "d_model": 32,
        "max_position_embeddings": 130,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    whole = getattr(transformers, kind + head)(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    whole.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    theirs = oracle.SentenceTransformer(modules=[Transformer(str(tmp_path / "whole")), Pooling(32)], device="cpu")
    theirs.save(str(tmp_path / "encoder"))

    ours = st_core.SentenceTransformer(str(tmp_path / "encoder"), device="cpu")
    agree(ours.encode(TEXTS), theirs.encode(TEXTS))
    with torch.inference_mode():
        states = [whole.get_encoder()(**tokenizer(text, return_tensors="pt"))[0][0].mean(0) for text in TEXTS]
    agree(st_core.SentenceTransformer(str(tmp_path / "whole"), device="cpu").encode(TEXTS), torch.stack(states))


def test_a_transformer_is_described_by_old_names_and_hub_options(checkpoints, agree):
    """As their class takes them; lengths by task are those of the module."""
    folder = str(checkpoints.folder("bert-mean"))
    names = st_core.models
    with pytest.warns(DeprecationWarning, match="model_args is now named model_kwargs"):
        transformer = names.Transformer(folder, model_args={"revision": "main"}, query_length=4, document_length=6)
    theirs = oracle.sentence_transformer.modules.Transformer(folder, query_length=4, document_length=6)
    pooled = oracle.sentence_transformer.modules.Pooling(32)
    expected = oracle.SentenceTransformer(modules=[theirs, pooled], device="cpu")
    ours = st_core.SentenceTransformer(modules=[transformer, names.Pooling(32, "mean")], device="cpu")

    agree(ours.encode_query(TEXTS), expected.encode_query(TEXTS))
    agree(ours.encode_document(TEXTS), expected.encode_document(TEXTS))


@pytest.mark.parametrize(("kind", "name"), [(DENSE, "bert-no-prompt"), (CROSS, "rerank-bert")])
def test_features_of_texts_are_tensors_on_torch(checkpoints, agree, kind, name):
    """By the model and by its first module, with the length of a prompt."""
    theirs, ours = checkpoints.pair(kind, name)
    inputs, options = (TEXTS, {"prompt": "query: "}) if kind == DENSE else (PAIRS, {})
    wanted = theirs.preprocess(inputs, **options)

    for features in (ours.preprocess(inputs, **options), ours[0].preprocess(inputs, **options)):
        assert {*features, "modality"} == set(wanted)
        for key in ("input_ids", "attention_mask", "token_type_ids"):
            assert torch.equal(features[key], wanted[key])
        assert features.get("prompt_length") == wanted.get("prompt_length")
    if kind == DENSE:
        vectors = ours(ours.preprocess(inputs, **options))["sentence_embedding"]
        agree(vectors, theirs.encode(inputs, **options))
        static = checkpoints.load(st_core, DENSE, "static").preprocess(inputs)
        assert isinstance(static["input_ids"], np.ndarray)


def test_a_file_and_wrong_shapes_have_the_errors_of_theirs(checkpoints):
    """NotADirectoryError for a file as the model, ValueError for vectors of three dimensions."""
    with pytest.raises(NotADirectoryError, match="is a file, not a directory; expected a folder"):
        st_core.SentenceTransformer(str(checkpoints.folder("bert-mean") / "config.json"))
    with pytest.raises(ValueError, match="one or two dimensions, got 3"):
        checkpoints.load(st_core, SPARSE, "splade-max").decode(torch.zeros(2, 3, 4))
    with pytest.warns(DeprecationWarning, match="use_auth_token is now named token"):
        st_core.SentenceTransformer(str(checkpoints.folder("static")), use_auth_token=False)


MESSAGE = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    "inputs",
    [
        *("a", ["a"], ("a", "b"), [("a", "b")], [], {"text": "a"}, [{"text": "a"}, {"text": "b"}]),
        *([MESSAGE], [MESSAGE, MESSAGE], [[MESSAGE], [MESSAGE]], MESSAGE),
        *(np.array("a"), np.array(["a", "b"]), np.array([["a", "b"]]), np.array(["a", 1], object)),
        *(np.array([1, 2]), np.array([b"a"]), torch.tensor([1, 2]), b"a", 7, None),
    ],
    ids=repr,
)
def test_what_is_one_input(checkpoints, inputs):
    """Also for inputs that no model here reads, such as chat messages, sound and numbers."""
    theirs, ours = checkpoints.pair("SentenceTransformer", "bert-mean")

    assert ours.is_singular_input(inputs) is theirs.is_singular_input(inputs)
