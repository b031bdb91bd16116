"""A model's vocabulary, by which the keys of sparse fields are tokens; read from its files without tokenizers or torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_core import builtin
from st_core.errors import ModelNotFound
from st_core.vectors import MAX_INDEX

__all__ = ["Vocabulary", "read", "vocabulary_of"]

_FILES = ("tokenizer.json", "vocab.txt")
"""What is looked for in a folder, in this order."""
_LONGEST = 8_000
"""Bytes of a token. Lucene's terms have 32,766, and an escaped dot takes three."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by index and indices by token, one for one; ``digest`` is the SHA-256 of both in hexadecimal."""

    tokens: Mapping[int, str]
    indices: Mapping[str, int]
    digest: str


def vocabulary_of(pairs: Iterable[tuple[str, int]]) -> Vocabulary:
    """The vocabulary of these tokens and indices; a pair may come twice.

    Raises ValueError for empty tokens, those that have no UTF-8 or more than 8,000 bytes of it, and for a token or an index that has two partners.
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
        raise ValueError("there are no tokens")
    text = json.dumps(sorted(tokens.items()), ensure_ascii=False, separators=(",", ":"))
    return Vocabulary(tokens, indices, hashlib.sha256(text.encode()).hexdigest())


def _check(token: object, index: object) -> None:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index <= MAX_INDEX:
        raise ValueError(f"an index is a whole number from 0 to {MAX_INDEX}, not {index!r}")
    if not isinstance(token, str) or not token:
        raise ValueError(f"a token is a string that is not empty, and that of index {index} is {token!r}")
    try:
        size = len(token.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"the token of index {index} holds half a surrogate pair, which has no UTF-8") from error
    if size > _LONGEST:
        raise ValueError(f"the token of index {index} has {size} bytes, and a key at most {_LONGEST}")


def read(place: str) -> Vocabulary:
    """The vocabulary in a ``tokenizer.json``, a ``vocab.txt``, a folder with one of them, or a built-in model such as ``builtin:sparse``.

    Raises ValueError for what is not there or is none.
    """
    path = _file(place)
    try:
        text = path.read_bytes().decode()
        return vocabulary_of(_pairs_of_json(text) if path.suffix == ".json" else _pairs_of_lines(text))
    except (OSError, ValueError) as error:
        raise ValueError(f"vocabulary names {str(path)!r}, which cannot be read: {error}") from error


def _file(place: str) -> Path:
    try:
        path = builtin.path(place) if place.startswith(builtin.PREFIX) else Path(place).expanduser()
        found = [path / name for name in _FILES if (path / name).is_file()] if path.is_dir() else [path]
        if found and found[0].is_file() and found[0].suffix in (".json", ".txt"):
            return found[0]
    except (ModelNotFound, OSError, RuntimeError, ValueError) as error:  # no such model or user; no path at all
        raise ValueError(f"vocabulary names nothing that is there: {error}") from error
    raise ValueError(
        f"vocabulary names a model's tokenizer.json or vocab.txt, a folder with one, or {builtin.PREFIX}sparse; {place!r} is none"
    )


def _pairs_of_lines(text: str) -> list[tuple[str, int]]:
    """A token a line, whose number, from 0, is its index; lines end at newlines only, since tokens hold other separators."""
    lines = text.removesuffix("\n").split("\n") if text else []
    return [(line.removesuffix("\r"), number) for number, line in enumerate(lines)]


def _pairs_of_json(text: str) -> list[tuple[str, int]]:
    """The tokens of a ``tokenizer.json``: of WordPiece, BPE and WordLevel by token, of Unigram as a list with scores, and those added."""
    whole = json.loads(text, object_pairs_hook=_apart)
    model = whole.get("model") if isinstance(whole, dict) else None
    held = model.get("vocab") if isinstance(model, dict) else None
    added = whole.get("added_tokens") or [] if isinstance(whole, dict) else []
    try:
        return _of_model(held) + [(each["content"], each["id"]) for each in added]
    except (LookupError, TypeError) as error:
        raise ValueError("it is not the tokenizer.json of a model with a vocabulary") from error


def _of_model(held: Any) -> list[tuple[str, int]]:
    if isinstance(held, dict):
        return list(held.items())
    if not isinstance(held, list):
        raise TypeError("neither by token nor a list")
    return [(each[0], number) for number, each in enumerate(held)]


def _apart(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of equal keys Python would silently keep the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return made
