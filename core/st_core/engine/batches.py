"""Divide inputs into batches within a token budget, and restore the order of the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Rows

__all__ = ["Budget", "cut", "empty_rows", "joined", "restore", "run_batches"]

Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Budget:
    """The size limits of a batch.

    ``tokens`` limits the number of tokens of all rows, and ``padding`` times ``tokens`` the number of rows times the
    number of tokens of the longest row; an input longer than ``tokens`` is a batch of its own. ``rows`` limits the
    number of rows, None for no limit. With ``even`` a batch contains only inputs of equal length, so that nothing is
    padded.
    """

    tokens: int
    rows: int | None = None
    even: bool = False
    padding: float = 1.0

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"the token budget must be positive, got {self.tokens}")
        if self.padding < 1:
            raise ValueError(f"the padding must be 1 or more, got {self.padding}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"batch_size must be a positive integer, got {self.rows}")


def cut(lengths: NDArray[np.int64], budget: Budget) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of the inputs of each batch, longest inputs first, so that lengths in a batch are similar.

    ``lengths`` [n] are the numbers of tokens of the inputs. Every position occurs once. Inputs of equal length keep
    their order.
    """
    order = np.argsort(-lengths, kind="stable")
    yield from _slices(order, lengths, budget)


def _slices(order: NDArray[np.int64], lengths: NDArray[np.int64], budget: Budget) -> Iterator[NDArray[np.int64]]:
    start = 0
    while start < order.size:
        widest = max(1, int(lengths[order[start]]))
        rows = max(1, int(budget.tokens * budget.padding) // widest)
        if budget.padding > 1:
            sums = np.cumsum(lengths[order[start : start + rows]])
            rows = max(1, int(np.searchsorted(sums, budget.tokens, side="right")))
        if budget.rows is not None:
            rows = min(rows, budget.rows)
        if budget.even:
            rows = int(np.count_nonzero(lengths[order[start : start + rows]] == lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def run_batches(
    lengths: NDArray[np.int64],
    budget: Budget,
    run: Callable[[NDArray[np.int64]], Result],
    out_of_memory: Callable[[Exception], bool],
) -> Iterator[tuple[NDArray[np.int64], Result]]:
    """Run every batch, and yield its positions and its result.

    If ``run`` raises a RuntimeError for which ``out_of_memory`` returns True, the token budget is halved for the rest
    of this call, in which padding counts, and the inputs of the failed batch are run again in smaller batches.
    The error is raised for a batch of one input.
    """
    pending = list(cut(lengths, budget))[::-1]
    while pending:
        positions = pending.pop()
        try:
            result = run(positions)
        except RuntimeError as error:
            if positions.size <= 1 or not out_of_memory(error):
                raise
            spent = int(positions.size) * max(1, int(lengths[positions[0]]))
            budget = replace(budget, tokens=max(1, min(budget.tokens, spent) // 2), padding=1.0)
            left = np.concatenate([positions, *pending[::-1]])
            pending = list(_slices(left, lengths, budget))[::-1]
            continue
        yield positions, result


def restore(items: Sequence[tuple[NDArray[np.int64], Sequence[Item]]], count: int) -> list[Item]:
    """Return the items of all batches in the order of the inputs; each batch is a pair of positions and items.

    ``count`` is the number of inputs.
    """
    placed: dict[int, Item] = {}
    for positions, batch in items:
        placed.update(zip(positions.tolist(), batch, strict=True))
    return [placed[index] for index in range(count)]


def empty_rows(part: Rows, rows: int) -> Rows:
    """Return an uninitialised array or tensor with ``rows`` rows and the dtype, row shape and device of ``part``."""
    if isinstance(part, np.ndarray):
        return np.empty((rows, *part.shape[1:]), part.dtype)
    return part.new_empty((rows, *part.shape[1:]))


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the concatenation of arrays, or of tensors, along their rows."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from torch import cat

    return cat(list(parts))
