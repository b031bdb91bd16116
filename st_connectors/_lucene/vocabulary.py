"""Read the vocabulary of a model, whose tokens are the keys of sparse fields, without tokenizers or torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_core import builtin
from st_core.errors import ModelNotFound
from st_core.home import expand_home
from st_core.vectors import MAX_INDEX

__all__ = ["Vocabulary", "build_vocabulary", "read_vocabulary"]

_FILES = ("tokenizer.json", "vocab.txt")
"""The file names that are searched in a folder; the first file that exists is read."""
_LONGEST = 8_000
"""The maximum number of bytes of a token. Lucene accepts terms of at most 32,766 bytes, and an escaped dot has three
bytes."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model by index, and the indices by token.

    Every token has one index, and every index one token. ``digest`` is the SHA-256 of both in hexadecimal.
    """

    tokens: Mapping[int, str]
    indices: Mapping[str, int]
    digest: str


def build_vocabulary(pairs: Iterable[tuple[str, int]]) -> Vocabulary:
    """Return the vocabulary that consists of pairs of a token and its index; a pair may occur twice.

    Raises ValueError for a token that is empty, cannot be encoded as UTF-8 or has more than 8,000 bytes, and for a
    token or an index that occurs in two different pairs.
    """
    tokens: dict[int, str] = {}
    indices: dict[str, int] = {}
    for token, index in pairs:
        _check(token, index)
        if indices.setdefault(token, index) != index:
            raise ValueError(f"the token {token!r} stands for {indices[token]} and for {index}")
        if tokens.setdefault(index, token) != token:
            raise ValueError(f"the index {index} stands for {tokens[index]!r} and for {token!r}")
    if not tokens:
        raise ValueError("it has no tokens")
    text = json.dumps(sorted(tokens.items()), ensure_ascii=False, separators=(",", ":"))
    return Vocabulary(tokens, indices, hashlib.sha256(text.encode()).hexdigest())


def _check(token: object, index: object) -> None:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index <= MAX_INDEX:
        raise ValueError(f"an index must be a whole number from 0 to {MAX_INDEX}, not {index!r}")
    if not isinstance(token, str) or not token:
        raise ValueError(f"the token of index {index} must be a string that is not empty, not {token!r}")
    try:
        size = len(token.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"the token of index {index} contains half a surrogate pair, which has no UTF-8") from error
    if size > _LONGEST:
        raise ValueError(f"the token of index {index} has {size} bytes; a key has at most {_LONGEST}")


def read_vocabulary(place: str) -> Vocabulary:
    """Return the vocabulary that an address option refers to.

    ``place`` is the path of a ``tokenizer.json`` or ``vocab.txt``, a folder that contains one of them, or
    ``builtin:sparse``. Raises ValueError if there is no such file or it contains no vocabulary.
    """
    path = _find_file(place)
    try:
        text = path.read_bytes().decode()
        return build_vocabulary(_pairs_of_json(text) if path.suffix == ".json" else _pairs_of_lines(text))
    except (OSError, ValueError) as error:
        raise ValueError(f"the vocabulary {str(path)!r} cannot be read: {error}") from error


def _find_file(place: str) -> Path:
    try:
        path = builtin.path(place) if place.startswith(builtin.PREFIX) else Path(expand_home(place))
        files = [path / name for name in _FILES if (path / name).is_file()] if path.is_dir() else [path]
        if files and files[0].is_file() and files[0].suffix in (".json", ".txt"):
            return files[0]
    except (ModelNotFound, OSError, ValueError) as error:  # no such model or home folder; no path at all
        raise ValueError(f"there is no vocabulary {place!r}: {error}") from error
    raise ValueError(
        f"there is no vocabulary {place!r}; expected a model's tokenizer.json or vocab.txt, a folder with one, "
        f"or {builtin.PREFIX}sparse"
    )


def _pairs_of_lines(text: str) -> list[tuple[str, int]]:
    """Return the token of each line with the line number, counted from 0.

    Lines end only at newlines, because tokens may contain other line separators.
    """
    lines = text.removesuffix("\n").split("\n") if text else []
    return [(line.removesuffix("\r"), number) for number, line in enumerate(lines)]


def _pairs_of_json(text: str) -> list[tuple[str, int]]:
    """Return the tokens of a ``tokenizer.json``, including its added tokens, with their indices.

    The vocabulary of WordPiece, BPE and WordLevel is an object that maps tokens to indices; that of Unigram is a list
    of tokens with scores.
    """
    tokenizer = json.loads(text, object_pairs_hook=_unique_object)
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    vocab = model.get("vocab") if isinstance(model, dict) else None
    added = tokenizer.get("added_tokens") or [] if isinstance(tokenizer, dict) else []
    try:
        return _model_pairs(vocab) + [(each["content"], each["id"]) for each in added]
    except (LookupError, TypeError) as error:
        raise ValueError("it is not the tokenizer.json of a model with a vocabulary") from error


def _model_pairs(vocab: Any) -> list[tuple[str, int]]:
    if isinstance(vocab, dict):
        return list(vocab.items())
    if not isinstance(vocab, list):
        raise TypeError("neither an object by token nor a list")
    return [(each[0], number) for number, each in enumerate(vocab)]


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise ValueError for a repeated key, which Python's parser accepts silently."""
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated!r} occurs twice")
    return value
