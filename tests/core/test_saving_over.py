"""Saving over another model's folder replaces it completely; a failure loses neither model."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest
from huggingface_hub.utils import filter_repo_objects
from sweeps import sweep

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

import st_core  # noqa: E402 -- after the guard
from st_core.checkpoint.find import Fetch  # noqa: E402 -- after the guard
from st_core.fingerprint import describe  # noqa: E402 -- after the guard

pytestmark = pytest.mark.torch

MINE = {"notes.txt": "mine", "labels.json": "[1]", "onnx/model.onnx": "not a graph", "best/model.safetensors": "old"}
"""What a user may have beside a model."""


def files_of(folder):
    """What lies in a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def load(engine, folder):
    """A dense model on the processor."""
    return engine.SentenceTransformer(str(folder), device="cpu")


def sharded(checkpoint, folder, *, pickled):
    """The same checkpoint with the transformer's weights in several files."""
    from transformers import AutoModel

    shutil.copytree(checkpoint, folder)
    whole = folder / "model.safetensors"
    AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="60KB")
    whole.unlink(missing_ok=True)
    if pickled:
        pickle_parts(folder)
    return folder


def pickle_parts(folder):
    """Rewrite safetensors in several files as the pickles that transformers wrote before version 5."""
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    listing = json.loads(index.read_text())
    names = {part: f"pytorch_{part.removesuffix('safetensors')}bin" for part in set(listing["weight_map"].values())}
    assert len(names) > 1
    for part, name in names.items():
        torch.save(load_file(folder / part), folder / name)
        (folder / part).unlink()
    listing["weight_map"] = {tensor: names[part] for tensor, part in listing["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(listing))
    index.unlink()


@pytest.mark.parametrize(
    ("before", "name"),
    sweep(
        [
            ("lora", "bert-mean"),
            ("bert-mean", "lora"),
            ("roberta-six", "cased-lower"),
            ("bge-m3", "roberta-six"),
            ("chat-flat", "plain-bert"),
            ("bert-mean", "static"),
            ("static-old", "bert-mean"),
            ("router", "mpnet-max"),
            ("bert-mean-old", "distilbert-cls"),
            ("roberta-six", "parts"),
            ("parts", "roberta-six"),
        ],
        [("lora", "bert-mean"), ("bert-mean", "lora"), ("router", "mpnet-max"), ("parts", "roberta-six")],
    ),
)
def test_nothing_is_left_of_the_model_before(checkpoints, texts, agree, tmp_path, before, name):
    """Both engines read what they read of the original, from the files that saving into a new folder writes.

    The user's are still there.
    """
    parts = tmp_path / "parts"
    if "parts" in (before, name):
        sharded(checkpoints.folder("bert-mean"), parts, pickled=False)
    first, second = (parts if each == "parts" else checkpoints.folder(each) for each in (before, name))
    folder = shutil.copytree(first, tmp_path / "saved", dirs_exist_ok=True)
    for path, text in MINE.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    model = load(st_core, second)

    model.save_pretrained(folder)
    model.save_pretrained(tmp_path / "new")

    wanted = load(oracle, second).encode(texts[:2] + texts[6:])
    for engine in (oracle, st_core):
        agree(load(engine, folder).encode(texts[:2] + texts[6:]), wanted)
    assert dict(describe(load(st_core, folder)).fingerprint) == dict(describe(model).fingerprint)
    written = {path.name for path in folder.iterdir() if path.is_file()}
    assert written == {path.name for path in (tmp_path / "new").iterdir() if path.is_file()} | {
        path for path in MINE if "/" not in path
    }
    assert {path: (folder / path).read_text() for path in MINE} == MINE


def test_a_folder_without_a_model_only_gains_one(checkpoints, texts, agree, tmp_path):
    """A word list of the user's stays, though a model may have one of that name."""
    (tmp_path / "vocab.txt").write_text("mine")
    model = load(st_core, checkpoints.folder("bert-mean"))

    model.save_pretrained(tmp_path)

    assert (tmp_path / "vocab.txt").read_text() == "mine"
    for engine in (oracle, st_core):
        agree(load(engine, tmp_path).encode(texts), model.encode(texts))


def test_ranges_of_another_calibration_are_removed(checkpoints, texts, tmp_path):
    """Ranges of the same model that has none any more, and those of another model."""
    model = load(st_core, checkpoints.folder("bert-mean"))
    for other in (model, load(st_core, checkpoints.folder("mpnet-max"))):
        model.calibrate(texts)
        model.save_pretrained(tmp_path)
        assert load(st_core, tmp_path).quantization_ranges is not None
        other.quantization_ranges = None

        other.save_pretrained(tmp_path)

        assert load(st_core, tmp_path).quantization_ranges is None
        with pytest.raises(ValueError, match="calibrate"):
            load(st_core, tmp_path).encode(texts, precision="int8")


def test_heads_of_another_model_are_removed(checkpoints, tmp_path):
    """They would be taken for the model's own."""
    load(st_core, checkpoints.folder("bge-m3")).save_pretrained(tmp_path)
    load(st_core, checkpoints.folder("bert-mean")).save_pretrained(tmp_path)

    with pytest.raises(st_core.ModelUnsupported, match="no sparse output"):
        load(st_core, tmp_path).encode_multi(["a"], outputs=["sparse"])


@pytest.mark.parametrize("name", sweep(["bert-mean-old", "lora", "static-old", "roberta-six"], ["bert-mean-old"]))
def test_a_model_is_saved_over_itself_again_and_again(checkpoints, texts, agree, tmp_path, name):
    """Also where the files it was loaded from get other names, and what was set in between is kept."""
    folder = shutil.copytree(checkpoints.folder(name), tmp_path / "own")
    some = [text for text in texts if text]
    wanted = load(oracle, folder).encode(some)
    model = load(st_core, folder)

    for _ in range(2):
        model.calibrate(some)
        model.save_pretrained(folder)

        for engine in (oracle, st_core):
            agree(load(engine, folder).encode(some), wanted)
        np.testing.assert_array_equal(load(st_core, folder).quantization_ranges, model.quantization_ranges)
    assert not [path for path in folder.iterdir() if path.name.startswith(".") or path.suffix == ".bin"]


def test_a_failure_while_writing_leaves_the_folder_as_it_was(checkpoints, tmp_path, monkeypatch):
    """The disk is full once the weights are written; no new folder is created."""
    folder = shutil.copytree(checkpoints.folder("roberta-six"), tmp_path / "saved")
    model, there = load(st_core, checkpoints.folder("bert-mean")), files_of(folder)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("st_core.saving.save._write_json", fail)

    for target in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left on device"):
            model.save_pretrained(target)
    assert files_of(folder) == there
    assert not (tmp_path / "new").exists()


def test_a_failure_while_placing_leaves_the_folder_as_it_was(checkpoints, tmp_path):
    """A folder of the user's stands where a file shall go, and is found when others have gone to their places."""
    folder = shutil.copytree(checkpoints.folder("lora"), tmp_path / "saved")
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer_config.json").mkdir()
    (folder / "tokenizer_config.json" / "mine").write_text("mine")
    there = files_of(folder)

    with pytest.raises(OSError, match="tokenizer_config"):
        load(st_core, checkpoints.folder("bert-mean")).save_pretrained(folder)
    assert files_of(folder) == there


def test_pickled_weights_in_several_files_are_saved(checkpoints, texts, agree, tmp_path):
    """As safetensors in several files, which are read one after another."""
    source = sharded(checkpoints.folder("bert-mean"), tmp_path / "source", pickled=True)
    model = load(st_core, source)
    model.save_pretrained(tmp_path / "saved")

    wanted = load(oracle, source).encode(texts)
    for engine in (oracle, st_core):
        agree(load(engine, tmp_path / "saved").encode(texts), wanted)
    assert dict(describe(load(st_core, tmp_path / "saved")).fingerprint) == dict(describe(model).fingerprint)
    assert len(list((tmp_path / "saved").glob("model-*.safetensors"))) > 1
    assert not list((tmp_path / "saved").glob("*.bin*"))


def test_merges_in_a_file_of_their_own_are_saved(checkpoints, texts, agree, tmp_path):
    """PhoBERT's tokenizer, which is no tokenizer.json, reads bpe.codes.

    From the Hub it would be fetched with the others.
    """
    source = shutil.copytree(checkpoints.folder("roberta-six"), tmp_path / "source")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    settings = {"tokenizer_class": "PhobertTokenizer", "model_max_length": 40}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*(f"{each}@@" for each in letters), *letters, "th@@", "the", "tr@@", "ee", "tree"]
    (source / "vocab.txt").write_text("".join(f"{each} 1\n" for each in tokens))
    (source / "bpe.codes").write_text("t h 9\nth e</w> 8\ne e</w> 7\nt r 6\ntr ee</w> 5\n")
    model = load(st_core, source)
    model.save_pretrained(tmp_path / "saved")

    some = ["the tree", "a word", "the the tree of words", "copy it"]
    wanted = load(oracle, source).encode(some)
    agree(model.encode(some), wanted)
    for engine in (oracle, st_core):
        agree(load(engine, tmp_path / "saved").encode(some), wanted)
    names = [path.name for path in (tmp_path / "saved").iterdir() if path.is_file() and path.suffix != ".md"]
    assert set(filter_repo_objects(names, allow_patterns=Fetch().allowed)) == set(names)
