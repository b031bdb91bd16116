"""A checkpoint of today as the oldest versions of sentence-transformers would have saved it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

OLD_POOLING = {
    "cls": "cls_token",
    "max": "max_tokens",
    "mean": "mean_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
OLD_TYPES = {
    "MLMTransformer": "sentence_transformers.sparse_encoder.models.MLMTransformer.MLMTransformer",
    "SpladePooling": "sentence_transformers.sparse_encoder.models.SpladePooling",
    "SparseStaticEmbedding": "sentence_transformers.sparse_encoder.models.SparseStaticEmbedding.SparseStaticEmbedding",
    "SparseAutoEncoder": "sentence_transformers.sparse_encoder.models.SparseAutoEncoder",
    "Router": "sentence_transformers.models.Asym",
    "Pooling": "sentence_transformers.models.Pooling.Pooling",
}


def make_old(new: Path, folder: Path) -> None:
    """Write the layout of the first versions: a folder per module, old file names and keys, pickled weights."""
    shutil.copytree(new, folder)
    listing = folder / "modules.json"
    if listing.exists():
        edit(listing, lambda entries: [old_entry(folder, entry) for entry in entries])
    for config in list(folder.rglob("config.json")):
        edit(config, old_config)
    for name, key in (("cnn", "in_"), ("lstm", "")):
        for config in list(folder.rglob(f"{name}_config.json")):
            edit(
                config,
                lambda value, key=key: renamed(value, f"{key}embedding_dimension", f"{key}word_embedding_dimension"),
            )
    for config in list(folder.rglob("router_config.json")):
        old_router(config)
    settings = folder / "config_sentence_transformers.json"
    if settings.exists():
        gone = {"similarity_fn_name"} | (set() if "Sparse" in settings.read_text() else {"model_type"})
        edit(settings, lambda value: {key: kept for key, kept in value.items() if key not in gone})
    for settings in list(folder.rglob("sentence_bert_config.json")):
        old_limits(settings)
    for weights in list(folder.rglob("model.safetensors")):
        pickle_weights(weights)


def renamed(value: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """An object with one key renamed."""
    return {new if key == old else key: kept for key, kept in value.items()}


def old_type(kind: str, folder: Path) -> str:
    """The type string of the versions before 6, or before 5, of the module saved in a folder."""
    name = kind.rpartition(".")[2]
    settings = folder / "sentence_bert_config.json"
    if name == "Transformer" and settings.exists() and "fill-mask" in settings.read_text():
        name = "MLMTransformer"
    return OLD_TYPES.get(name, f"sentence_transformers.models.{name}")


def old_router(config: Path) -> None:
    """The file and the types of an Asym."""
    folder = config.parent
    edit(
        config,
        lambda value: value | {"types": {key: old_type(kind, folder / key) for key, kind in value["types"].items()}},
    )
    config.rename(config.with_name("config.json"))


def old_entry(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of modules.json; a transformer moves out of the root, a Normalize loses its configuration."""
    if entry["path"] == "" and entry["type"].endswith("Transformer"):
        entry = entry | {"path": "0_Transformer"}
        (folder / entry["path"]).mkdir()
        for path in list(folder.iterdir()):
            if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
                path.rename(folder / entry["path"] / path.name)
    if entry["type"].endswith("Normalize"):
        (folder / entry["path"] / "config.json").unlink(missing_ok=True)
    return entry | {"type": old_type(entry["type"], folder / entry["path"])}


def old_config(value: dict[str, Any]) -> dict[str, Any]:
    """The keys of older versions for Pooling and Dense."""
    modes = value.get("pooling_mode")
    if modes:
        named = [modes] if isinstance(modes, str) else modes
        value = {"word_embedding_dimension": value["embedding_dimension"], "include_prompt": value["include_prompt"]}
        if named == [mode for mode in OLD_POOLING if mode in named]:
            return value | {f"pooling_mode_{old}": mode in named for mode, old in OLD_POOLING.items()}
        return value | {"pooling_mode": modes}
    if value.get("module_input_name") == "sentence_embedding":
        return {key: kept for key, kept in value.items() if key not in ("module_input_name", "module_output_name")}
    if "pooling_strategy" in value:
        return {
            "word_embedding_dimension" if key == "embedding_dimension" else key: kept for key, kept in value.items()
        }
    return value


def old_limits(settings: Path) -> None:
    """The length and the case in sentence_*_config.json instead of the tokenizer's files.

    RoBERTa's had its own file name.
    """
    folder = settings.parent
    family = json.loads((folder / "config.json").read_text())["model_type"]
    tokenizer = folder / "tokenizer_config.json"
    length = json.loads(tokenizer.read_text())["model_max_length"]
    edit(tokenizer, lambda value: value | {"model_max_length": int(1e30)})
    settings.unlink()
    name = "roberta" if family == "roberta" else "distilbert" if family == "distilbert" else "bert"
    write(folder / f"sentence_{name}_config.json", {"max_seq_length": length, "do_lower_case": False})


def pickle_weights(weights: Path) -> None:
    """The same tensors as pytorch_model.bin."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(weights)
    if "decoder.linear.weight" in tensors:  # an auto-encoder's, of whose two names for one tensor safetensors keep one
        tensors["encoder.weight"] = tensors["decoder.linear.weight"]
    torch.save(tensors, weights.with_name("pytorch_model.bin"))
    weights.unlink()


def write(path: Path, value: Any) -> None:
    """A JSON file."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """A JSON file with its value changed."""
    write(path, change(json.loads(path.read_text(encoding="utf-8"))))
