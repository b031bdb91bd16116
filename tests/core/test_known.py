"""Models read without transformers give its numbers and tokens; where unsure, transformers takes over."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

import st_core  # noqa: E402 - after the guard
from st_core import ModelBroken, SentenceTransformer  # noqa: E402 - after the guard
from st_core.backends.graph.folders import read_tokenizer, write_tokenizer  # noqa: E402 - after the guard
from st_core.backends.tokenizer_files import as_transformers, from_files  # noqa: E402 - after the guard
from st_core.backends.torch.known import load_known  # noqa: E402 - after the guard
from st_core.backends.torch.library import load_transformer, tokenizer_of  # noqa: E402 - after the guard
from st_core.modules import LoadOptions  # noqa: E402 - after the guard
from st_core.modules.transformer import read_transformer  # noqa: E402 - after the guard

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
HEADS = {
    "Model": "feature-extraction",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "sequence-classification",
}
FRESH = """
import sys, json
import st_core
model = getattr(st_core, sys.argv[1])(sys.argv[2], device="cpu")
getattr(model, sys.argv[3])(json.loads(sys.argv[4]))
st_core.describe(model)
print(json.dumps(sorted({"transformers", "scipy", "sympy", "torch._dynamo"} & set(sys.modules))))
"""


def read(folder, task="feature-extraction", **options):
    """The module of a folder, loaded for a task."""
    return read_transformer(folder, task, LoadOptions(**options), {})


def batch(rows, width, pad):
    """Ids of rows of several lengths and segments, filled up on the right."""
    random = torch.Generator().manual_seed(rows)
    lengths = torch.linspace(1, width, rows).long() if rows > 1 else torch.tensor([width])
    mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
    ids = torch.randint(6, 300, (rows, width), generator=random).masked_fill(mask == 0, pad)
    types = (torch.arange(width)[None, :] > 2).long() * mask
    tokens = SimpleNamespace(lengths=lengths.numpy())
    return {"tokens": tokens, "input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "xlm-roberta"])
def test_every_known_family_gives_the_librarys_numbers(checkpoints, kind, head, pack):
    """With and without heads, on batches with much padding, little and none."""
    module = read(checkpoints.transformer(kind, head), HEADS[head])
    wanted = load_transformer(module, CPU, None)

    found = load_known(module, CPU, None, pack=pack)

    assert found is not None
    for name in ("max_length", "dtype", "inputs", "words", "positions", "takes_positions", "logits_to_keep"):
        assert getattr(found.info, name) == getattr(wanted.info, name)
    if head == "ForSequenceClassification":
        assert found.info.labels == wanted.info.labels
    known = found.ready()
    assert (known.decoder is None) == (head != "ForMaskedLM")
    for rows, width in ((5, 40), (2, 12), (1, 9)):
        features = batch(rows, width, wanted.info.tokenizer.pad_id)
        real = features["attention_mask"][:, :, None] if head != "ForSequenceClassification" else 1
        with torch.inference_mode():
            apart = (known.logits(features) - wanted.logits(features)) * real
        assert apart.abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "auto"])
def test_other_types_are_the_librarys(checkpoints, dtype):
    """Weights are rounded as the library rounds them; "auto" is the type of the file."""
    module = read(checkpoints.transformer("bert"))
    wanted, found = load_transformer(module, CPU, dtype), load_known(module, CPU, dtype, pack=True)
    features = batch(3, 20, 0)

    assert found is not None
    assert found.info.dtype == wanted.info.dtype
    with torch.inference_mode():
        apart = (found.ready().logits(features) - wanted.logits(features)) * features["attention_mask"][:, :, None]
    assert apart.abs().max() <= (1e-5 if dtype == "auto" else 0.15)


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_on_the_left_moves_no_text(checkpoints, tmp_path, padding):
    """Positions are those of the text, as with the library."""
    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "left")
    edit(folder / "tokenizer_config.json", {"padding_side": padding})
    model, plain = (SentenceTransformer(each, device="cpu") for each in (folder, checkpoints.folder("bert-mean")))
    texts = ["a", "How do I copy a directory tree?"]

    assert model._engine.runner(None).info.tokenizer.pad_left == (padding == "left")
    assert np.allclose(model.encode(texts), plain.encode(texts), atol=1e-5)


def test_special_tokens_in_a_text_are_text_where_the_settings_say_so(checkpoints, tmp_path):
    """Also in the copy that a graph takes along, and without the library."""
    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "split")
    edit(folder / "tokenizer_config.json", {"split_special_tokens": True})
    texts = ["x [SEP] y", "[MASK] of [CLS]"]
    module = read(folder)
    wanted = [
        np.array(row) for row in oracle.SentenceTransformer(str(folder), device="cpu").tokenizer(texts)["input_ids"]
    ]
    tokenizer = load_known(module, CPU, None, pack=False).info.tokenizer
    (tmp_path / "graph").mkdir()

    kept = read_tokenizer(tmp_path / "graph", write_tokenizer(tokenizer, tmp_path / "graph"))

    for each in (tokenizer, kept, from_files(module)[0]):
        for row, ids in zip(each.tokenize(texts, None).ids, wanted, strict=True):
            np.testing.assert_array_equal(row, ids)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "kind", "method", "inputs"),
    [
        ("bert-mean", "SentenceTransformer", "encode", ["a text"]),
        ("distilbert-cls", "SentenceTransformer", "encode", ["a text"]),
        ("splade-max", "SparseEncoder", "encode_query", ["a text"]),
        ("rerank-bert", "CrossEncoder", "predict", [["a text", "another"]]),
    ],
)
def test_a_known_model_loads_without_the_library(checkpoints, name, kind, method, inputs):
    """A fresh process loads, encodes and describes without transformers and what it brings along."""
    arguments = [kind, str(checkpoints.folder(name)), method, json.dumps(inputs)]
    done = subprocess.run([sys.executable, "-c", FRESH, *arguments], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []


def edit(path, change):
    """Change keys of a JSON file; a value of None leaves a key out."""
    merged = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))


def rename(path, old, new):
    """Give tensors other names."""
    from safetensors.torch import load_file, save_file

    tensors = {name.replace(old, new): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "silu"},
        {"is_decoder": True},
        {"pad_token_id": 999_999},
        {"pad_token_id": "0"},
        {"torch_dtype": "floaty"},
        {"dtype": "int64"},
        {"output_hidden_states": True},
        {"num_hidden_layers": 1},
        {"something_new": 1},
        {"tie_word_embeddings": False},
        {"layer_norm_eps": None},
        {"model_type": "electra"},
        {"vocab_size": 12},
    ],
    ids=str,
)
def test_another_configuration_is_the_librarys(checkpoints, tmp_path, change):
    """A key or a value that is not known, and sizes that are not the tensors'."""
    folder = shutil.copytree(checkpoints.transformer("bert"), tmp_path / "changed")
    edit(folder / "config.json", change)

    assert load_known(read(folder), CPU, None, pack=True) is None


@pytest.mark.parametrize(
    ("old", "new"), [("LayerNorm.weight", "LayerNorm.gamma"), ("layer.1.output.dense", "layer.1.output.thick")]
)
def test_other_names_of_tensors_are_the_librarys(checkpoints, tmp_path, old, new):
    """It knows old names, and says what is missing."""
    folder = shutil.copytree(checkpoints.transformer("bert"), tmp_path / "renamed")
    rename(folder / "model.safetensors", old, new)

    assert load_known(read(folder), CPU, None, pack=True) is None


@pytest.mark.parametrize(
    "options",
    [
        {"trust_remote_code": True},
        {"model_kwargs": {"attn_implementation": "eager"}},
        {"config_kwargs": {"num_hidden_layers": 1}},
    ],
    ids=str,
)
def test_options_of_the_library_are_the_librarys(checkpoints, options):
    """What goes to its loaders is for them to understand."""
    assert load_known(read(checkpoints.transformer("bert"), **options), CPU, None, pack=True) is None


@pytest.mark.parametrize("saved", [{"tie_word_embeddings": False}, {}], ids=str)
def test_a_vocabulary_matrix_of_its_own_is_the_librarys(checkpoints, tmp_path, saved):
    """A matrix that is not that of the embeddings, whether the configuration says so or not.

    The same matrix twice is known.
    """
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(checkpoints.transformer("bert", "ForMaskedLM"), tmp_path / "untied")
    tensors = load_file(folder / "model.safetensors")
    words = tensors["bert.embeddings.word_embeddings.weight"]
    for factor in (1, 2):
        tensors["cls.predictions.decoder.weight"] = words * factor
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        known = load_known(read(folder, "fill-mask"), CPU, None, pack=True)
        assert (known is None) == (factor == 2)
    edit(folder / "config.json", saved)

    assert load_known(read(folder, "fill-mask"), CPU, None, pack=True) is None


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("kind", ["bert", "cased", "distilbert"])
def test_the_tokenizer_of_the_files_is_transformers(checkpoints, texts, kind, lower):
    """The same ids and segments of texts and pairs, whole and cut, and the same facts."""
    module = read_transformer(
        checkpoints.transformer(kind), "feature-extraction", LoadOptions(), {"do_lower_case": lower}
    )
    (wanted, limit), known = tokenizer_of(module), as_transformers(module, object)

    assert known is not None
    found, found_limit = known
    assert found_limit == limit
    for name in ("pad_id", "pad_type", "pad_left", "keep_left", "wants_types", "model_max_length", "special_ids"):
        assert getattr(found, name) == getattr(wanted, name)
    assert (found.words is None) == (wanted.words is None)
    for inputs in (texts, [(texts[0], text) for text in texts]):
        for most in (limit, 12):
            one, other = found.tokenize(inputs, most), wanted.tokenize(inputs, most)
            assert [row.tolist() for row in one.ids] == [row.tolist() for row in other.ids]
            assert (one.types is None) == (other.types is None)
            if one.types is not None and other.types is not None:
                assert [row.tolist() for row in one.types] == [row.tolist() for row in other.types]


def test_the_tokenizer_that_is_offered_is_transformers(checkpoints):
    """It is made when it is asked for, and once."""
    model = SentenceTransformer(checkpoints.folder("bert-mean"), device="cpu")

    assert type(model.tokenizer).__name__ == "BertTokenizer"
    assert model.tokenizer is model.tokenizer
    assert model.tokenizer.model_max_length == model.max_seq_length


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("tokenizer_config.json", {"strip_accents": False}),
        ("tokenizer_config.json", {"truncation_side": "left"}),
        ("tokenizer_config.json", {"padding_side": "left"}),
        ("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ("tokenizer_config.json", {"extra_special_tokens": ["[NEW]"]}),
        ("tokenizer_config.json", {"chat_template": "{{ messages }}"}),
        ("tokenizer_config.json", {"sep_token": "[MASK]"}),
        ("tokenizer_config.json", {"bos_token": "[CLS]"}),
        ("tokenizer_config.json", {"model_max_length": 0}),
        ("tokenizer_config.json", {"something_new": 1}),
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}),
        ("tokenizer.json", {"post_processor": {"type": "BertProcessing", "sep": ["[MASK]", 4], "cls": ["[CLS]", 2]}}),
        ("special_tokens_map.json", {"sep_token": "[MASK]"}),
        ("added_tokens.json", {"[NEW]": 700}),
    ],
    ids=str,
)
def test_other_tokenizers_are_the_librarys(checkpoints, tmp_path, name, change):
    """Whatever would make it put together another tokenizer than the file's."""
    folder = shutil.copytree(checkpoints.transformer("bert"), tmp_path / "changed")
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    edit(folder / name, change)

    assert as_transformers(read(checkpoints.transformer("bert")), object) is not None
    assert as_transformers(read(folder), object) is None


def test_a_token_that_somebody_added_is_the_librarys(checkpoints, tmp_path):
    """The added tokens of the file and those of the settings are both looked at."""
    folder = shutil.copytree(checkpoints.transformer("bert"), tmp_path / "added")
    path = folder / "tokenizer.json"
    added = json.loads(path.read_text())["added_tokens"]
    edit(path, {"added_tokens": [*added[:-1], added[-1] | {"lstrip": True}]})

    assert as_transformers(read(folder), object) is None


@pytest.mark.parametrize("length", [True, float("nan")])
def test_what_is_no_number_is_no_length(checkpoints, tmp_path, length):
    """JSON's true and NaN say nothing: the model's positions are the limit, with the library and without."""
    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "odd")
    plain = read(checkpoints.folder("bert-mean"))
    edit(folder / "tokenizer_config.json", {"model_max_length": length})
    (folder / "sentence_bert_config.json").unlink()
    positions = plain.config["max_position_embeddings"]

    assert tokenizer_of(read(folder))[1] == positions
    assert from_files(read(folder))[1] == positions
    assert load_known(read(folder), CPU, None, pack=False).info.max_length == positions


@pytest.mark.parametrize("length", [0, -1, 1.5, "long"])
def test_a_length_that_is_none_is_refused_also_without_the_library(checkpoints, tmp_path, length):
    """It does not mean that there is no limit."""
    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "odd")
    edit(folder / "tokenizer_config.json", {"model_max_length": length})
    (folder / "sentence_bert_config.json").unlink()

    for reader in (from_files, tokenizer_of):
        with pytest.raises(ModelBroken, match="model_max_length must be a positive whole number"):
            reader(read(folder))


@pytest.mark.parametrize("length", [0, -1, True, 1.5])
def test_the_file_that_names_a_wrong_length_is_named(checkpoints, tmp_path, length):
    """Not the tokenizer's own, which says nothing wrong."""
    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "odd")
    edit(folder / "sentence_bert_config.json", {"max_seq_length": length})

    with pytest.raises(
        ModelBroken, match=r"sentence_bert_config\.json: max_seq_length: expected a positive whole number"
    ):
        SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64", "uint8", "float8_e4m3fn", torch.int32, "half", ""])
@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_type_that_no_model_is_computed_in_is_refused(checkpoints, dtype, backend):
    """In one sentence, and before anything is loaded; the short names of torch are refused everywhere."""
    with pytest.raises(ValueError, match=r"dtype is empty|unknown dtype"):
        SentenceTransformer(checkpoints.folder("bert-mean"), device="cpu", dtype=dtype, backend=backend).encode(["a"])


@pytest.mark.parametrize(
    "arguments",
    [{"max_active_dims": "x"}, {"max_active_dims": 2.5}, {"batch_size": 2.5}, {"batch_size": "4"}, {"prompt": 5}],
)
def test_an_argument_of_another_kind_is_named(checkpoints, arguments):
    """As other wrong arguments are, for one text and for several."""
    model = checkpoints.load(st_core, "SparseEncoder", "splade-sum")
    (name,) = arguments

    for texts in ("a text", ["a text"]):
        with pytest.raises(ValueError, match=f"{name} must be"):
            model.encode(texts, **arguments)
    if name == "max_active_dims":
        with pytest.raises(ValueError, match=f"{name} must be"):
            st_core.SparseEncoder(checkpoints.folder("splade-sum"), **arguments)
