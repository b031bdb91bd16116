"""Convert sparse vectors, filters and hybrid queries for use with your own collection and client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from qdrant_client import models

from st_connectors.filters import Filter
from st_connectors.qdrant import filters, wire
from st_connectors.schema import Rrf
from st_core.vectors import SparseMatrix, SparseVector

__all__ = ["filter_to_qdrant", "hybrid_query", "sparse_vector"]

SparseLike: TypeAlias = Any
"""A SparseVector, a SparseMatrix of one row, a mapping from index to weight, or one row of a scipy or torch sparse
matrix."""


def sparse_vector(value: SparseLike) -> models.SparseVector:
    """Convert one sparse vector to the model of qdrant-client, with rising indices and positive weights.

    Accepts a ``SparseVector``, a ``SparseMatrix`` of one row, a mapping from index to weight, a dense row [V], and one
    row of a scipy or torch sparse matrix ([V] or [1, V]). Raises ValueError for more than one row.
    """
    return models.SparseVector(**wire.to_sparse_body(_to_vector(value)))


def _to_vector(value: SparseLike) -> SparseVector:
    if isinstance(value, SparseVector):
        return value
    if isinstance(value, Mapping):
        return SparseVector.from_mapping(value)
    if isinstance(value, SparseMatrix):
        return _row(value)
    if hasattr(value, "tocsr"):
        return _row(SparseMatrix.from_scipy(value.reshape(1, -1) if len(value.shape) == 1 else value))
    if hasattr(value, "detach"):
        return _from_torch(value.detach().cpu())
    array = np.asarray(value)
    return SparseVector.from_dense(_flat(array))


def _row(matrix: SparseMatrix) -> SparseVector:
    if len(matrix) != 1:
        raise ValueError(f"expected one row, got a matrix of {len(matrix)}; convert row by row")
    return matrix[0]


def _from_torch(tensor: Any) -> SparseVector:
    if str(tensor.layout) == "torch.strided":
        return SparseVector.from_dense(_flat(tensor.float().numpy()))
    coo = tensor.to_sparse_coo().coalesce()
    if coo.ndim == 2 and coo.shape[0] != 1:
        raise ValueError(f"expected one row, got a tensor of {coo.shape[0]}; convert row by row")
    return SparseVector.from_arrays(coo.indices()[-1].numpy(), coo.values().float().numpy())


def _flat(array: Any) -> Any:
    if array.ndim == 2 and array.shape[0] == 1:
        return array[0]
    if array.ndim != 1:
        raise ValueError(f"expected one row, got an array of shape {array.shape}; convert row by row")
    return array


def filter_to_qdrant(where: Filter) -> models.Filter:
    """Translate a filter on plain payload keys (JSON paths) to the model of qdrant-client.

    The type of a value decides how it is compared: strings, integers and booleans are matched exactly, floats are
    compared as a range of one number, and strings in ``Range`` are dates. A comparison is false for a missing key, null
    and an empty list, and ``Not`` is the complement.
    """
    return models.Filter(**filters.filter_to_qdrant(where))


def hybrid_query(
    *,
    dense: tuple[str, Any],
    sparse: tuple[str, SparseLike],
    limit: int = 10,
    offset: int = 0,
    depth: int = 100,
    method: Rrf | None = None,
    where: Filter | None = None,
    with_payload: bool = True,
) -> dict[str, Any]:
    """Return the arguments of a dense and a sparse search that are fused by reciprocal rank.

    ``client.query_points(name, **hybrid_query(…))`` runs the search; ``models.QueryRequest(**hybrid_query(…))`` is one
    query of a batch. ``dense`` and ``sparse`` are each a pair: the name of a vector of the collection and the vector of
    the query. Each leg returns ``depth`` candidates that pass ``where``; ``method``, by default ``Rrf(k=60)``, fuses
    them. The ``k`` sent to Qdrant is greater by one, because Qdrant counts ranks from 0.

    Raises ValueError for a method with weights, because Qdrant's weights reverse the ranking at large k (fuse with
    ``st_connectors.fusion`` instead), and for ``offset + limit`` greater than ``depth``.
    """
    method = method or Rrf()
    if not isinstance(method, Rrf) or method.weights is not None:
        raise ValueError(
            f"expected an unweighted Rrf, got {method}; search both legs and fuse with st_connectors.fusion"
        )
    if offset + limit > depth:
        raise ValueError(
            f"expected offset + limit of at most depth={depth}, the number of candidates, got {offset + limit}"
        )
    condition = None if where is None else filter_to_qdrant(where)
    vector = np.asarray(dense[1], np.float32).reshape(-1).tolist()
    return {
        "prefetch": [
            models.Prefetch(query=vector, using=dense[0], limit=depth, filter=condition),
            models.Prefetch(query=sparse_vector(sparse[1]), using=sparse[0], limit=depth, filter=condition),
        ],
        "query": models.RrfQuery(rrf=models.Rrf(k=method.k + 1)),
        "limit": limit,
        "offset": offset,
        "with_payload": with_payload,
    }
