"""Convert texts to token ids, without state that is shared between calls.

A tokenizer of the ``tokenizers`` library stores truncation and padding as mutable state, so two threads that use
different maximum lengths would interfere with each other. This module therefore uses the library only to convert text
to ids. It truncates the ids and adds the special tokens itself, in the layout that the library produced for a probe
text. The order of these steps is that of the library, so the ids are equal to the library's.
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
    from transformers import PreTrainedTokenizerBase

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
"""A ``model_max_length`` of at least this value means that there is no limit; transformers writes 10**30."""

WINDOW = 4096
"""The number of texts per call of the library, limited because its results are about 100 times the size of the ids."""

MANY, FEW = 256, 4
"""For at least MANY texts on more than FEW cores, the library is used, whose threads are faster than one Python thread.

Measured on two cores: one Python thread takes a third of the time that the library takes on both.
"""

CORES = os.cpu_count() or 1

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token ids of each input, special tokens included.

    ``types`` are the segment numbers of the tokens, None if all are 0.
    """

    ids: list[NDArray[np.int32]]
    types: list[NDArray[np.int32]] | None = None

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.ids)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each input [n]."""
        return np.fromiter((row.size for row in self.ids), np.int64, len(self.ids))

    def take(self, positions: Iterable[int]) -> Tokens:
        """Return the tokens of the inputs at the specified positions."""
        chosen = list(positions)
        types = None if self.types is None else [self.types[position] for position in chosen]
        return Tokens([self.ids[position] for position in chosen], types)


@dataclass(frozen=True, slots=True)
class Layout:
    """The positions of special tokens around the texts of an input: ``fixed[0] text[0] fixed[1] text[1] … fixed[-1]``.

    ``fixed`` are the ids of the special tokens and ``fixed_types`` their segment numbers. ``content_types`` contains
    one segment number for each text, that of all its tokens.
    """

    fixed: tuple[NDArray[np.int32], ...]
    fixed_types: tuple[NDArray[np.int32], ...]
    content_types: tuple[int, ...]

    @property
    def added(self) -> int:
        """The total number of special tokens."""
        return sum(part.size for part in self.fixed)

    @property
    def has_types(self) -> bool:
        """Whether any segment number is not 0."""
        return any(self.content_types) or any(bool(part.any()) for part in self.fixed_types)

    def fill(self, *contents: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the ids of one input from the ids of its texts."""
        parts = [self.fixed[0]]
        for content, after in zip(contents, self.fixed[1:], strict=True):
            parts += (content, after)
        return np.concatenate(parts)

    def fill_types(self, *contents: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the segment numbers of one input from the ids of its texts."""
        parts = [self.fixed_types[0]]
        for content, kind, after in zip(contents, self.content_types, self.fixed_types[1:], strict=True):
            parts += (np.full(content.size, kind, np.int32), after)
        return np.concatenate(parts)


_NONE = np.empty(0, np.int32)
BARE = Layout((_NONE, _NONE), (_NONE, _NONE), (0,))
BARE_PAIR = Layout((_NONE, _NONE, _NONE), (_NONE, _NONE, _NONE), (0, 1))


def read_layout(backend: Tokenizer, *, pair: bool) -> Layout | None:
    """Return the special tokens that a tokenizer adds around a text, or with ``pair`` around a pair of texts.

    None if the tokenizer splits or reorders the texts.
    """
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
    """Return the numbers of tokens to which the texts of a pair are cut, so that they have ``limit`` tokens together.

    The longer text is cut first, then both texts evenly. The result equals that of the strategy ``longest_first`` of
    the tokenizers library, also in which text keeps one more token if ``limit`` is odd.
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
    """Return a text with each surrogate pair joined to one character and each lone surrogate replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Later:
    """An object that is created on first use; safe in threads."""

    def __init__(self, create: Callable[[], object]) -> None:
        """Store ``create``, which returns the object and is called once."""
        self._create = create
        self._created: list[object] = []
        self._lock = threading.Lock()

    def __call__(self) -> object:
        """Return the object, created by the first call."""
        with self._lock:
            if not self._created:
                self._created.append(self._create())
            return self._created[0]


@dataclass(frozen=True, slots=True)
class TextTokenizer:
    """A tokenizer of the ``tokenizers`` library and its layouts; safe in threads, because it is never modified.

    ``single`` and ``pair`` are the layouts of a text and of a pair of texts. ``pad_left`` is True if padding is added
    in front of a text. ``keep_left`` is False if the beginning of a long text is cut off, not its end. ``wants_types``
    is True if the model reads segment numbers. ``special_ids`` are the ids of special tokens. ``offered`` is the value
    of the model's ``tokenizer`` attribute, or a :class:`Later` that creates it. ``words`` is the faster tokenizer for
    most texts, where the tokenizer is BERT's.
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
        """The value of the model's ``tokenizer`` attribute."""
        return self.offered() if isinstance(self.offered, Later) else self.offered

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens in the vocabulary, added tokens included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def unknown_id(self) -> int | None:
        """The id of the token for unknown text, or None if there is no such token."""
        token = getattr(self.backend.model, "unk_token", None)
        return None if token is None else self.backend.token_to_id(token)

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each text, not truncated and without special tokens."""
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
            except TypeError:  # a lone surrogate, which is not valid Unicode: the result of careless decoding
                window = [_without_surrogates(text) for text in window]
                encodings = self.backend.encode_batch_fast(window, add_special_tokens=False)
            rows.extend(np.array(encoding.ids, np.int32) for encoding in encodings)
        return rows

    def bare(self, text: str) -> list[int]:
        """Return the ids of one text as a list, not truncated and without special tokens."""
        ids = None if self.words is None else self.words.ids(text)
        return self._by_library([text])[0].tolist() if ids is None else ids

    def tokenize(self, inputs: Sequence[str] | Sequence[Pair], limit: int | None) -> Tokens:
        """Return the ids of texts, or of pairs, truncated to ``limit`` tokens, special tokens included."""
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
        """Return the token with an id, as written in the vocabulary."""
        return str(self.backend.id_to_token(index))


@dataclass(frozen=True, slots=True)
class SlowTokenizer:
    """A transformers tokenizer that is not based on the ``tokenizers`` library; it runs one call at a time."""

    shown: PreTrainedTokenizerBase
    pad_id: int
    pad_type: int = 0
    pad_left: bool = False
    wants_types: bool = False
    model_max_length: int | None = None
    special_ids: frozenset[int] = frozenset()
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def tokenize(self, inputs: Sequence[str] | Sequence[Pair], limit: int | None) -> Tokens:
        """Return the ids of texts, or of pairs, truncated to ``limit`` tokens, special tokens included."""
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
        """Return the ids of each text, not truncated and without special tokens."""
        with self._lock:
            encoded = self.shown(list(texts), add_special_tokens=False, return_attention_mask=False)
        return [np.array(row, np.int32) for row in encoded["input_ids"]]

    def token(self, index: int) -> str:
        """Return the token with an id, as written in the vocabulary."""
        return str(self.shown.convert_ids_to_tokens(index))


class AnyTokenizer(Protocol):
    """The attributes and methods of a tokenizer that the engine uses; implementations are safe in threads."""

    @property
    def pad_id(self) -> int:
        """The token id that shorter texts are padded with."""
        ...

    @property
    def pad_type(self) -> int:
        """The segment number that shorter texts are padded with."""
        ...

    @property
    def pad_left(self) -> bool:
        """Whether padding is added in front of a text."""
        ...

    @property
    def wants_types(self) -> bool:
        """Whether the model reads segment numbers."""
        ...

    @property
    def model_max_length(self) -> int | None:
        """The maximum number of tokens of a text; None for no limit."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of special tokens, which represent no text."""
        ...

    @property
    def shown(self) -> Any:
        """The value of the model's ``tokenizer`` attribute."""
        ...

    def tokenize(self, inputs: Sequence[str] | Sequence[Pair], limit: int | None) -> Tokens:
        """Return the ids of texts, or of pairs, truncated to ``limit`` tokens, special tokens included."""
        ...

    def plain(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the ids of each text, not truncated and without special tokens."""
        ...

    def token(self, index: int) -> str:
        """Return the token with an id, as written in the vocabulary."""
        ...


def is_length(length: object) -> TypeGuard[float]:
    """Return whether a value is a valid maximum length: an integer of at least 1, or infinity; not a boolean.

    Floats with an integer value are valid.
    """
    if isinstance(length, bool) or not isinstance(length, (int, float)):
        return False
    return length >= 1 and (length == inf or int(length) == length)


def finite(length: object) -> int | None:
    """Return a maximum length as an integer; None for a value that is invalid, infinite or at least UNLIMITED."""
    return int(length) if is_length(length) and length < UNLIMITED else None


def load_tokenizer(path: Path, *, max_length: int | None = None, own_limit: bool = False) -> TextTokenizer:
    """Return the tokenizer of a static model from a file ``tokenizer.json``; it adds no special tokens.

    ``max_length`` becomes the ``model_max_length`` of the tokenizer; with ``own_limit`` the truncation length in the
    file is used instead. Raises ModelBroken if the file is missing or not readable.
    """
    backend, special, written, words = parse_tokenizer(path)
    limit = written if own_limit else finite(max_length)
    return TextTokenizer(backend, BARE, None, model_max_length=limit, special_ids=special, offered=backend, words=words)


def parse_tokenizer(path: Path) -> tuple[Tokenizer, frozenset[int], int | None, WordPieces | None]:
    """Return the tokenizer in a file, the ids of its special tokens, the truncation length, and its word pieces.

    Equal files, as those of the built-in models, are parsed once and share the result: do not modify it. Raises
    ModelBroken if the file is missing or not readable.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelBroken(f"{path}: the file is missing") from error
    try:
        return _parse(content)
    except Exception as error:  # the library raises plain Exception for a file it cannot read
        raise ModelBroken(f"{path}: not a readable tokenizer file: {error}") from error


@lru_cache(maxsize=4)
def _parse(content: bytes) -> tuple[Tokenizer, frozenset[int], int | None, WordPieces | None]:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_buffer(content)
    special = frozenset(index for index, token in backend.get_added_tokens_decoder().items() if token.special)
    written = (backend.truncation or {}).get("max_length")
    backend.no_padding()
    backend.no_truncation()
    return backend, special, finite(written), read_word_pieces(backend)


def pad(
    rows: Sequence[NDArray[np.int32]], value: int, *, left: bool = False, least: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows of ids as one array [n, length], padded with ``value``, and its mask [n, length], 0 for padding.

    The length is that of the longest row, at least ``least``. With ``left`` the padding is added in front of the rows.
    """
    width = max([least, *(row.size for row in rows)])
    ids = np.full((len(rows), width), value, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        part = slice(width - row.size, width) if left else slice(0, row.size)
        ids[index, part] = row
        mask[index, part] = 1
    return ids, mask
