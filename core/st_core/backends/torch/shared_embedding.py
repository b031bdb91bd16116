"""Token embedding tables in training: the sparse gradients of all their uses are added up once.

torch computes the gradient of a table [V, d] as a whole matrix for each use of the table. A training that divides a
batch into parts uses it once or twice for each part, and a part has few of its words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SharedEmbedding", "accepting_sparse_gradients", "make_shareable", "sparse_gradient"]


class _FromRows(torch.autograd.Function):
    """A table whose sparse gradient is passed on as a matrix."""

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


def accepting_sparse_gradients(table: Tensor) -> Tensor:
    """Return a table [V, d] for several uses whose gradients may be sparse; see :func:`sparse_gradient`."""
    result: Tensor = _FromRows.apply(table)
    return result


def sparse_gradient(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """Return the gradient of a table, of which only ``rows`` [n] are not zero, from the values [n, d] of those."""
    return torch.sparse_coo_tensor(rows[None], values, table.shape, check_invariants=False)


class SharedEmbedding(nn.Embedding):
    """A table of token embeddings; ``shared``, from :func:`accepting_sparse_gradients`, is read in its place if set."""

    shared: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of tokens."""
        if self.shared is None:
            return super().forward(ids)
        return functional.embedding(ids, self.shared, self.padding_idx, sparse=True)


def make_shareable(model: Any) -> SharedEmbedding | None:
    """Change a model's token embedding table in place, so that it can be shared; return None for another kind."""
    table: Any = model.get_input_embeddings()
    if type(table) is not nn.Embedding or table.max_norm is not None or table.scale_grad_by_freq:
        return None
    table.__class__ = SharedEmbedding
    assert isinstance(table, SharedEmbedding)
    return table
