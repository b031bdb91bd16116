"""Smaller vocabularies: the tokens that texts use, for tokenizers of WordPiece."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from st_core.backends.torch.modules import TransformerStep
from st_core.distilling.layers import AnyModel, changed_model
from st_core.distilling.tokenizers import text_tokenizer
from st_core.errors import ModelUnsupported
from st_core.text.tokens import TextTokenizer

__all__ = ["pruned_tokenizer", "tokens_in_use", "with_vocabulary"]

_ID_NAMES = tuple(f"{role}_token_id" for role in ("pad", "cls", "sep", "mask", "unk", "bos", "eos"))


def tokens_in_use(
    tokenizer: TextTokenizer, texts: Sequence[str], size: int | None = None, prompts: Sequence[str] = ()
) -> list[str]:
    """Return the tokens of a smaller vocabulary, in the order of the old one.

    They are special and added tokens, single ASCII characters, the tokens of the prompts, and those of the texts: all
    of them, or the most frequent ones up to ``size`` tokens altogether. Raises ValueError for a size that has no room
    for the others.
    """
    tokens = _by_id(tokenizer)
    counts = np.zeros(max(tokens) + 1, np.int64)
    for row in tokenizer.plain(texts):
        counts += np.bincount(row, minlength=counts.size)
    always = _always(tokenizer, tokens) | _ids(tokenizer, prompts)
    if size is not None and size < len(always):
        raise ValueError(f"a vocabulary needs at least the {len(always)} special tokens and characters, got {size}")
    used = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index] and index not in always]
    room = len(used) if size is None else size - len(always)
    return [tokens[index] for index in sorted({*always, *used[:room]})]


def _by_id(tokenizer: TextTokenizer) -> dict[int, str]:
    return {index: token for token, index in tokenizer.backend.get_vocab(with_added_tokens=True).items()}


def _ids(tokenizer: TextTokenizer, texts: Sequence[str]) -> set[int]:
    """Return the ids of the tokens of texts, without special tokens."""
    return {int(index) for row in tokenizer.plain(texts) for index in row}


def _always(tokenizer: TextTokenizer, tokens: Mapping[int, str]) -> set[int]:
    """Return the ids of special and added tokens, and of single ASCII characters, from which any word can be spelt."""
    characters = {
        index for index, token in tokens.items() if len(bare := token.removeprefix("##")) == 1 and bare.isascii()
    }
    return {*tokenizer.special_ids, *tokenizer.backend.get_added_tokens_decoder(), *characters} & tokens.keys()


def with_vocabulary(model: AnyModel, tokens: Collection[str]) -> AnyModel:
    """Return a model whose transformer knows only some tokens.

    Special tokens, those of the model's prompts and ASCII characters are added. Texts of these tokens have the same
    vectors as before. Raises ModelUnsupported for a tokenizer that is not of WordPiece and for a transformer with a
    vocabulary head, and ValueError for a token that the model does not know.
    """
    tokenizer = text_tokenizer(model)
    if type(tokenizer.backend.model).__name__ != "WordPiece":
        raise ModelUnsupported(
            f"{model.checkpoint.name}: its tokenizer is not of WordPiece, the only kind whose vocabulary can be "
            "pruned; leave out the vocabulary"
        )
    known = tokenizer.backend.get_vocab(with_added_tokens=True)
    unknown = next((token for token in tokens if token not in known), None)
    if unknown is not None:
        raise ValueError(f"the model does not know the token {unknown!r}; expected tokens of its vocabulary")
    of_prompts = _ids(tokenizer, list(model.prompts.values()))
    kept = sorted({*(known[token] for token in tokens), *of_prompts, *_always(tokenizer, _by_id(tokenizer))})
    places = {old: new for new, old in enumerate(kept)}
    text = tokenizer.backend.to_str()

    def change(step: TransformerStep) -> None:
        _prune(step.model, kept, places)

    def rewrite(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(pruned_tokenizer(text, places), encoding="utf-8")
        _rewrite_others(folder, places, _by_id(tokenizer))

    return changed_model(model, change, rewrite)


def _prune(model: Any, kept: Sequence[int], places: Mapping[int, int]) -> None:
    """Replace the embeddings of a transformer by those of some tokens, and change the ids in its configuration."""
    if model.get_output_embeddings() is not None:
        raise ModelUnsupported(f"{type(model).__name__} has a vocabulary head; prune the vocabulary before adding one")
    old = model.get_input_embeddings()
    padding = places.get(old.padding_idx) if old.padding_idx is not None else None
    new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=padding)
    new.weight = nn.Parameter(old.weight.detach()[torch.tensor(kept, device=old.weight.device)].clone())
    model.set_input_embeddings(new)
    model.config.vocab_size = len(kept)
    for name in _ID_NAMES:
        value = getattr(model.config, name, None)
        if isinstance(value, int):
            setattr(model.config, name, places.get(value))


def pruned_tokenizer(text: str, places: Mapping[int, int]) -> str:
    """Return the content of a ``tokenizer.json`` of WordPiece with only some tokens.

    ``places`` are the new ids by the old ones. Raises ModelUnsupported for another kind of tokenizer.
    """
    value = json.loads(text)
    kind = value["model"].get("type")
    if kind != "WordPiece":
        raise ModelUnsupported(f"expected a tokenizer of WordPiece, whose vocabulary can be pruned, got {kind}")
    vocabulary = value["model"]["vocab"]
    value["model"]["vocab"] = {token: places[index] for token, index in vocabulary.items() if index in places}
    value["added_tokens"] = [each | {"id": places[each["id"]]} for each in value.get("added_tokens", ())]
    processor = value.get("post_processor") or {}
    for special in processor.get("special_tokens", {}).values():
        special["ids"] = [places[index] for index in special["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], places[processor[name][1]]]
    return json.dumps(value, ensure_ascii=False)


def _rewrite_others(folder: Path, places: Mapping[int, int], tokens: Mapping[int, str]) -> None:
    """Change the ids in the other files of a tokenizer: vocab.txt, tokenizer_config.json and added_tokens.json."""
    lines = folder / "vocab.txt"
    if lines.is_file():
        ordered = sorted(places, key=places.__getitem__)
        lines.write_text("".join(f"{tokens[old]}\n" for old in ordered), encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        value = json.loads(settings.read_text(encoding="utf-8"))
        added = value.get("added_tokens_decoder")
        if isinstance(added, dict):
            value["added_tokens_decoder"] = {
                str(places[int(index)]): each for index, each in added.items() if int(index) in places
            }
        settings.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "added_tokens.json").unlink(missing_ok=True)  # tokenizer.json has the same tokens
