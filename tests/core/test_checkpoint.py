"""Checkpoints that are missing, broken, foreign or dangerous: each is an error that says what is wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import PurePath

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from st_core import (
    CrossEncoder,
    ModelBroken,
    ModelError,
    ModelNotFound,
    ModelUnsupported,
    SentenceTransformer,
    SparseEncoder,
)
from st_core.checkpoint.find import find_checkpoint

STATIC = "sentence_transformers.models.StaticEmbedding"
NORMALIZE = "sentence_transformers.models.Normalize"
WORDS = {"[UNK]": 0, "near": 1, "far": 2, "away": 3}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def listing(*modules):
    return [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (kind, path) in enumerate(modules)]


@pytest.fixture
def static(tmp_path):
    """A whole static checkpoint of four words and two dimensions."""
    folder = tmp_path / "static"
    write(folder / "modules.json", listing((STATIC, "0_Static"), (NORMALIZE, "1_Normalize")))
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / "0_Static").mkdir()
    tokenizer.save(str(folder / "0_Static" / "tokenizer.json"))
    table = np.array([[0, 0], [3, 4], [0, 2], [1, 0]], np.float32)
    save_file({"embedding.weight": table}, folder / "0_Static" / "model.safetensors")
    return folder


def test_the_whole_checkpoint_loads(static):
    """The checkpoint the other tests break is sound: means of vectors, of length one."""
    vectors = SentenceTransformer(static).encode(["near", "far away", ""])

    assert np.allclose(vectors, [[0.6, 0.8], [1 / 5**0.5, 2 / 5**0.5], [0, 0]])


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere-at-all", ""])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(name):
    """What can only be a path is looked for on the disk alone."""
    with pytest.raises(ModelNotFound, match="no folder"):
        SentenceTransformer(name)


def test_a_file_is_no_checkpoint(static):
    """A file's name gives an error that says so."""
    with pytest.raises(ModelNotFound, match="is a file"):
        SentenceTransformer(static / "modules.json")


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    """A folder without modules.json and config.json holds no model."""
    with pytest.raises(ModelNotFound, match=r"expected modules\.json or config\.json"):
        SentenceTransformer(tmp_path)


def test_an_unknown_builtin_lists_the_known():
    """The message names what there is."""
    with pytest.raises(ModelNotFound, match=r"builtin:dense.*builtin:sparse"):
        SentenceTransformer("builtin:nothing")


def test_hub_names_are_looked_up_with_the_organisation(monkeypatch, tmp_path):
    """A bare name gets the family's organisation, an old one and a full one do not; the arguments go through."""
    asked = []

    def download(name, **options):
        asked.append((name, options["revision"], options["token"], options["local_files_only"]))
        (tmp_path / "model.safetensors").touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for name in ("all-MiniLM-L6-v2", "bert-base-uncased", "someone/model"):
        find_checkpoint(name, organisation="our-org", revision="v1", token="t", local_files_only=True)

    assert [each[0] for each in asked] == ["our-org/all-MiniLM-L6-v2", "bert-base-uncased", "someone/model"]
    assert all(each[1:] == ("v1", "t", True) for each in asked)


@pytest.mark.parametrize(
    ("files", "fetches"),
    [
        (["config.json", "model.safetensors", "2_Dense/pytorch_model.bin"], 1),
        (["config.json", "2_Dense/model.safetensors"], 2),
        (["query_0_SparseStaticEmbedding/model.safetensors", "document_0_MLMTransformer/config.json"], 2),
        (["a/config.json", "a/model.safetensors", "b/config.json"], 2),
    ],
    ids=["converted", "half converted", "router", "one of two"],
)
def test_pickled_weights_are_fetched_where_there_are_no_others(monkeypatch, tmp_path, files, fetches):
    """Every transformer gets weights.

    Safetensors of another module do not count for it, and spare no file where it has its own.
    """
    asked = []

    def download(_name, **options):
        asked.append(options["allow_patterns"])
        for name in files:
            write(tmp_path / name, {"model_type": "bert"} if name.endswith(".json") else "")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    find_checkpoint("someone/model", organisation="our-org")

    assert len(asked) == fetches
    assert any(PurePath("2_Dense/pytorch_model.bin").match(pattern) for pattern in asked[0])
    assert ("*.bin" in asked[-1]) == (fetches == 2)


@pytest.mark.parametrize(
    "name", ["~nobody-of-this-name/x", "a" * 5000, "x/" + "a" * 5000], ids=["user", "long", "longer"]
)
def test_names_that_cannot_be_looked_for_are_not_found(name):
    """What the operating system refuses to look for is an error in one line."""
    with pytest.raises(ModelNotFound, match="the path cannot be read"):
        SentenceTransformer(name)


def test_a_connection_that_breaks_is_one_line(monkeypatch):
    """Whatever the HTTP client raises in the middle of a file, the message names the model and what to look at."""
    import httpx

    def download(_name, **_options):
        raise httpx.ReadTimeout("The read operation timed out\nand more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ModelNotFound, match=r"^no folder 'someone/model'.*timed out.*check the name, the network"):
        SentenceTransformer("someone/model")


def test_a_model_missing_from_the_cache_is_not_found(tmp_path):
    """Without the network, a Hub name that is not in the cache is an error that says what was tried."""
    with pytest.raises(ModelNotFound, match="local_files_only"):
        SentenceTransformer("someone/nothing", local_files_only=True, cache_folder=str(tmp_path))


@pytest.mark.parametrize("path", ["../outside", "/etc", "a/../../b", "..\\outside", "C:\\windows"])
def test_paths_that_leave_the_folder_are_refused(static, path):
    """A module's path stays inside the checkpoint."""
    write(static / "modules.json", listing((STATIC, path)))

    with pytest.raises(ModelBroken, match="leaves the checkpoint"):
        SentenceTransformer(static)


def test_a_path_that_is_too_long_is_named(static):
    """No system has such a name."""
    write(static / "modules.json", listing((STATIC, "a" * 5000)))

    with pytest.raises(
        ModelBroken, match=r"modules\.json: path of a module cannot be read: 'aaa.*': File name too long"
    ):
        SentenceTransformer(static)


@pytest.mark.parametrize("kind", ["link to nothing", "link to itself", "folder"])
@pytest.mark.parametrize("name", ["modules.json", "config_sentence_transformers.json", "config.json"])
def test_a_listing_that_is_no_file_is_not_passed_over(static, name, kind):
    """Without it the model would be another: the mean of a plain folder, without prompts."""
    write(static / "config.json", {"architectures": ["StaticModel"]})
    (static / name).unlink(missing_ok=True)
    if kind == "folder":
        (static / name).mkdir()
    else:
        (static / name).symlink_to(name if kind == "link to itself" else "nothing")

    with pytest.raises(ModelBroken, match=rf"{name}: (the link points to nothing|the file cannot be read)"):
        SentenceTransformer(static)


def test_links_that_leave_the_folder_are_refused(static, tmp_path):
    """A module's folder is not reached by a link either, and a link to itself is no folder."""
    (static / "0_Static").rename(tmp_path / "outside")
    for target in (tmp_path / "outside", static / "0_Static"):
        (static / "0_Static").unlink(missing_ok=True)
        (static / "0_Static").symlink_to(target)

        with pytest.raises(ModelBroken, match="leaves the checkpoint"):
            SentenceTransformer(static)


def test_files_may_be_links(static, tmp_path):
    """The Hub's cache keeps files elsewhere and links to them."""
    (static / "0_Static" / "model.safetensors").rename(tmp_path / "blob")
    (static / "0_Static" / "model.safetensors").symlink_to(tmp_path / "blob")

    assert SentenceTransformer(static).encode("near").shape == (2,)


@pytest.mark.parametrize("name", [".", "", "inner/.."])
def test_a_router_does_not_hold_itself(static, name):
    """A router that names its own folder would be read for ever."""
    kind = "sentence_transformers.models.Router"
    write(static / "modules.json", listing((kind, "0_Router")))
    write(static / "0_Router" / "router_config.json", {"types": {name: kind}, "structure": {"query": [name]}})

    with pytest.raises(ModelBroken, match=r"router_config\.json"):
        SentenceTransformer(static)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompts", ["query: "]),
        ("prompts", {"query": 5}),
        ("default_prompt_name", "nothing"),
        ("default_prompt_name", 5),
        ("truncate_dim", "8"),
        ("truncate_dim", -8),
        ("similarity_fn_name", "nearness"),
    ],
)
def test_settings_that_make_no_sense_are_named(static, name, value):
    """What the checkpoint says wrongly is the model's mistake, not an argument's."""
    write(static / "config_sentence_transformers.json", {name: value})

    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json|nearness"):
        SentenceTransformer(static)


@pytest.mark.parametrize("text", ["3", "null", "[]", '{"types": []}', "[" * 100_000])
def test_files_that_hold_something_else_are_named(static, text):
    """Any JSON where another was expected is an error that names the module's folder."""
    write(static / "modules.json", listing(("sentence_transformers.models.Router", "0_Router")))
    write(static / "0_Router" / "router_config.json", text)

    with pytest.raises(ModelError, match="0_Router"):
        SentenceTransformer(static)


def dense(folder, reads, width):
    """A Dense module from ``width`` to 3 dimensions that reads a feature."""
    config = {"in_features": width, "out_features": 3, "bias": False, "module_input_name": reads}
    write(folder / "config.json", config)
    save_file({"linear.weight": np.ones((3, width), np.float32)}, folder / "model.safetensors")


def test_modules_that_do_not_follow_one_another_are_refused(static):
    """A module that reads what nobody writes is found when loading, one for other widths by the first text."""
    kind = "sentence_transformers.models.Dense"
    write(static / "modules.json", listing((STATIC, "0_Static"), (kind, "1_Dense")))
    dense(static / "1_Dense", "token_embeddings", 2)
    with pytest.raises(ModelBroken, match="'token_embeddings', which no module before it writes"):
        SentenceTransformer(static)

    dense(static / "1_Dense", "sentence_embedding", 5)
    with pytest.raises(ModelBroken, match="expected vectors of 5 dimensions, got 2"):
        SentenceTransformer(static).encode("near")


def test_router_paths_that_leave_the_folder_are_refused(static):
    """The same holds for the names of a router's modules."""
    router = {"types": {"../0_Static": STATIC}, "structure": {"query": ["../0_Static"]}, "parameters": {}}
    write(static / "0_Router" / "router_config.json", router)
    write(static / "modules.json", listing(("sentence_transformers.models.Router", "0_Router")))

    with pytest.raises(ModelBroken, match="leaves the checkpoint"):
        SentenceTransformer(static)


@pytest.mark.parametrize("kind", ["sentence_transformers.models.Perceiver", "custom_st.Transformer", "os.system"])
def test_unknown_modules_are_named(static, kind):
    """The message names the type, and no code of the checkpoint is run."""
    write(static / "modules.json", listing((kind, "0_Static")))

    with pytest.raises(ModelUnsupported, match=kind.replace(".", r"\.")):
        SentenceTransformer(static)


def test_code_in_a_checkpoint_is_refused(static):
    """A model with code of its own needs the caller's word."""
    write(static / "config.json", {"model_type": "own", "auto_map": {"AutoModel": "modeling.Own"}})

    with pytest.raises(ModelUnsupported, match="trust_remote_code"):
        SentenceTransformer(static)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "[1]", '[{"path": "x"}]', '[{"type": 3}]', '[{"type": "a.B", "path": 1}]']
)
def test_broken_listings_are_named(static, text):
    """The message names the file."""
    write(static / "modules.json", text)

    with pytest.raises(ModelBroken, match=r"modules\.json"):
        SentenceTransformer(static)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_damaged_files_are_named(static, name, damage):
    """Missing, empty and truncated files are errors that name the folder's file."""
    path = static / "0_Static" / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-20])

    with pytest.raises(ModelBroken, match="0_Static"):
        SentenceTransformer(static)


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": np.zeros((4, 2), np.float32)},
        {"embedding.weight": np.zeros(4, np.float32)},
        {"embedding.weight": np.zeros((3, 2), np.float32)},
        {"embeddings": np.zeros((2, 2), np.int8), "mapping": np.array([0, 1, 2, 0])},
        {"embeddings": np.zeros((4, 2), np.int8), "weights": np.zeros(3, np.float32)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(static, tensors):
    """Wrong names and wrong shapes are found when loading, not when encoding."""
    save_file(tensors, static / "0_Static" / "model.safetensors")

    with pytest.raises(ModelBroken, match="0_Static"):
        SentenceTransformer(static)


def test_another_family_without_a_transformer_is_refused(static):
    """A static dense model cannot become a sparse one, and the message says what it is."""
    with pytest.raises(ModelUnsupported, match="is a SentenceTransformer"):
        SparseEncoder(static)
    with pytest.raises(ModelUnsupported, match="is a SentenceTransformer"):
        CrossEncoder(static)


def test_weights_are_not_invented(tmp_path):
    """A sparse encoder of a model without a vocabulary head would need random numbers, and is refused."""
    write(tmp_path / "config.json", {"model_type": "bert", "architectures": ["BertModel"]})

    with pytest.raises(ModelUnsupported, match="random"):
        SparseEncoder(tmp_path)


def test_requirements_of_the_author_are_checked(static):
    """A package asked for in a version that is not installed is named; a slip of the author's locks nothing."""
    write(static / "config_sentence_transformers.json", {"requirements": {"numpy": ">=1", "tokenizers": "a typo"}})
    SentenceTransformer(static)
    write(static / "config_sentence_transformers.json", {"requirements": {"numpy": {"specifier": ">=999"}}})

    with pytest.raises(ModelUnsupported, match="numpy>=999"):
        SentenceTransformer(static)


class Payload:
    """Unpickled with care left out, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.torch
def test_pickled_code_is_never_run(static, tmp_path):
    """Weights in a pickle are read as tensors alone."""
    pytest.importorskip("torch")
    (static / "0_Static" / "model.safetensors").unlink()
    (static / "0_Static" / "pytorch_model.bin").write_bytes(
        pickle.dumps({"embedding.weight": Payload(tmp_path / "ran")}, protocol=2)
    )

    with pytest.raises(ModelBroken, match=r"pytorch_model\.bin"):
        SentenceTransformer(static)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"inputs": ["a"], "truncate": 3}, "truncate"),
        ({"inputs": ["a", None]}, "input 1 is None"),
        ({"inputs": None}, "None"),
        ({"inputs": 3}, "int"),
        ({"inputs": ["a"], "batch_size": 0}, "batch_size"),
        ({"inputs": ["a"], "precision": "int4"}, "int4"),
        ({"inputs": ["a"], "precision": "int8"}, "calibrate"),
        ({"inputs": ["a"], "prompt_name": "nothing"}, "nothing"),
        ({"inputs": ["a"], "output_value": "colours"}, "colours"),
        ({"inputs": ["a"], "output_value": "token_embeddings"}, "token_embeddings"),
        ({"inputs": ["a"], "processing_kwargs": {"text": {"stride": 2}}}, "stride"),
    ],
)
def test_wrong_arguments_are_refused(static, arguments, problem):
    """The message names what is wrong with the call."""
    model = SentenceTransformer(static)

    with pytest.raises(ValueError, match=problem):
        model.encode(**arguments)


def test_a_pool_that_is_none_is_refused(static):
    """pool= takes what start_multi_process_pool gives, and says so of anything else."""
    with pytest.raises(TypeError, match="start_multi_process_pool"):
        SentenceTransformer(static).encode(["a"], pool=object())
