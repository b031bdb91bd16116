"""Cutting inputs into batches by a budget of tokens, and putting results back in order; pure, and knows nothing of tensors."""

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
    """How large a batch may be: ``tokens`` counted with padding (rows times the longest), and ``rows``, or None for any number.

    A single input longer than ``tokens`` makes a batch of its own. ``even`` says that a batch holds inputs of one length, so that nothing is padded.
    """

    tokens: int
    rows: int | None = None
    even: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"a budget of {self.tokens} tokens holds nothing")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"batch_size must be a positive integer, got {self.rows}")


def cut(lengths: NDArray[np.int64], budget: Budget) -> Iterator[NDArray[np.int64]]:
    """Positions of the inputs batch by batch, longest inputs first, so that a batch holds inputs of about one length.

    ``lengths`` [n] are tokens per input; every position comes exactly once. Inputs of one length keep their order.
    """
    order = np.argsort(-lengths, kind="stable")
    yield from _slices(order, lengths, budget)


def _slices(order: NDArray[np.int64], lengths: NDArray[np.int64], budget: Budget) -> Iterator[NDArray[np.int64]]:
    start = 0
    while start < order.size:
        widest = max(1, int(lengths[order[start]]))
        rows = max(1, budget.tokens // widest)
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
    """Run every batch, and give its positions with its result.

    Where ``run`` raises an error that ``out_of_memory`` knows, the budget is halved for what is left of this call and the batch goes again
    in smaller ones; a batch of one input that still does not fit raises the error.
    """
    waiting = list(cut(lengths, budget))[::-1]
    while waiting:
        positions = waiting.pop()
        try:
            result = run(positions)
        except RuntimeError as error:
            if positions.size <= 1 or not out_of_memory(error):
                raise
            spent = int(positions.size) * max(1, int(lengths[positions[0]]))
            budget = replace(budget, tokens=max(1, min(budget.tokens, spent) // 2))
            left = np.concatenate([positions, *waiting[::-1]])
            waiting = list(_slices(left, lengths, budget))[::-1]
            continue
        yield positions, result


def restore(items: Sequence[tuple[NDArray[np.int64], Sequence[Item]]], count: int) -> list[Item]:
    """Items given batch by batch, as one list in the order of the inputs."""
    placed: dict[int, Item] = {}
    for positions, batch in items:
        placed.update(zip(positions.tolist(), batch, strict=True))
    return [placed[index] for index in range(count)]


def empty_rows(part: Rows, rows: int) -> Rows:
    """Return an uninitialised array or tensor of the dtype, width and device of ``part`` with ``rows`` rows."""
    if isinstance(part, np.ndarray):
        return np.empty((rows, *part.shape[1:]), part.dtype)
    return part.new_empty((rows, *part.shape[1:]))


def joined(parts: Sequence[Rows]) -> Rows:
    """Return arrays or tensors that follow each other as one."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from torch import cat

    return cat(list(parts))
