"""Convert the output of any library's encoders to the contract's vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from st_connectors.schema import FieldKind
from st_core.protocols import TextEncoder
from st_core.vectors import SparseMatrix, SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_connectors.store import Vector
    from st_core.engine.prepared import Prepared

__all__ = [
    "CutTest",
    "FieldEncoder",
    "WrongCountError",
    "dense_rows",
    "encoding_on",
    "sparse_rows",
    "tokenizer_of",
    "vectors_of",
]


class WrongCountError(ValueError):
    """An encoder returned another number of vectors than texts, so that none of them can be assigned to a text."""


@dataclass(frozen=True, slots=True)
class CutTest:
    """A test of whether an encoder truncates a text.

    ``limit`` is the number of tokens that the encoder reads, special tokens and prompts not included, and ``count``
    returns the number of tokens of a text.
    """

    limit: int
    count: Callable[[str], int]

    def __call__(self, text: str, read: int | None = None) -> bool:
        """Return whether a text is truncated; ``read`` is the number of tokens that the encoder reads, if known."""
        if read is not None and read < self.limit:
            return False
        # A text never has more tokens than bytes of UTF-8, so that most texts need not be tokenized.
        return len(text.encode()) > self.limit and self.count(text) > self.limit


@dataclass(frozen=True, slots=True)
class FieldEncoder:
    """An encoder and the field of its vectors.

    ``cuts`` tests whether the encoder truncates the text of a document; it is None if the encoder never does.
    ``arguments`` are further arguments for documents.
    """

    field: str
    kind: FieldKind
    model: TextEncoder
    cuts: CutTest | None = None
    arguments: Mapping[str, Any] | None = None

    def tokenize(self, texts: list[str]) -> Prepared | None:
        """Return the tokens of documents, for :meth:`documents`; None if the encoder tokenizes only when it encodes."""
        if self.arguments or not _has_steps(self.model):
            return None
        model: Any = self.model
        tokens: Prepared = model.prepare_document(texts)
        return tokens

    def documents(self, texts: list[str], tokens: Prepared | None = None) -> list[Vector]:
        """Return the vectors of documents, in order; ``tokens`` are those that :meth:`tokenize` returned for them."""
        if tokens is None:
            encoded = self.model.encode_document(texts, **(self.arguments or {}))
        else:
            model: Any = self.model
            encoded = model.finish(model.compute([tokens])[0])
        return vectors_of(encoded, self.kind, len(texts))

    def queries(self, texts: list[str]) -> list[Vector]:
        """Return the vectors of queries, in order."""
        return vectors_of(self.model.encode_query(texts), self.kind, len(texts))


def _has_steps(model: object) -> bool:
    """Return whether ``encode_document`` of a model consists of the steps prepare_document, compute and finish.

    False for a class or an object that replaces ``encode`` or ``encode_document`` of a model with these steps.
    """
    owners = [_owner(model, name) for name in ("encode", "encode_document", "prepare")]
    return owners[0] is owners[1] is owners[2] is not None and all(
        callable(getattr(model, name, None)) for name in ("prepare_document", "compute", "finish")
    )


def _owner(model: object, name: str) -> object:
    """Return what defines a method: the object itself or one of its classes; None if nothing does."""
    return next((each for each in (model, *type(model).__mro__) if name in getattr(each, "__dict__", ())), None)


@contextmanager
def encoding_on(encoder: FieldEncoder, devices: Sequence[str]) -> Iterator[FieldEncoder]:
    """Yield an encoder that encodes documents in one process on each of several devices; without devices, the same one.

    Raises ValueError for a model without ``start_multi_process_pool``.
    """
    if not devices:
        yield encoder
        return
    model: Any = encoder.model
    if not hasattr(model, "start_multi_process_pool"):
        raise ValueError(f"the model of field {encoder.field!r} cannot encode on several devices: leave out device")
    pool = model.start_multi_process_pool(list(devices))
    try:
        yield replace(encoder, arguments={"pool": pool})
    finally:
        model.stop_multi_process_pool(pool)


def vectors_of(encoded: object, kind: FieldKind, count: int) -> list[Vector]:
    """Return one vector per text; raise WrongCountError for another number of rows."""
    if kind is FieldKind.SPARSE:
        matrix = sparse_rows(encoded)
        _check_rows(len(matrix), count)
        return list(matrix.rows())
    array = dense_rows(encoded)
    _check_rows(array.shape[0], count)
    return list(array)


def _check_rows(rows: int, count: int) -> None:
    if rows != count:
        raise WrongCountError(f"expected {count} vectors from the encoder, one per text, not {rows}")


def dense_rows(encoded: Any) -> NDArray[np.float32]:
    """Convert an array, a torch tensor on any device, or a list of either to float32 [n, d]."""
    if isinstance(encoded, list | tuple):
        encoded = [_to_numpy(row) for row in encoded]
    array = np.asarray(_to_numpy(encoded), dtype=np.float32)
    if array.ndim != 2:
        raise ValueError(
            f"expected one vector per text from the dense encoder, an array of two dimensions, not {array.ndim}"
        )
    return array


def sparse_rows(encoded: Any) -> SparseMatrix:
    """Convert a SparseMatrix, a scipy matrix, a torch tensor (sparse or not) or a dense array to a matrix [n, V]."""
    if isinstance(encoded, SparseMatrix):
        return encoded
    if hasattr(encoded, "tocsr"):
        return SparseMatrix.from_scipy(encoded)
    if hasattr(encoded, "to_sparse_coo"):
        return _from_torch(encoded)
    if isinstance(encoded, list | tuple) and encoded and all(isinstance(row, SparseVector) for row in encoded):
        width = max(int(row.indices[-1]) + 1 if len(row) else 1 for row in encoded)
        return SparseMatrix.from_rows(encoded, width)
    return SparseMatrix.from_dense(encoded)


def _from_torch(tensor: Any) -> SparseMatrix:
    """Convert a torch tensor [n, V] of any layout through its coordinates."""
    coordinates = tensor.detach().cpu().to_sparse_coo().coalesce()
    rows, columns = coordinates.indices().numpy()
    values = coordinates.values().float().numpy()
    count, width = (int(size) for size in coordinates.shape)
    starts = np.searchsorted(rows, np.arange(count + 1))
    return SparseMatrix.from_rows(
        (SparseVector.from_arrays(columns[a:b], values[a:b]) for a, b in pairwise(starts)),
        width,
    )


def _to_numpy(value: Any) -> Any:
    """Convert a torch tensor of any precision and on any device to an array; return other values unchanged."""
    return value.detach().float().cpu().numpy() if hasattr(value, "detach") else value


def tokenizer_of(loaded: object) -> Any:
    """Return the Rust tokenizer of a model of st_core or sentence-transformers, or None if it has none."""
    inner = getattr(loaded, "backend_tokenizer", None)
    if inner is None:
        tokenizer = getattr(loaded, "tokenizer", None)
        inner = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return inner if hasattr(inner, "to_str") and hasattr(inner, "encode") else None
