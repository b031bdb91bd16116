"""The word table of a transformer in training: the gradients of its uses are rows, which are added up once.

torch computes the gradient of a table [V, d] as a whole matrix for each use of the table. A training that divides a
batch into parts uses it once or twice for each part, and a part has few of its words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["WordTable", "gradient_rows", "with_gradient_rows", "word_table"]


class _FromRows(torch.autograd.Function):
    """A table whose gradient arrives as rows, in a sparse tensor, and is passed on as a matrix."""

    @staticmethod
    def forward(_ctx: Any, table: Tensor) -> Tensor:
        """Return the table."""
        return table.view_as(table)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum of all rows as a matrix."""
        gradient = gradients[0]
        if not gradient.is_sparse:
            return gradient
        rows, values = gradient._indices()[0], gradient._values()  # noqa: SLF001 - the public ones need unique rows
        return torch.zeros_like(gradient, layout=torch.strided).index_add_(0, rows, values)


def with_gradient_rows(table: Tensor) -> Tensor:
    """Return a table [V, d] for several uses whose gradients may be rows; see :func:`gradient_rows`."""
    result: Tensor = _FromRows.apply(table)
    return result


def gradient_rows(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """Return the gradient of a table, of which only ``rows`` [n] are not zero, from the values [n, d] of those."""
    return torch.sparse_coo_tensor(rows[None], values, table.shape, check_invariants=False)


class WordTable(nn.Embedding):
    """A word table that is read from ``shared`` while that is set: the result of :func:`with_gradient_rows`."""

    shared: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of words."""
        if self.shared is None:
            return super().forward(ids)
        return functional.embedding(ids, self.shared, self.padding_idx, sparse=True)


def word_table(model: Any) -> WordTable | None:
    """Make the word table of a model one that can be shared; return None where the model has another kind of table."""
    table: Any = model.get_input_embeddings()
    if type(table) is not nn.Embedding or table.max_norm is not None or table.scale_grad_by_freq:
        return None
    table.__class__ = WordTable
    assert isinstance(table, WordTable)
    return table
