"""Convert sparse vectors, filters and hybrid searches for pymilvus, for use with your own collection and client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias, assert_never

import numpy as np
from pymilvus import AnnSearchRequest, RRFRanker

from st_connectors.filters import And, Eq, Exists, Filter, In, Not, Or, Range
from st_connectors.milvus.columns import METRICS, encode_sparse
from st_connectors.milvus.filters import Bindings, Expression, with_literals
from st_connectors.schema import Metric, Rrf
from st_core.vectors import SparseMatrix, SparseVector

__all__ = ["filter_to_milvus", "hybrid_requests", "sparse_vector"]

SparseLike: TypeAlias = Any
"""A SparseVector, a SparseMatrix of one row, a mapping from index to weight, or one row of a scipy or torch sparse
matrix."""


def sparse_vector(value: SparseLike) -> dict[int, float]:
    """Convert one sparse vector to the mapping ``{index: weight}``, with rising indices and positive weights.

    Accepts a ``SparseVector``, a ``SparseMatrix`` of one row, a mapping from index to weight, a dense row [V], and one
    row of a scipy or torch sparse matrix ([V] or [1, V]). Raises ValueError for more than one row.

        client.upsert("docs", [{"id": 1, "sparse": sparse_vector(encoder.encode("a text"))}])
    """
    return encode_sparse(_to_vector(value))


def _to_vector(value: SparseLike) -> SparseVector:
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
        raise ValueError(f"expected one row, got {len(matrix)}; convert row by row")
    return matrix[0]


def filter_to_milvus(where: Filter, *, literals: bool = False) -> dict[str, Any]:
    """Translate a filter on plain columns to the arguments of a search or query, with its values as templates.

    ``client.query(name, **filter_to_milvus(where))`` applies it. Field names are columns, or keys of the dynamic field.
    Null is treated as in Milvus: a row without the value passes neither a comparison nor its ``Not``. ``literals``
    writes the values into the expression, for Milvus Lite, which has no templates. Raises ValueError for names that are
    not identifiers.

        client.search("docs", data=[vector], **filter_to_milvus(Eq("lang", "de")))
    """
    bindings = Bindings()
    expression = Expression(_condition(where, bindings), bindings.values)
    if literals:
        return {"filter": with_literals(expression)}
    return {"filter": expression.text, "filter_params": bindings.values}


def _condition(where: Filter, bindings: Bindings) -> str:
    match where:
        case Eq(name, value):
            return f"{_column(name)} == {bindings.bind(value)}"
        case In(name, values):
            return f"{_column(name)} in {bindings.bind(list(values))}"
        case Range(name, gt, gte, lt, lte):
            bounds = [(">", gt), (">=", gte), ("<", lt), ("<=", lte)]
            parts = [f"{_column(name)} {sign} {bindings.bind(bound)}" for sign, bound in bounds if bound is not None]
            return " and ".join(parts) or f"{_column(name)} is not null"
        case Exists(name):
            return f"{_column(name)} is not null"
        case And(parts) | Or(parts):
            if not parts:
                raise ValueError("Milvus has no expression for an empty And or Or; leave the filter out")
            word = " and " if isinstance(where, And) else " or "
            return word.join(f"({_condition(part, bindings)})" for part in parts)
        case Not(part):
            return f"not ({_condition(part, bindings)})"
        case _:
            assert_never(where)


def _column(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"expected a column name of letters, digits and underscores, got {name!r}")
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
    """Return the arguments of a dense and a sparse search that are fused by reciprocal rank.

    ``client.hybrid_search(name, **hybrid_requests(…), output_fields=["text"])`` runs the search. ``dense`` and
    ``sparse`` are each a pair: the name of a column and the vector of the query. ``metric`` is the metric of the dense
    column's index; the index of the sparse column must have the metric IP. Each leg returns ``depth`` candidates that
    pass ``where``; ``method``, by default ``Rrf(k=60)``, fuses them. The order of equal scores is not defined.
    ``literals`` is the same as in :func:`filter_to_milvus`. Raises ValueError for a method with weights, and for a
    ``limit`` greater than ``depth``.

        hits = client.hybrid_search(
            "docs",
            **hybrid_requests(
                dense=("dense", query), sparse=("sparse", {12: 0.7}), where=Range("year", gte=2020)
            ),
        )
    """
    method = method or Rrf()
    if method.weights is not None:
        raise ValueError("Milvus fuses ranks without weights; search both columns and fuse with st_connectors.fusion")
    if limit > depth:
        raise ValueError(f"expected a limit of at most depth={depth}, the number of candidates, got {limit}")
    passing = {} if where is None else filter_to_milvus(where, literals=literals)
    condition = {"expr": passing.get("filter"), "expr_params": passing.get("filter_params")}
    vector = np.asarray(dense[1], np.float32).reshape(-1).tolist()
    return {
        "reqs": [
            AnnSearchRequest([vector], dense[0], {"metric_type": METRICS[metric], "params": {}}, depth, **condition),
            AnnSearchRequest(
                [sparse_vector(sparse[1])], sparse[0], {"metric_type": "IP", "params": {}}, depth, **condition
            ),
        ],
        "ranker": RRFRanker(method.k),
        "limit": limit,
    }
