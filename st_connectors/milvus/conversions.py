"""For people with their own collection and client: sparse vectors, filters and hybrid searches as ``pymilvus`` takes them, usable alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias, assert_never

import numpy as np
from pymilvus import AnnSearchRequest, RRFRanker

from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from st_connectors.milvus import wire
from st_connectors.milvus.expressions import Expression, Values, rendered
from st_connectors.schema import Metric, Rrf
from st_core.vectors import SparseMatrix, SparseVector

__all__ = ["filter_to_milvus", "hybrid_requests", "sparse_vector"]

SparseLike: TypeAlias = Any
"""A SparseVector, a SparseMatrix of one row, a mapping from index to weight, or one row of a scipy or torch sparse matrix."""


def sparse_vector(value: SparseLike) -> dict[int, float]:
    """One sparse vector as Milvus takes it: ``{index: weight}``, indices rising, weights positive.

    Takes a ``SparseVector``, a ``SparseMatrix`` of one row, a mapping from index to weight, a dense row [V], and one row of a scipy or torch
    sparse matrix ([V] or [1, V]). Raises ValueError for more than one row.

        client.upsert("docs", [{"id": 1, "sparse": sparse_vector(encoder.encode("a text"))}])
    """
    return wire.sparse_row(_one(value))


def _one(value: SparseLike) -> SparseVector:
    if isinstance(value, SparseVector):
        return value
    if isinstance(value, Mapping):
        return SparseVector.from_mapping(value)
    if hasattr(value, "tocsr"):
        value = SparseMatrix.from_scipy(value.reshape(1, -1) if len(value.shape) == 1 else value)
    elif hasattr(value, "detach"):
        value = value.detach().cpu().to_dense().float().numpy()
    matrix = value if isinstance(value, SparseMatrix) else SparseMatrix.from_dense(np.atleast_2d(np.asarray(value)))
    if len(matrix) != 1:
        raise ValueError(f"one sparse vector is one row, and here are {len(matrix)}: convert row by row")
    return matrix[0]


def filter_to_milvus(where: Filter, *, literals: bool = False) -> dict[str, Any]:
    """A filter on plain columns, with its values as templates: ``client.query(name, **filter_to_milvus(where))``.

    Field names are columns, or keys of the dynamic field. What Milvus makes of null is left as it is: a row without the value passes neither a
    comparison nor its ``Not``. ``literals`` writes the values into the expression, for Milvus Lite, which has no templates. Raises ValueError for names
    that are no identifiers.

        client.search("docs", data=[vector], **filter_to_milvus(Eq("lang", "de")))
    """
    values = Values()
    made = Expression(_plain(where, values), values.values)
    return {"filter": rendered(made)} if literals else {"filter": made.text, "filter_params": values.values}


def _plain(where: Filter, values: Values) -> str:
    match where:
        case Eq(name, value):
            return f"{_column(name)} == {values.bind(value)}"
        case In(name, many):
            return f"{_column(name)} in {values.bind(list(many))}"
        case Range(name, gt, gte, lt, lte):
            bounds = [(">", gt), (">=", gte), ("<", lt), ("<=", lte)]
            given = [f"{_column(name)} {sign} {values.bind(bound)}" for sign, bound in bounds if bound is not None]
            return " and ".join(given) or f"{_column(name)} is not null"
        case Exists(name):
            return f"{_column(name)} is not null"
        case And(parts) | Or(parts):
            if not parts:
                raise ValueError("Milvus has no expression for And or Or of nothing: leave the filter out")
            word = " and " if isinstance(where, And) else " or "
            return word.join(f"({_plain(part, values)})" for part in parts)
        case Not(part):
            return f"not ({_plain(part, values)})"
        case _:
            assert_never(where)


def _column(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} cannot be a column of Milvus: letters, digits and underscores only")
    return name


def hybrid_requests(
    *,
    dense: tuple[str, Any],
    sparse: tuple[str, SparseLike],
    metric: Metric = Metric.COSINE,
    limit: int = 10,
    depth: int = 100,
    method: Rrf | None = None,
    where: Filter | None = None,
    literals: bool = False,
) -> dict[str, Any]:
    """Dense and sparse search fused by reciprocal rank: ``client.hybrid_search(name, **hybrid_requests(…), output_fields=["text"])``.

    ``dense`` and ``sparse`` are each the name of a column and the query's vector; ``metric`` is that of the dense column's index, and the sparse one's is
    IP. ``depth`` candidates of each, all passing ``where``, are fused by ``method``, textbook ``Rrf(k=60)`` by default; ties come as Milvus likes.
    ``literals`` as in :func:`filter_to_milvus`. Raises ValueError for weights, and for ``limit`` over ``depth``.

        found = client.hybrid_search(
            "docs", **hybrid_requests(dense=("dense", query), sparse=("sparse", {12: 0.7}), where=Range("year", gte=2020))
        )
    """
    method = method or Rrf()
    if method.weights is not None:
        raise ValueError("Milvus fuses ranks without weights: search both columns and fuse with st_connectors.fusion")
    if limit > depth:
        raise ValueError(f"limit is {limit}, and only depth={depth} candidates are fused")
    passing = {} if where is None else filter_to_milvus(where, literals=literals)
    condition = {"expr": passing.get("filter"), "expr_params": passing.get("filter_params")}
    vector = np.asarray(dense[1], np.float32).reshape(-1).tolist()
    return {
        "reqs": [
            AnnSearchRequest(
                [vector], dense[0], {"metric_type": wire.METRICS[metric], "params": {}}, depth, **condition
            ),
            AnnSearchRequest(
                [sparse_vector(sparse[1])], sparse[0], {"metric_type": "IP", "params": {}}, depth, **condition
            ),
        ],
        "ranker": RRFRanker(method.k),
        "limit": limit,
    }
