"""Convert texts to token ids, without state shared between calls.

A tokenizer of the ``tokenizers`` library stores truncation and padding as mutable state, so that two threads with
different lengths would disturb each other. Here it only converts text to ids; this file truncates them and adds special
tokens, by the layout that the tokenizer used for a probe. The library does the same in the same order, so that the ids
are equal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np

from st_core.errors import ModelBroken, ModelUnsupported
from st_core.text.word_pieces import WordPieces, read_word_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Encoding, Tokenizer

__all__ = [
    "Later",
    "Layout",
    "SlowTokenizer",
    "TextTokenizer",
    "Tokens",
    "cut_pair",
    "load_tokenizer",
    "pad",
    "parse_tokenizer",
    "read_layout",
]

UNLIMITED = 10**9
"""A ``model_max_length`` of this or more means no limit; transformers writes 10**30."""

WINDOW = 4096
"""Texts per call of the library: its result objects are some hundred times the size of their ids."""

MANY, FEW = 256, 4
"""With at least MANY texts and more than FEW cores, the library's threads are faster than one thread of Python.

Measured on two cores: Python on one of them takes a third of the library's time.
"""

CORES = os.cpu_count() or 1

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids per input, int32, special tokens included; ``types`` are segment numbers, None where all are 0."""

    ids: list[NDArray[np.int32]]
    types: list[NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per input [n]."""
        return np.fromiter((row.size for row in self.ids), np.int64, len(self.ids))

    def take(self, positions: Iterable[int]) -> Tokens:
        """Return the inputs at some positions."""
        chosen = list(positions)
        types = None if self.types is None else [self.types[position] for position in chosen]
        return Tokens([self.ids[position] for position in chosen], types)


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of special tokens around texts: ``fixed[0] content[0] fixed[1] content[1] … fixed[-1]``.

    ``fixed`` are token ids, ``fixed_types`` their segment numbers; ``content_types`` is one segment number for each
    content.
    """

    fixed: tuple[NDArray[np.int32], ...]
    fixed_types: tuple[NDArray[np.int32], ...]
    content_types: tuple[int, ...]

    @property
    def added(self) -> int:
        """The number of special tokens."""
        return sum(part.size for part in self.fixed)

    @property
    def has_types(self) -> bool:
        """Whether any segment number is not 0."""
        return any(self.content_types) or any(bool(part.any()) for part in self.fixed_types)

    def fill(self, *contents: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the ids of one input."""
        parts = [self.fixed[0]]
        for content, after in zip(contents, self.fixed[1:], strict=True):
            parts += (content, after)
        return np.concatenate(parts)

    def fill_types(self, *contents: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the segment numbers of one input."""
        parts = [self.fixed_types[0]]
        for content, kind, after in zip(contents, self.content_types, self.fixed_types[1:], strict=True):
            parts += (np.full(content.size, kind, np.int32), after)
        return np.concatenate(parts)


_NONE = np.empty(0, np.int32)
BARE = Layout((_NONE, _NONE), (_NONE, _NONE), (0,))


def read_layout(backend: Tokenizer, *, pair: bool) -> Layout | None:
    """Return what a tokenizer adds around a text or a pair; None where it splits or reorders the contents."""
    for probe in ("a", "1", *_some_tokens(backend)):
        encoding = backend.encode(probe, probe) if pair else backend.encode(probe)
        layout = _layout_of(encoding, contents=2 if pair else 1)
        if layout is not None:
            plain = np.asarray(backend.encode(probe, add_special_tokens=False).ids, np.int32)
            contents = (plain, plain) if pair else (plain,)
            return layout if layout.fill(*contents).tolist() == encoding.ids else None
    return None


def _some_tokens(backend: Tokenizer) -> list[str]:
    vocabulary = backend.get_vocab_size()
    picked = (backend.id_to_token(int(index)) for index in np.linspace(0, max(vocabulary - 1, 0), 16))
    return [token for token in picked if token]


def _layout_of(encoding: Encoding, contents: int) -> Layout | None:
    ids = np.asarray(encoding.ids, np.int32)
    types = np.asarray(encoding.type_ids, np.int32)
    owners = np.asarray([-1 if owner is None else owner for owner in encoding.sequence_ids], np.int64)
    fixed, fixed_types, content_types = [], [], []
    start = 0
    for content in range(contents):
        where = np.flatnonzero(owners == content)
        if where.size == 0 or where[-1] - where[0] + 1 != where.size or where[0] < start:
            return None
        fixed.append(ids[start : where[0]])
        fixed_types.append(types[start : where[0]])
        content_types.append(int(types[where[0]]))
        start = int(where[-1]) + 1
    return Layout((*fixed, ids[start:]), (*fixed_types, types[start:]), tuple(content_types))


def cut_pair(first: int, second: int, limit: int) -> tuple[int, int]:
    """Return how many tokens of each text of a pair stay: the longer one is cut first, then both evenly.

    Equal to ``longest_first`` of the tokenizers library, including the text that gets the odd token.
    """
    if first + second <= limit:
        return first, second
    short, long = sorted((first, second))
    long = short if short > limit else max(short, limit - short)
    if short + long > limit:
        short = limit // 2
        long = short + limit % 2
    return (short, long) if first <= second else (long, short)


def _row(ids: list[int] | None) -> NDArray[np.int32] | None:
    return None if ids is None else np.array(ids, np.int32)


def _without_surrogates(text: str) -> str:
    """Return text with adjacent halves of surrogate pairs joined and single ones replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Later:
    """An object that is created on first use; safe in threads."""

    def __init__(self, create: Callable[[], object]) -> None:
        """Store ``create``, which returns the object and is called once."""
        self._create = create
        self._created: list[object] = []
        self._lock = threading.Lock()

    def __call__(self) -> object:
        """Return the object."""
        with self._lock:
            if not self._created:
                self._created.append(self._create())
            return self._created[0]


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A tokenizer of the ``tokenizers`` library and its layouts; safe in threads, because it is never changed.

    ``offered`` is the object of a model's ``tokenizer`` attribute, or a :class:`Later` that creates it. ``keep_left``
    is False where long texts lose their beginning. ``special_ids`` are the ids that stand for no text. ``words``
    tokenizes most texts of BERT's tokenizers.
    """

    backend: Tokenizer
    single: Layout
    pair: Layout | None = None
    pad_id: int = 0
    pad_type: int = 0
    pad_left: bool = False
    keep_left: bool = True
    wants_types: bool = False
    model_max_length: int | None = None
    special_ids: frozenset[int] = frozenset()
    offered: object = None
    words: WordPieces | None = None

    @property
    def shown(self) -> Any:
        """The object of a model's ``tokenizer`` attribute."""
        return self.offered() if isinstance(self.offered, Later) else self.offered

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens, added ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def unknown_id(self) -> int | None:
        """The id of the token for unknown text, or None."""
        token = getattr(self.backend.model, "unk_token", None)
        return None if token is None else self.backend.token_to_id(token)

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each text, uncut and without special tokens."""
        if self.words is None or (len(texts) >= MANY and CORES > FEW):
            return self._by_library(texts)
        known: dict[str, list[int]] = {}
        rows = [_row(self.words.ids(text, known)) for text in texts]
        missing = [index for index, row in enumerate(rows) if row is None]
        for index, row in zip(missing, self._by_library([texts[index] for index in missing]), strict=True):
            rows[index] = row
        return rows  # type: ignore[return-value]

    def _by_library(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        rows: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), WINDOW):
            window = list(texts[start : start + WINDOW])
            try:
                encodings = self.backend.encode_batch_fast(window, add_special_tokens=False)
            except TypeError:  # half of a surrogate pair, which is no Unicode: the result of careless decoding
                window = [_without_surrogates(text) for text in window]
                encodings = self.backend.encode_batch_fast(window, add_special_tokens=False)
            rows.extend(np.array(encoding.ids, np.int32) for encoding in encodings)
        return rows

    def bare(self, text: str) -> list[int]:
        """Return the ids of one text as a list, uncut and without special tokens."""
        ids = None if self.words is None else self.words.ids(text)
        return self._by_library([text])[0].tolist() if ids is None else ids

    def tokenize(self, inputs: Sequence[str] | Sequence[Pair], limit: int | None) -> Tokens:
        """Return the ids of texts, or of pairs, cut to ``limit`` tokens with the special ones counted."""
        texts = [each for each in inputs if isinstance(each, str)]
        pairs = [(each[0], each[1]) for each in inputs if not isinstance(each, str)]
        if texts and pairs:
            raise ValueError("expected texts or pairs of texts, got both in one call")
        if pairs:
            return self._tokenize_pairs(pairs, limit)
        room = self._room(self.single, limit)
        rows = [self._cut(row, room) for row in self.plain(texts)]
        layout = self.single
        types = [layout.fill_types(row) for row in rows] if layout.has_types and self.wants_types else None
        return Tokens([layout.fill(row) for row in rows] if layout.added else rows, types)

    def _tokenize_pairs(self, pairs: Sequence[Pair], limit: int | None) -> Tokens:
        layout = self.pair
        if layout is None:
            raise ModelUnsupported(
                "the model's tokenizer splits or reorders pairs of texts, which is not supported; encode single texts"
            )
        distinct = list(dict.fromkeys(text for pair in pairs for text in pair))
        known = dict(zip(distinct, self.plain(distinct), strict=True))
        room = self._room(layout, limit)
        ids, types = [], []
        for first_text, second_text in pairs:
            first, second = known[first_text], known[second_text]
            if room is not None:
                keep_first, keep_second = cut_pair(first.size, second.size, room)
                first, second = self._cut(first, keep_first), self._cut(second, keep_second)
            ids.append(layout.fill(first, second))
            types.append(layout.fill_types(first, second))
        return Tokens(ids, types if self.wants_types and layout.has_types else None)

    @staticmethod
    def _room(layout: Layout, limit: int | None) -> int | None:
        if limit is None:
            return None
        if limit <= layout.added:
            raise ValueError(f"expected a maximum length above the {layout.added} special tokens, got {limit}")
        return limit - layout.added

    def _cut(self, row: NDArray[np.int32], room: int | None) -> NDArray[np.int32]:
        if room is None or row.size <= room:
            return row
        return row[:room] if self.keep_left else row[row.size - room :]

    def token(self, index: int) -> str:
        """Return the text of a token, as in the vocabulary."""
        return str(self.backend.id_to_token(index))


@dataclass(frozen=True, slots=True)
class SlowTokenizer:
    """A transformers tokenizer that is not based on the ``tokenizers`` library; it runs one call at a time."""

    shown: Any
    pad_id: int
    pad_type: int = 0
    pad_left: bool = False
    wants_types: bool = False
    model_max_length: int | None = None
    special_ids: frozenset[int] = frozenset()
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def tokenize(self, inputs: Sequence[str] | Sequence[Pair], limit: int | None) -> Tokens:
        """Return the ids of texts, or of pairs, cut to ``limit`` tokens with the special ones counted."""
        options: dict[str, object] = {"truncation": "longest_first", "max_length": limit} if limit is not None else {}
        with self._lock:
            encoded = self.shown(
                [list(each) if not isinstance(each, str) else each for each in inputs],
                return_attention_mask=False,
                return_token_type_ids=self.wants_types,
                **options,
            )
        ids = [np.array(row, np.int32) for row in encoded["input_ids"]]
        types = [np.array(row, np.int32) for row in encoded["token_type_ids"]] if self.wants_types else None
        return Tokens(ids, types)

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each text, uncut and without special tokens."""
        with self._lock:
            encoded = self.shown(list(texts), add_special_tokens=False, return_attention_mask=False)
        return [np.array(row, np.int32) for row in encoded["input_ids"]]

    def token(self, index: int) -> str:
        """Return the text of a token, as in the vocabulary."""
        return str(self.shown.convert_ids_to_tokens(index))


class AnyTokenizer(Protocol):
    """What the engine uses of a tokenizer; all of them are safe in threads."""

    @property
    def pad_id(self) -> int:
        """The id that fills up shorter texts."""
        ...

    @property
    def pad_type(self) -> int:
        """The segment number that fills up shorter texts."""
        ...

    @property
    def pad_left(self) -> bool:
        """Whether padding goes in front of a text."""
        ...

    @property
    def wants_types(self) -> bool:
        """Whether the model reads segment numbers."""
        ...

    @property
    def model_max_length(self) -> int | None:
        """The most tokens that the model reads; None for no limit."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text."""
        ...

    @property
    def shown(self) -> Any:
        """The object that a model offers as its ``tokenizer``."""
        ...

    def tokenize(self, inputs: Sequence[str] | Sequence[Pair], limit: int | None) -> Tokens:
        """Return the ids of texts, or of pairs, cut to ``limit`` tokens with the special ones counted."""
        ...

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each text, uncut and without special tokens."""
        ...

    def token(self, index: int) -> str:
        """Return the text of a token, as in the vocabulary."""
        ...


def is_length(length: object) -> TypeGuard[float]:
    """Return whether a value is a maximum length: a whole number of at least one, or infinity; not a boolean."""
    if isinstance(length, bool) or not isinstance(length, (int, float)):
        return False
    return length >= 1 and (length == inf or int(length) == length)


def finite(length: object) -> int | None:
    """Return a maximum length as a number of tokens; None for a value that sets no limit."""
    return int(length) if is_length(length) and length < UNLIMITED else None


def load_tokenizer(path: Path, *, max_length: int | None = None, own_limit: bool = False) -> TextTokenizer:
    """Return the tokenizer of a ``tokenizer.json`` without special tokens, as static models read texts.

    ``max_length`` becomes its ``model_max_length``, or with ``own_limit`` the truncation written into the file. The
    file is parsed once for all modules that share it.
    """
    try:
        stamp = path.stat()
    except FileNotFoundError as error:
        raise ModelBroken(f"{path}: the file is missing") from error
    backend, special, written, words = parse_tokenizer(path, stamp.st_size, stamp.st_mtime_ns)
    limit = written if own_limit else finite(max_length)
    return TextTokenizer(backend, BARE, None, model_max_length=limit, special_ids=special, offered=backend, words=words)


@lru_cache(maxsize=4)
def parse_tokenizer(
    path: Path, _size: int, _changed: int
) -> tuple[Tokenizer, frozenset[int], int | None, WordPieces | None]:
    """Return the tokenizer of a file, its special ids, written length and word pieces; cached, do not modify."""
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for a file it cannot read
        raise ModelBroken(f"{path}: not a readable tokenizer file: {error}") from error
    special = frozenset(index for index, token in backend.get_added_tokens_decoder().items() if token.special)
    written = (backend.truncation or {}).get("max_length")
    backend.no_padding()
    backend.no_truncation()
    return backend, special, finite(written), read_word_pieces(backend)


def pad(
    rows: Sequence[NDArray[np.int32]], value: int, *, left: bool = False, least: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows as one array [n, longest or ``least``], padded with ``value``, and the mask of real tokens."""
    width = max([least, *(row.size for row in rows)])
    ids = np.full((len(rows), width), value, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        part = slice(width - row.size, width) if left else slice(0, row.size)
        ids[index, part] = row
        mask[index, part] = 1
    return ids, mask
