"""Static models from dense teachers: one vector per token, whose mean over a text points like the teacher's vector.

The teacher's vectors of single tokens are reduced to their principal axes and weighted by the rarity of the tokens, as
in model2vec. With texts, one linear map of all token vectors, by ridge regression, turns the means of the texts towards
the teacher's vectors of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from st_core.distilling.tokenizers import text_tokenizer
from st_core.distilling.vectors import Axes, Floats, principal_axes, unit
from st_core.models import Normalize, StaticEmbedding
from st_core.sentence_transformer import SentenceTransformer
from st_core.text.tokens import TextTokenizer, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

__all__ = ["counted", "inverse_frequency", "ridge", "static_model", "token_vectors", "zipf_shares"]

SMOOTH = 1e-4
"""The constant a of Arora et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (2017)."""

RIDGE = 1e-3
"""The penalty of the regression, as a share of the mean variance of its inputs."""

CHARACTER_RANK = 10
"""The rank by frequency of single ASCII characters: punctuation, and letters such as a."""

_BRACKETED = re.compile(r"\[[^\]]+\]|<[^>]+>")


def static_model(
    teacher: SentenceTransformer, texts: Sequence[str] | None = None, dimensions: int = 256
) -> SentenceTransformer:
    """Return a static dense model of a teacher, with its tokenizer; its vectors have unit length.

    ``texts`` are texts of the domain, from a few thousand on. They provide the frequencies of tokens, and the targets
    of the regression. Without texts, words are ranked by their ids, as in most vocabularies. Raises ModelUnsupported
    for a teacher without a tokenizer of the tokenizers library, and ValueError for more dimensions than the teacher or
    the number of texts has.
    """
    tokenizer = text_tokenizer(teacher)
    tokens = token_vectors(teacher)
    special = sorted(tokenizer.special_ids)
    if not texts:
        axes = principal_axes(tokens, dimensions)
        mean = tokens.mean(axis=0)
        shares = zipf_shares([tokenizer.token(index) for index in range(len(tokens))])
        table = (tokens - mean) @ axes.directions.T * inverse_frequency(shares)[:, None]
    else:
        frequency = counted(tokenizer, texts, len(tokens))
        table = _regressed(teacher, tokenizer, tokens * inverse_frequency(frequency)[:, None], texts, dimensions)
    table[special] = 0
    return _model(tokenizer, table, teacher)


def token_vectors(teacher: SentenceTransformer) -> Floats:
    """Return the teacher's vectors of texts of one token [V, d], in the order of the vocabulary.

    Raises ModelUnsupported for a teacher without a tokenizer of the tokenizers library.
    """
    tokenizer = text_tokenizer(teacher)
    size = max(tokenizer.backend.get_vocab(with_added_tokens=True).values()) + 1
    rows = [tokenizer.single.fill(np.array([index], np.int32)) for index in range(size)]
    prepared = replace(teacher.prepare(["a"]), tokens=Tokens(rows), prompt_length=0)
    return np.asarray(teacher.finish(teacher.compute([prepared])[0]), np.float32)


def zipf_shares(tokens: Sequence[str]) -> Floats:
    """Return the shares of tokens [V] in running text by Zipf's law, where words are ranked in their order.

    Single ASCII characters, which come first in many vocabularies, get the share of a frequent word. Tokens in brackets
    such as ``[unused7]`` are no words.
    """
    bare = [token.removeprefix("##").strip("\u0120\u2581") for token in tokens]
    is_character = np.array([len(token) <= 1 and token.isascii() for token in bare])
    is_word = ~is_character & np.array([not _BRACKETED.fullmatch(token) for token in bare])
    places = np.where(is_word, is_word.cumsum(), len(tokens))
    shares = 1 / np.where(is_character, CHARACTER_RANK, places)
    return np.asarray(shares / (1 / np.arange(1, len(tokens) + 1)).sum(), np.float32)


def counted(tokenizer: TextTokenizer, texts: Sequence[str], size: int) -> Floats:
    """Return the share of each token [V] in texts, with one more occurrence of each, so that none is zero."""
    counts = np.ones(size)
    for row in tokenizer.plain(texts):
        counts += np.bincount(row, minlength=size)
    return np.asarray(counts / counts.sum(), np.float32)


def inverse_frequency(shares: Floats) -> Floats:
    """Return the weight a / (a + p) of tokens with the share p in running text."""
    return np.asarray(SMOOTH / (SMOOTH + shares), np.float32)


def _regressed(
    teacher: SentenceTransformer, tokenizer: TextTokenizer, weighted: Floats, texts: Sequence[str], dimensions: int
) -> Floats:
    """Return the table [V, k] of weighted token vectors [V, d] that turns the means of texts towards the teacher's."""
    targets = np.asarray(teacher.encode(list(texts)), np.float32)
    axes: Axes = principal_axes(targets, dimensions)
    means = _model(tokenizer, weighted, teacher).encode(list(texts))
    table = weighted @ ridge(np.asarray(means), unit(targets @ axes.directions.T))
    return np.asarray(table / np.linalg.norm(table, axis=1).mean(), np.float32)


def ridge(inputs: Floats, goals: Floats) -> Floats:
    """Return the matrix [d, k] with the least squared error of ``inputs @ matrix`` [n, k] from goals, with a penalty.

    It is computed in float64.
    """
    rows = inputs.astype(np.float64)
    square = rows.T @ rows
    square += (RIDGE * np.trace(square) / len(square) + 1e-12) * np.eye(len(square))
    return np.asarray(np.linalg.solve(square, rows.T @ goals.astype(np.float64)), np.float32)


def _model(tokenizer: TextTokenizer, table: NDArray[np.float32], teacher: SentenceTransformer) -> SentenceTransformer:
    modules = [StaticEmbedding(_plain(tokenizer.backend), table), Normalize()]
    return SentenceTransformer(modules=modules, device=teacher._engine.plan.device)  # noqa: SLF001 - of this package


def _plain(backend: Tokenizer) -> Tokenizer:
    """Return a tokenizer that neither cuts nor pads texts, and adds no special tokens."""
    from tokenizers import Tokenizer

    value = json.loads(backend.to_str()) | {"truncation": None, "padding": None, "post_processor": None}
    return Tokenizer.from_str(json.dumps(value))
