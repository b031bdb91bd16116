"""Requests between the three steps of encoding: ``prepare``, ``compute`` and ``finish``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from st_core.engine.options import CallOptions
from st_core.text.tokens import Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Computed", "Prepared", "batches_within", "joined_tokens", "prompt_lengths"]

Rows_co = TypeVar("Rows_co", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """The tokens of one request, with the options that they are computed with.

    ``prompt_length`` is the number of leading tokens of each input that belong to the prompt. ``is_single`` is True if
    the request was a single input and not a list of inputs.
    """

    tokens: Tokens
    options: CallOptions
    prompt_length: int = 0
    is_single: bool = False

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of each input [n] after truncation, prompt and special tokens included."""
        return self.tokens.lengths

    def take(self, positions: Iterable[int]) -> Prepared:
        """Return a request for the inputs at the specified positions."""
        return replace(self, tokens=self.tokens.take(positions))


@dataclass(frozen=True, slots=True, eq=False)
class Computed(Generic[Rows_co]):
    """The output of a model for one request, with one row for each input in order.

    ``finish`` converts it to the result of the request. ``batches`` contains, for each batch, the positions of the rows
    that were computed together.
    """

    rows: Rows_co
    prepared: Prepared
    batches: tuple[NDArray[np.int64], ...] = ()


def batches_within(batches: Sequence[NDArray[np.int64]], start: int, count: int) -> tuple[NDArray[np.int64], ...]:
    """Return the batches of one request from the batches of several requests that were computed together.

    The request's inputs are the ``count`` inputs that begin at ``start``; its positions are counted from ``start``.
    Batches without inputs of the request are left out.
    """
    own = (positions[(positions >= start) & (positions < start + count)] - start for positions in batches)
    return tuple(positions for positions in own if positions.size)


def joined_tokens(requests: Sequence[Prepared]) -> Tokens:
    """Return the tokens of several requests as one batch."""
    if len(requests) == 1:
        return requests[0].tokens
    ids = [row for request in requests for row in request.tokens.ids]
    if all(request.tokens.types is None for request in requests):
        return Tokens(ids)
    types = [
        row
        for request in requests
        for row in (request.tokens.types or [np.zeros_like(each) for each in request.tokens.ids])
    ]
    return Tokens(ids, types)


def prompt_lengths(requests: Sequence[Prepared]) -> NDArray[np.int64] | None:
    """Return the prompt length of each input [n], or None if no request has a prompt."""
    if not any([request.prompt_length for request in requests]):  # noqa: C419 - a list is faster for one request
        return None
    return np.repeat(
        np.array([request.prompt_length for request in requests], np.int64), [len(request) for request in requests]
    )
