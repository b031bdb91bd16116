"""Compare the vectors that a store has with those of the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core import builtin
from st_core.protocols import ModelKind
from st_core.remote.connections import Connections

if TYPE_CHECKING:
    from st_connectors.setup.encoder import Model

__all__ = ["SAMPLE", "Finding", "compare_dense", "compare_sparse", "library_tokens", "library_vector"]

SAMPLE = "copy a directory tree to another place"
"""The text that a check sends."""
DENSE_WITHIN = 1e-5
SPARSE_WITHIN = 2.0**-8
"""The relative difference of sparse weights; a Lucene engine stores 9 significant bits."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check tried, the largest difference from the library, and what is wrong.

    ``difference`` is None if nothing was compared, and ``problem`` is empty if nothing is wrong.
    """

    what: str
    difference: float | None = None
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.what}: {self.problem}"
        if self.difference is None:
            return f"{self.what}: works"
        return f"{self.what}: as by the library (largest difference {self.difference:.0e})"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as values that can be written as JSON."""
        return {"what": self.what, "difference": self.difference, "problem": self.problem}


def library_vector(model: Model, address: str, key: str | None, text: str, role: str) -> Any:
    """Return the vector of a text as the library computes it: a dense row of float32, or weights by index.

    ``role`` is "query", "document" or "plain", as by ``encode``. A built-in model is computed here. Another one is
    computed by the server's own route, whose results are those of the library. Dense vectors have unit length if they
    are compared by cosine.
    """
    with _opened(model, address, key) as encoder:
        encode = {"query": encoder.encode_query, "document": encoder.encode_document}.get(role, encoder.encode)
        vector = encode([text])
    if model.kind is ModelKind.SPARSE:
        row = next(iter(vector.rows()))
        return dict(zip(row.indices.tolist(), row.values.tolist(), strict=True))
    length = float(np.linalg.norm(vector[0])) if model.has_unit_length else 0.0
    return vector[0] / length if length else vector[0]


def library_tokens(model: Model, address: str, key: str | None, text: str, role: str) -> dict[str, float]:
    """Return the sparse vector of a text as weights by token, from the server's own route."""
    connections = Connections(address.rstrip("/"), key)
    try:
        body = {"inputs": [text], "model": model.name, "role": role, "tokens": True}
        [row] = connections.post("/v1/encode", body)["models"][model.name]["vectors"]
    finally:
        connections.close()
    return dict(zip(row["names"], row["values"], strict=True))


def _opened(model: Model, address: str, key: str | None) -> AbstractContextManager[Any]:
    from st_core import SentenceTransformer, SparseEncoder
    from st_core.remote import RemoteSentenceTransformer, RemoteSparseEncoder

    is_sparse = model.kind is ModelKind.SPARSE
    if model.origin in (builtin.DENSE, builtin.SPARSE):
        return nullcontext((SparseEncoder if is_sparse else SentenceTransformer)(model.origin))
    return (RemoteSparseEncoder if is_sparse else RemoteSentenceTransformer)(f"{address}#{model.name}", api_key=key)


def compare_dense(what: str, found: Sequence[float] | None, expected: Any) -> Finding:
    """Compare a dense vector of a store with that of the library."""
    if found is None:
        return Finding(what, problem="the store has no vector")
    if len(found) != len(expected):
        return Finding(what, problem=f"expected dimension {len(expected)}, got {len(found)}")
    difference = float(np.abs(np.asarray(found) - expected).max())
    return Finding(what, difference, "" if difference <= DENSE_WITHIN else _differs(difference))


def compare_sparse(what: str, found: Mapping[Any, float] | None, expected: Mapping[Any, float]) -> Finding:
    """Compare the weights of a store with those of the library, by index or by token."""
    if found is None:
        return Finding(what, problem="the store has no vector")
    weights = {str(name): float(weight) for name, weight in found.items()}
    expected = {str(name): weight for name, weight in expected.items()}
    if weights.keys() != expected.keys():
        return Finding(what, problem=f"expected {len(expected)} terms, got {len(weights)}, or other ones")
    difference = max((abs(weights[name] / weight - 1) for name, weight in expected.items()), default=0.0)
    return Finding(what, difference, "" if difference <= SPARSE_WITHIN else _differs(difference))


def _differs(difference: float) -> str:
    return f"differs from the library by {difference:.1g}: does the server run this version with this model?"
