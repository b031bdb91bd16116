"""What a request of any protocol asks of the models, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from st_core.protocols import ModelKind
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Call",
    "Decode",
    "Embed",
    "EmbedSparse",
    "EmbedTokens",
    "Pair",
    "Reading",
    "Result",
    "Role",
    "Scale",
    "Score",
    "Scores",
    "SparseVectors",
    "Text",
    "Texts",
    "Token",
    "TokenLists",
    "TokenVectors",
    "Tokenize",
    "Usage",
    "Vectors",
    "kind_of",
]

Text: TypeAlias = str | tuple[int, ...]
"""A text, or the ids of its tokens."""

Pair: TypeAlias = tuple[str, str]


class Role(StrEnum):
    """What a text is used as; a model may encode queries and documents differently."""

    QUERY = "query"
    DOCUMENT = "document"


class Scale(StrEnum):
    """The scale of scores: after the model's own activation, logits, or between 0 and 1."""

    OWN = "own"
    RAW = "raw"
    UNIT = "unit"


@dataclass(frozen=True, slots=True)
class Reading:
    """How the texts of a call are tokenized.

    ``role`` None reads a text as ``encode`` does, without a task. ``truncate`` None means the default of the server.
    ``keep_end`` cuts the beginning of a long text off. ``max_tokens`` is a lower maximum length than that of the model.
    """

    role: Role | None = None
    prompt_name: str | None = None
    prompt: str | None = None
    truncate: bool | None = None
    keep_end: bool = False
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Embed:
    """Dense vectors of texts.

    ``normalize`` None scales vectors to unit length if the model compares vectors by cosine. ``dimensions`` cuts them
    before that.
    """

    model: str | None
    texts: tuple[Text, ...]
    reading: Reading = Reading()
    normalize: bool | None = None
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class EmbedTokens:
    """The dense vectors of all tokens of texts."""

    model: str | None
    texts: tuple[Text, ...]
    reading: Reading = Reading()


@dataclass(frozen=True, slots=True)
class EmbedSparse:
    """Sparse vectors of texts, with at most ``max_active_dims`` weights each; None for the model's own limit."""

    model: str | None
    texts: tuple[Text, ...]
    reading: Reading = Reading()
    max_active_dims: int | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of pairs of texts; with ``is_ranking`` the model must have one label."""

    model: str | None
    pairs: tuple[Pair, ...]
    reading: Reading = Reading()
    scale: Scale = Scale.UNIT
    is_ranking: bool = True


@dataclass(frozen=True, slots=True)
class Tokenize:
    """The tokens of texts with their places, not truncated."""

    model: str | None
    texts: tuple[str, ...]
    add_special_tokens: bool = True
    prompt_name: str | None = None


@dataclass(frozen=True, slots=True)
class Decode:
    """The texts of token ids."""

    model: str | None
    ids: tuple[tuple[int, ...], ...]
    skip_special_tokens: bool = True


Call: TypeAlias = Embed | EmbedTokens | EmbedSparse | Score | Tokenize | Decode

_KINDS: Mapping[type, ModelKind] = {
    Embed: ModelKind.DENSE,
    EmbedTokens: ModelKind.DENSE,
    EmbedSparse: ModelKind.SPARSE,
    Score: ModelKind.RERANKER,
}


def kind_of(call: Call) -> ModelKind | None:
    """Return the kind of model that a call needs; None if any model serves."""
    return _KINDS.get(type(call))


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """The model that answered, the number of tokens of each input [n], and whether each was truncated [n].

    ``tokenize_s``, ``queue_s`` and ``compute_s`` are seconds.
    """

    model: str
    tokens: NDArray[np.int64]
    is_truncated: NDArray[np.bool_]
    tokenize_s: float = 0.0
    queue_s: float = 0.0
    compute_s: float = 0.0

    @property
    def total(self) -> int:
        """The number of tokens of all inputs."""
        return int(self.tokens.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Dense vectors, float32 [n, d]."""

    usage: Usage
    rows: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """The vectors of the tokens of each text, each float32 [tokens, d]."""

    usage: Usage
    rows: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True, eq=False)
class SparseVectors:
    """Sparse vectors, and the token of each index; the tokens are empty for a model without a vocabulary."""

    usage: Usage
    matrix: SparseMatrix
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores, float32 [n, labels], and the names of the labels."""

    usage: Usage
    values: NDArray[np.float32]
    labels: tuple[str, ...] = ("LABEL_0",)


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its place in the text; a special token has no place."""

    id: int
    text: str
    is_special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True, eq=False)
class TokenLists:
    """The tokens of each text."""

    usage: Usage
    rows: tuple[tuple[Token, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Texts."""

    usage: Usage
    rows: tuple[str, ...]


Result: TypeAlias = Vectors | TokenVectors | SparseVectors | Scores | TokenLists | Texts
