"""Missing, truncated or absurd module files raise a ModelError that names them, soon and in little memory."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest
from sweeps import sweep

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sentence_transformers", reason="the checkpoints are made with it")

from safetensors.numpy import load_file, save_file  # noqa: E402 -- after the guard

import st_core  # noqa: E402 -- after the guard

pytestmark = pytest.mark.torch

CONFIGS = {
    "words": ("WordEmbeddings", "wordembedding_config.json"),
    "words-lstm": ("LSTM", "lstm_config.json"),
    "words-cnn": ("CNN", "cnn_config.json"),
    "layers": ("WeightedLayerPooling", "config.json"),
    "csr": ("SparseAutoEncoder", "config.json"),
    "bow": ("BoW", "config.json"),
    "rerank-saved": ("LogitScore", "config.json"),
}
WEIGHED = ["words", "words-lstm", "words-cnn", "layers", "csr"]
HUGE = 10**12


@pytest.fixture
def broken(checkpoints, tmp_path):
    """A copy of a checkpoint, its module's folder, and a function that loads and runs it in little memory."""

    def copy(name):
        folder = tmp_path / "broken"
        shutil.copytree(checkpoints.folder(name), folder)
        entries = json.loads((folder / "modules.json").read_text())
        path = next(entry["path"] for entry in entries if entry["type"].endswith(CONFIGS[name][0]))
        return folder, folder / path

    return copy


def use(folder, name):
    """Load a checkpoint and use it once.

    Raises whatever that raises, and AssertionError where it took more than 200 MB.
    """
    tracemalloc.start()
    try:
        if name.startswith("rerank"):
            st_core.CrossEncoder(folder, device="cpu").predict([("a", "b")])
        else:
            kind = st_core.SparseEncoder if name == "csr" else st_core.SentenceTransformer
            kind(folder, device="cpu").encode(["copy a tree"])
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 200e6


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "text", "code"])
@pytest.mark.parametrize("name", WEIGHED)
def test_damaged_weights_are_named(broken, tmp_path, name, damage):
    """Weights that are not there or not readable; code in a pickle is not run."""
    folder, module = broken(name)
    path = module / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[:-7])
        case "text":
            path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
        case "code":
            (module / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2))

    with pytest.raises(st_core.ModelBroken, match="broken"):
        use(folder, name)
    assert not (tmp_path / "ran").exists()


class Payload:
    """Unpickled with care left out, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("change", ["short", "renamed", "more", "flat"])
@pytest.mark.parametrize("name", WEIGHED)
def test_tensors_that_do_not_fit_are_named(broken, name, change):
    """A tensor with a row too few, of another name, one too many, one of another number of dimensions."""
    folder, module = broken(name)
    tensors = load_file(module / "model.safetensors")
    key = max(tensors, key=lambda each: tensors[each].ndim)
    match change:
        case "short":
            tensors[key] = np.ascontiguousarray(tensors[key][:-1])
        case "renamed":
            tensors["other"] = tensors.pop(key)
        case "more":
            tensors["other"] = np.zeros(3, np.float32)
        case "flat":
            tensors[key] = tensors[key].reshape(-1) if tensors[key].ndim > 1 else tensors[key][None]
    save_file(tensors, module / "model.safetensors")

    with pytest.raises(st_core.ModelBroken):
        use(folder, name)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"vocab": 5}', "{}", None])
@pytest.mark.parametrize("name", CONFIGS)
def test_broken_configurations_are_named(broken, name, text):
    """Missing, no JSON, JSON of another kind, or without what is needed."""
    folder, module = broken(name)
    path = module / CONFIGS[name][1]
    if text is None:
        path.unlink()
    else:
        path.write_text(text)

    with pytest.raises(st_core.ModelError, match="broken"):
        use(folder, name)


ABSURD = [
    ("words-lstm", {"num_layers": HUGE}),
    ("words-lstm", {"hidden_dim": HUGE}),
    ("words-lstm", {"num_layers": -1}),
    ("words-cnn", {"out_channels": HUGE}),
    ("words-cnn", {"kernel_sizes": [HUGE + 1]}),
    ("words-cnn", {"stride_sizes": [2, 2, 2]}),
    ("words-cnn", {"kernel_sizes": [2]}),
    ("words-cnn", {"kernel_sizes": []}),
    ("layers", {"num_hidden_layers": HUGE}),
    ("layers", {"layer_start": -5}),
    ("csr", {"hidden_dim": HUGE}),
    ("csr", {"k": HUGE}),
    ("csr", {"k": 0}),
    ("words", {"max_seq_length": 0}),
    ("words", {"tokenizer_class": "sentence_transformers.models.tokenizer.PhraseTokenizer"}),
    ("words", {"tokenizer_class": "os.system"}),
    ("bow", {"vocab": {"a": 1}}),
    ("bow", {"word_weights": {"a": "heavy"}}),
    ("rerank-saved", {"true_token_id": HUGE}),
    ("rerank-saved", {"true_token_id": -1}),
    ("rerank-saved", {"false_token_id": "no"}),
    ("rerank-saved", {"module_input_name": "nothing"}),
]


@pytest.mark.parametrize(("name", "change"), ABSURD, ids=str)
def test_absurd_settings_are_refused(broken, name, change):
    """Sizes that no file could fill, numbers out of range, classes outside the library."""
    folder, module = broken(name)
    path = module / CONFIGS[name][1]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(st_core.ModelError):
        use(folder, name)


@pytest.mark.parametrize("value", [HUGE, 10**6])
@pytest.mark.parametrize(
    "key",
    sweep(
        ["num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings", "intermediate_size"],
        ["num_hidden_layers", "vocab_size"],
    ),
)
def test_absurd_sizes_of_a_transformer_are_refused(checkpoints, tmp_path, key, value):
    """A configuration that promises more than the weights hold is told from them."""
    folder = tmp_path / "broken"
    shutil.copytree(checkpoints.folder("bert-mean"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))

    with pytest.raises(st_core.ModelBroken, match="broken"):
        use(folder, "bert-mean")


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels"])
@pytest.mark.parametrize("by", ["checkpoint", "caller"])
def test_absurd_sizes_in_config_kwargs_are_refused(checkpoints, tmp_path, by, key):
    """They change the configuration before the library makes lists of their length."""
    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "broken")
    path, change = folder / "sentence_bert_config.json", {"config_kwargs": {key: HUGE}}
    if by == "checkpoint":
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        change = {}

    with pytest.raises(
        st_core.ModelBroken, match=rf"config\.json, changed by config_kwargs: {key}: expected at most .*, got {HUGE}"
    ):
        st_core.SentenceTransformer(folder, device="cpu", **change)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 1.5}),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": -1}}}),
        ("sentence_bert_config.json", {"query_length": 0}),
        ("tokenizer_config.json", {"model_max_length": 1.5}),
        ("tokenizer_config.json", {"pad_token": "nope"}),
        ("config.json", {"num_attention_heads": -1}),
        ("config.json", {"num_hidden_layers": -1}),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["bert-mean", "roberta-six", "mpnet-max"])
def test_what_no_text_could_be_encoded_with_is_refused_when_loading(checkpoints, tmp_path, name, file, change):
    """Lengths that are none, padding that the model has no vector for, fewer heads and layers than none."""
    folder = shutil.copytree(checkpoints.folder(name), tmp_path / "broken")
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    if file == "tokenizer_config.json":  # whose length counts where no other is set
        (folder / "sentence_bert_config.json").write_text("{}")

    with pytest.raises(st_core.ModelBroken, match="broken"):
        st_core.SentenceTransformer(folder, device="cpu")


@pytest.fixture
def in_parts(checkpoints, tmp_path):
    """A copy of a checkpoint with its weights in two files, and the path of their index."""
    folder = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "parts")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(sorted(tensors))}
    for part in set(parts.values()):
        save_file(
            {name: tensors[name] for name, where in parts.items() if where == part},
            folder / part,
            metadata={"format": "pt"},
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    return folder, folder / "model.safetensors.index.json"


def test_weights_in_parts_are_those_in_one_file(checkpoints, in_parts, texts, agree):
    """The numbers are the same."""
    expected = checkpoints.load(st_core, "SentenceTransformer", "bert-mean").encode(texts)

    agree(st_core.SentenceTransformer(in_parts[0], device="cpu").encode(texts), expected)


@pytest.mark.parametrize("where", ["../outside.safetensors", "{root}/outside.safetensors", "..\\outside.safetensors"])
def test_parts_of_weights_lie_in_the_folder(in_parts, where):
    """Transformers 5 would read the file, which is there."""
    folder, index = in_parts
    value, where = json.loads(index.read_text()), where.format(root=folder.parent)
    (folder / "model-0.safetensors").rename(folder.parent / "outside.safetensors")
    moved = {name: part.replace("model-0.safetensors", where) for name, part in value["weight_map"].items()}
    index.write_text(json.dumps(value | {"weight_map": moved}))

    with pytest.raises(
        st_core.ModelBroken,
        match=r"model\.safetensors\.index\.json: expected names of files in this folder, got .*outside",
    ):
        st_core.SentenceTransformer(folder, device="cpu")


@pytest.mark.parametrize("value", [[], {}, {"weight_map": []}, {"weight_map": {"a": 5}}])
def test_an_index_of_weights_that_is_none_is_named(in_parts, value):
    """With its file."""
    in_parts[1].write_text(json.dumps(value))

    with pytest.raises(st_core.ModelBroken, match=r"index\.json: expected"):
        st_core.SentenceTransformer(in_parts[0], device="cpu")
