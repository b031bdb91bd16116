"""Tokens of texts that a training reads more than once: those of the first epoch are used in the others too."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from xxhash import xxh3_128_digest

from st_core.text.tokens import Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.engine.inputs import Input

__all__ = ["LIMIT", "TokenRows"]

LIMIT = 1 << 28
"""The number of bytes that are stored."""

OVERHEAD = 320
"""Bytes of a row besides its ids: two numpy headers, a tuple, and the entry of a dict with its key."""

Row: TypeAlias = "tuple[NDArray[np.int32], NDArray[np.int32] | None]"


class TokenRows:
    """Tokens by the hash of a text and by the options they were computed with, up to a number of bytes.

    When the limit is reached, no more rows are stored: an epoch reads each text once, so that the row that was not used
    for the longest time is the next one that is needed.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        """Store the limit; there are no rows yet."""
        self._left = limit
        self._rows: dict[tuple[Hashable, bytes], Row] = {}

    def tokens(
        self, inputs: Sequence[Input], options: Hashable, tokenize: Callable[[Sequence[Input]], Tokens]
    ) -> Tokens:
        """Return the tokens of texts or pairs [n]; ``tokenize`` computes those of inputs that have no rows."""
        keys = [(options, _digest(each)) for each in inputs]
        missing = {key: each for key, each in zip(keys, inputs, strict=True) if key not in self._rows}
        new = dict(zip(missing, _rows_of(tokenize(list(missing.values()))), strict=True)) if missing else {}
        rows = [new[key] if key in new else self._rows[key] for key in keys]
        for key, row in new.items():
            size = OVERHEAD + row[0].nbytes * (1 if row[1] is None else 2)
            if size <= self._left:
                self._rows[key] = row
                self._left -= size
        has_types = any(types is not None for _, types in rows)
        types = [ids * 0 if own is None else own for ids, own in rows] if has_types else None
        return Tokens([ids for ids, _ in rows], types)


def _digest(text: Input) -> bytes:
    """Return a hash of a text, or of both texts of a pair and the length of the first."""
    if isinstance(text, str):
        return xxh3_128_digest(text.encode("utf-8", "surrogatepass"))
    first, second = (each.encode("utf-8", "surrogatepass") for each in text)
    return xxh3_128_digest(b"%d:%b%b" % (len(first), first, second))


def _rows_of(tokens: Tokens) -> list[Row]:
    """Return the rows of tokens as copies, because a row may be a view of a larger array."""
    types = [None] * len(tokens) if tokens.types is None else [np.array(each) for each in tokens.types]
    return list(zip([np.array(each) for each in tokens.ids], types, strict=True))
