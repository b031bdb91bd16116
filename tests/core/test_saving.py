"""What is saved loads here and in sentence-transformers, gives the same numbers, and keeps what was set."""

from __future__ import annotations

import gc
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sweeps import sweep

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 -- after the guard
from st_core.backends.graph.backend import GraphBackend  # noqa: E402 -- after the guard
from st_core.fingerprint import describe  # noqa: E402 -- after the guard
from st_core.saving.place import MODEL_FILES  # noqa: E402 -- after the guard

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning"),
]

DENSE = [
    "bert-mean",
    "bert-mean-old",
    "roberta-six",
    "mpnet-max",
    "bert-residual",
    "cased-lower",
    "bert-token-dense",
    "bert-no-prompt-old",
    "plain-bert",
    "qwen3-last",
    "plain-qwen2",
    "t5-mean",
    "plain-t5",
    "plain-modernbert",
    "chat-flat",
    "chat-parts",
    "chat-parts-old",
    "router",
    "router-shared-old",
    "late-routes",
    "static",
    "static-old",
    "model2vec",
    "model2vec-int8",
    "layers-old",
    "lora",
    "words",
    "words-lstm-old",
    "words-cnn",
    "bow",
    "bow-once",
]
SPARSE = [
    "splade-max",
    "splade-sum-old",
    "splade-mpnet",
    "sparse-static",
    "idf",
    "sparse-router",
    "plain-bert-masked",
    "csr",
    "csr-normalized-old",
]
CROSS = ["rerank-bert", "rerank-roberta", "rerank-short", "rerank-plain-three", "rerank-identity-old", "rerank-nested"]
CAUSAL = ["rerank-causal", "rerank-template", "rerank-saved"]
PAIRS = [("how do I copy a tree?", "Copy a directory tree."), ("a", ""), ("word " * 90, "tree " * 90)]


@pytest.fixture
def again(checkpoints, tmp_path):
    """A model, the folder it was saved to, and the two models loaded from there: the oracle's and ours."""

    def save(kind, name, change=lambda _: None, **options):
        model = getattr(st_core, kind)(str(checkpoints.folder(name)), device="cpu", **options)
        change(model)
        folder = tmp_path / "saved"
        model.save_pretrained(folder)
        theirs, ours = (getattr(engine, kind)(str(folder), device="cpu") for engine in (oracle, st_core))
        return SimpleNamespace(model=model, folder=folder, theirs=theirs, ours=ours)

    return save


def settings(folder):
    return json.loads((folder / "config_sentence_transformers.json").read_text())


@pytest.mark.parametrize("name", sweep(DENSE, ["bert-mean", "router", "static", "words"]))
def test_dense_models_load_again(again, texts, agree, name):
    """Every kind of checkpoint, in both engines, with prompts and roles.

    And it is still the same model by its fingerprint.
    """
    made = again("SentenceTransformer", name)
    some = [text for text in texts if text]
    task = {"task": "query"} if "shared" in name else {}
    alone = {"batch_size": 1} if "cnn" in name else {}  # in a batch the oracle's convolutions see the padding

    for model in (made.theirs, made.ours):
        agree(model.encode(some, **task, **alone), made.model.encode(some, **task))
        agree(model.encode_query(some, **alone), made.model.encode_query(some))
        agree(model.encode_document(some, **alone), made.model.encode_document(some))
        assert model.prompts == made.model.prompts
        assert model.similarity_fn_name == made.model.similarity_fn_name
        assert model.max_seq_length == made.model.max_seq_length
    assert dict(describe(made.ours).fingerprint) == dict(describe(made.model).fingerprint)
    assert not list(made.folder.rglob("*.bin"))


@pytest.mark.parametrize("name", sweep(SPARSE, ["splade-max", "sparse-static", "csr-normalized-old"]))
def test_sparse_models_load_again(again, texts, agree, name):
    """Every kind of checkpoint, in both engines; a limit on the number of weights stays."""
    made = again("SparseEncoder", name)

    for model in (made.theirs, made.ours):
        agree(model.encode_query(texts), made.model.encode_query(texts), 2e-5)
        agree(model.encode_document(texts), made.model.encode_document(texts), 2e-5)
        assert model.max_active_dims == made.model.max_active_dims
    assert made.ours.similarity_fn_name == made.model.similarity_fn_name


@pytest.mark.parametrize("name", sweep([*CROSS, *CAUSAL], ["rerank-bert", "rerank-saved"]))
def test_cross_encoders_load_again(again, agree, name):
    """Every kind of checkpoint, in both engines, with its activation."""
    made = again("CrossEncoder", name)

    for model in (made.theirs, made.ours):
        agree(model.predict(PAIRS), made.model.predict(PAIRS))
        assert type(model.activation_fn) is type(made.model.activation_fn)


def test_what_was_set_is_saved(again, texts, agree):
    """Prompts, the default among them, similarity, the width, the length and whether prompts count in the pooling."""

    def change(model):
        model.prompts["query"] = "asked: "
        model.default_prompt_name = "clustering"
        model.similarity_fn_name = "dot"
        model.truncate_dim = 7
        model.max_seq_length = 11
        model.set_pooling_include_prompt(include_prompt=False)

    made = again("SentenceTransformer", "bert-two-modes", change)

    for model in (made.theirs, made.ours):
        assert (model.similarity_fn_name, model.truncate_dim, model.max_seq_length) == ("dot", 7, 11)
        assert model.prompts["query"] == "asked: "
        assert model.default_prompt_name == "clustering"
        assert model.encode(texts).shape[1] == 7
        agree(model.encode(texts), made.model.encode(texts))
        agree(model.encode_query(texts), made.model.encode_query(texts))


OPTIONS = [
    ("bert-mean", {"processor_kwargs": {"do_lower_case": False}}),
    ("bert-mean", {"config_kwargs": {"hidden_act": "relu"}}),
    ("bert-mean", {"config_kwargs": {"num_hidden_layers": 1}}),
    ("roberta-six", {"processor_kwargs": {"add_prefix_space": True, "token": "a-secret"}}),
    ("bert-mean", {"config_kwargs": {"layer_norm_eps": 0.1}, "model_kwargs": {"attn_implementation": "eager"}}),
    ("bert-mean", {"model_kwargs": {"dtype": torch.bfloat16}}),
]


def check_options(made, theirs, some, agree, scale=1e-5):
    """What was saved gives the numbers that the model and the oracle give with the options, and these count."""
    wanted = theirs.encode(some)

    assert np.abs(oracle.SentenceTransformer(str(made.plain), device="cpu").encode(some) - wanted).max() > 1e-3
    agree(made.theirs.encode(some), wanted)
    agree(made.ours.encode(some), made.model.encode(some))
    agree(made.ours.encode(some), wanted, scale)


@pytest.mark.parametrize(("name", "options"), sweep(OPTIONS, OPTIONS[:2]), ids=str)
def test_options_for_the_library_are_saved(checkpoints, again, texts, agree, name, options):
    """What the caller has changed of a tokenizer, a configuration or the type stays changed.

    Not what is of the machine or secret.
    """
    made = again("SentenceTransformer", name, **options)
    made.plain = checkpoints.folder(name)
    scale = 1e-2 if "dtype" in str(options) else 1e-5  # in bfloat16 the oracle's numbers depend on the batch

    check_options(made, oracle.SentenceTransformer(str(made.plain), device="cpu", **options), texts, agree, scale)
    written = (made.folder / "sentence_bert_config.json").read_text()
    assert "secret" not in written
    assert "attn" not in written


@pytest.mark.parametrize("key", ["tokenizer_args", "processor_kwargs"])
def test_options_in_a_checkpoint_are_saved(checkpoints, texts, agree, tmp_path, key):
    """Those that its own file names, under the old name or the new one."""
    folder, saved = shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "given"), tmp_path / "saved"
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: {"do_lower_case": False}}))
    model = st_core.SentenceTransformer(folder, device="cpu")
    model.save_pretrained(saved)

    theirs, ours = (engine.SentenceTransformer(str(saved), device="cpu") for engine in (oracle, st_core))
    made = SimpleNamespace(model=model, theirs=theirs, ours=ours, plain=checkpoints.folder("bert-mean"))
    check_options(made, oracle.SentenceTransformer(str(folder), device="cpu"), texts, agree)


def test_an_option_that_is_an_object_is_not_saved(checkpoints, tmp_path):
    """It could not be made again from a file; the message names it."""
    from tokenizers import AddedToken

    options = {"processor_kwargs": {"pad_token": AddedToken("[PAD]", special=True)}}
    model = st_core.SentenceTransformer(checkpoints.folder("bert-mean"), device="cpu", **options)

    with pytest.raises(st_core.ModelUnsupported, match="processor_kwargs: pad_token: a AddedToken cannot be saved"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_calibration_is_kept_with_the_model(again, texts):
    """int8 vectors of the loaded model are those of the saved one, byte by byte, whole and cut.

    Sentence-transformers loads it regardless.
    """
    made = again("SentenceTransformer", "bert-mean", lambda model: model.calibrate(texts))

    np.testing.assert_array_equal(made.ours.quantization_ranges, made.model.quantization_ranges)
    for options in ({}, {"truncate_dim": 9}):
        for precision in ("int8", "uint8", "binary", "ubinary"):
            mine = made.ours.encode(texts[:3], precision=precision, **options)
            np.testing.assert_array_equal(mine, made.model.encode(texts[:3], precision=precision, **options))
    ranges = made.model.quantization_ranges
    wanted = oracle.util.quantize_embeddings(made.theirs.encode(texts), "int8", ranges=ranges)
    assert np.abs(made.ours.encode(texts, precision="int8").astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"least": [0]},
        {"least": [0], "greatest": "x"},
        {"least": [1.0], "greatest": [0.0]},
        {"least": [0.0] * 99, "greatest": [1.0] * 99},
        {"least": [0, 1], "greatest": [1]},
    ],
    ids=str,
)
def test_a_broken_calibration_is_named(again, value):
    """The message names the file."""
    made = again("SentenceTransformer", "static")
    (made.folder / "quantization_ranges.json").write_text(json.dumps(value))

    with pytest.raises(st_core.ModelBroken, match=r"quantization_ranges\.json"):
        st_core.SentenceTransformer(made.folder)


@pytest.mark.parametrize(
    ("kind", "name"), [("SentenceTransformer", "builtin:dense"), ("SparseEncoder", "builtin:sparse")]
)
def test_built_in_models_can_be_saved(tmp_path, texts, agree, kind, name):
    """The sparse one loads here only, for its modules are this engine's own."""
    model = getattr(st_core, kind)(name)
    model.save(tmp_path / "saved")
    saved = getattr(st_core, kind)(tmp_path / "saved")

    agree(saved.encode_query(texts), model.encode_query(texts), 0)
    agree(saved.encode_document(texts), model.encode_document(texts), 0)
    assert dict(describe(saved).fingerprint) == dict(describe(model).fingerprint)


def test_a_model_is_saved_over_itself(again, texts, agree):
    """The folder it was loaded from is not damaged."""
    made = again("SentenceTransformer", "bert-mean-old")
    wanted = made.ours.encode(texts)
    made.ours.save_pretrained(made.folder)

    agree(st_core.SentenceTransformer(made.folder, device="cpu").encode(texts), wanted)


def test_an_activation_without_a_name_is_not_saved(checkpoints, tmp_path):
    """A function of the caller's cannot be found again."""
    model = st_core.CrossEncoder(
        str(checkpoints.folder("rerank-bert")), device="cpu", activation_fn=lambda scores: scores
    )

    with pytest.raises(ValueError, match="activation_fn"):
        model.save_pretrained(tmp_path / "saved")


def test_pickles_are_not_written(checkpoints, tmp_path):
    """safe_serialization=False is refused before anything is written."""
    _, model = checkpoints.pair("SentenceTransformer", "static")

    with pytest.raises(ValueError, match="safetensors"):
        model.save_pretrained(tmp_path / "saved", safe_serialization=False)
    assert not (tmp_path / "saved").exists()


class Hub:
    """Stands in for huggingface_hub's HfApi and notes what it is asked."""

    calls: list = []  # noqa: RUF012 - emptied by the test

    def __init__(self, token=None):
        self.calls.append(("token", token))

    def create_repo(self, **options):
        self.calls.append(("create_repo", options))
        return SimpleNamespace(repo_id=f"me/{options['repo_id']}")

    def create_branch(self, **options):
        self.calls.append(("create_branch", options))

    def upload_folder(self, folder_path, **options):
        model = oracle.SentenceTransformer(folder_path, device="cpu")
        self.calls.append(("upload_folder", options, model.encode(["copy a tree"])))
        return SimpleNamespace(commit_url="https://hub/commit", pr_url="https://hub/pr")


@pytest.mark.parametrize(("create_pr", "address"), [(False, "https://hub/commit"), (True, "https://hub/pr")])
def test_a_model_is_pushed_to_the_hub(checkpoints, agree, monkeypatch, create_pr, address):
    """The repository and branch are created, the uploaded model loads, and another model's files are removed."""
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.calls.clear()
    _, model = checkpoints.pair("SentenceTransformer", "bert-mean")

    assert model.push_to_hub("mine", token="t", private=True, revision="v2", create_pr=create_pr) == address

    token, repository, branch, upload = Hub.calls
    assert token == ("token", "t")
    assert repository[1] == {"repo_id": "mine", "private": True, "exist_ok": create_pr}
    assert branch[1] == {"repo_id": "me/mine", "branch": "v2", "exist_ok": True}
    assert upload[1] == {
        "repo_id": "me/mine",
        "commit_message": "Add new SentenceTransformer model",
        "commit_description": upload[1]["commit_description"],
        "create_pr": create_pr,
        "revision": "v2",
        "delete_patterns": list(MODEL_FILES),
    }
    agree(upload[2], model.encode(["copy a tree"]))
    if create_pr:
        assert f"{model!r}" in upload[1]["commit_description"]
        assert 'model = SentenceTransformer("mine", revision=' in upload[1]["commit_description"]
    else:
        assert upload[1]["commit_description"] is None


@pytest.mark.filterwarnings("ignore:save_to_hub is now named:DeprecationWarning")
def test_an_organization_is_not_passed_over(checkpoints, monkeypatch):
    """The model would go to another owner than the old argument names."""
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.calls.clear()
    _, model = checkpoints.pair("SentenceTransformer", "bert-mean")

    with pytest.raises(ValueError, match="repo_id='you/mine' is not of organization='me'"):
        model.save_to_hub("you/mine", organization="me")
    assert not Hub.calls
    for name in ("mine", "me/mine"):
        model.save_to_hub(name, organization="me")
        assert Hub.calls[1][1]["repo_id"] == "me/mine"
        Hub.calls.clear()


def test_a_folder_is_pushed_as_it_is(checkpoints, monkeypatch):
    """local_model_path is uploaded instead of the model."""
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.calls.clear()
    _, model = checkpoints.pair("SentenceTransformer", "static")

    model.push_to_hub(
        "mine", local_model_path=str(checkpoints.folder("bert-mean")), commit_message="Mine", exist_ok=True
    )

    assert Hub.calls[-1][1]["commit_message"] == "Mine"
    assert Hub.calls[-1][1]["delete_patterns"] is None
    assert Hub.calls[-1][2].shape == (1, 32)
    assert Hub.calls[1][1]["exist_ok"]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed on Windows")
@pytest.mark.parametrize(
    ("kind", "name"),
    sweep(
        [
            ("SentenceTransformer", "bert-mean"),
            ("SentenceTransformer", "bert-mean-old"),
            ("SentenceTransformer", "router"),
            ("SentenceTransformer", "static"),
            ("SentenceTransformer", "lora-alone"),
            ("SparseEncoder", "splade-max"),
            ("CrossEncoder", "rerank-modernbert"),
        ],
        [
            ("SentenceTransformer", "bert-mean"),
            ("SentenceTransformer", "router"),
            ("CrossEncoder", "rerank-modernbert"),
        ],
    ),
)
@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_a_model_is_saved_after_its_folder_is_gone(checkpoints, tmp_path, agree, kind, name, fate):
    """What the model holds is written, not what is in its folder by then."""
    folder = Path(shutil.copytree(checkpoints.folder(name), tmp_path / "model"))
    model = getattr(st_core, kind)(str(folder), device="cpu")
    inputs = ["copy a tree", "boil an egg"] if kind != "CrossEncoder" else [("a tree", "copy it")]
    encode = "predict" if kind == "CrossEncoder" else "encode"
    if fate == "removed":
        shutil.rmtree(folder)
    else:
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            path.unlink()
            if fate == "replaced":
                path.write_bytes(b"something else")
    model.save_pretrained(tmp_path / "saved")
    again = getattr(st_core, kind)(str(tmp_path / "saved"), device="cpu")
    theirs = getattr(oracle, kind)(str(tmp_path / "saved"), device="cpu")

    agree(getattr(again, encode)(inputs), getattr(checkpoints.load(st_core, kind, name), encode)(inputs))
    agree(getattr(again, encode)(inputs), getattr(theirs, encode)(inputs))


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed on Windows")
def test_a_changed_tokenizer_is_saved_after_the_folder_is_gone(checkpoints, tmp_path, agree):
    """With the weights that were loaded."""
    folder = Path(shutil.copytree(checkpoints.folder("bert-mean"), tmp_path / "model"))
    model = st_core.SentenceTransformer(str(folder), device="cpu")
    model.tokenizer.model_max_length = 6
    expected = model.encode(["copy a tree to another folder", "boil an egg"])
    shutil.rmtree(folder)

    model.save_pretrained(tmp_path / "saved")

    for engine in (st_core, oracle):
        again = engine.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
        agree(again.encode(["copy a tree to another folder", "boil an egg"]), expected)


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed on Windows")
@pytest.mark.parametrize("opened", [True, False])
def test_a_model_on_a_graph_is_used_and_saved_after_its_folder_is_gone(exports, tmp_path, agree, monkeypatch, opened):
    """Neither its graph nor its weights are exported or read again."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    folder = Path(shutil.copytree(exports.folder("bert-mean", "onnx"), tmp_path / "model"))
    inputs = ["copy a tree", "boil an egg"]
    model = st_core.SentenceTransformer(str(folder), backend="onnx")
    expected = exports.checkpoints.load(st_core, "SentenceTransformer", "bert-mean").encode(inputs)
    if opened:
        model.encode("a word")
    shutil.rmtree(folder)
    monkeypatch.setenv("ST_CONNECTORS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(GraphBackend, "make", None)
    model.save_pretrained(tmp_path / "saved")
    again = st_core.SentenceTransformer(str(tmp_path / "saved"), backend="onnx")

    for each in (model, again):
        agree(each.encode(inputs), expected)
    agree(oracle.SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(inputs), expected)


def test_a_model_closes_the_files_that_it_holds(checkpoints):
    """As many are open after a model is gone as before."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files are counted in /proc")
    count = lambda: len(list(Path("/proc/self/fd").iterdir()))  # noqa: E731 - counted three times
    st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    gc.collect()
    before = count()
    model = st_core.SentenceTransformer(str(checkpoints.folder("bert-mean")), device="cpu")
    assert count() > before
    del model
    gc.collect()

    assert count() == before
