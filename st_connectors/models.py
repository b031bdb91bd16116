"""Models of a collection: loaded by name on first use, described, and compared with the stored references."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike, fspath
from typing import Any

from st_connectors.errors import SchemaMismatch
from st_core import check_dtype, dtype_of_precision
from st_core.errors import ModelNotFound
from st_core.fingerprint import describe
from st_core.protocols import ModelKind, ModelRef

__all__ = ["LazyModel", "ModelOptions", "check_same", "has_name", "stored_model"]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The backend and dtype of models that are loaded by name; raises ValueError for unknown values.

    A dtype of None means the default. Model objects are used unchanged, and static models always run on numpy.
    """

    backend: str
    dtype: str | None

    def __post_init__(self) -> None:
        check_dtype(self.backend, self.dtype)

    def matching(self, ref: ModelRef | None) -> ModelOptions:
        """Return options with the precision of ``ref`` if no dtype is set and the backend supports this precision."""
        if ref is None or self.dtype is not None:
            return self
        return replace(self, dtype=dtype_of_precision(self.backend, ref.precision))


class LazyModel:
    """A model by name, loaded on first use, or a model object. Safe for use from several threads."""

    def __init__(
        self,
        kind: ModelKind,
        model: object,
        revision: str | None = None,
        *,
        options: ModelOptions,
        check: Callable[[ModelRef], None] | None = None,
    ) -> None:
        """Take a name (``builtin:…``, a folder as a string or a path, a Hub name) or an object.

        ``check`` receives the reference of a model loaded by name, and may raise.
        """
        self.kind = kind
        self._revision = revision
        self._options = options
        self._check = check
        self._name = str(fspath(model)) if isinstance(model, str | PathLike) else None
        self._model = None if self._name is not None else model
        self._ref: ModelRef | None = None
        self._lock = threading.Lock()

    def load(self) -> Any:
        """Return the model, which is loaded on first use."""
        with self._lock:
            if self._model is None and self._name is not None:
                loaded = _load(self._name, self.kind, self._revision, self._options)
                if self._check is not None:
                    self._check(describe(loaded))
                self._model = loaded
            return self._model

    def ref(self) -> ModelRef:
        """Return the model's reference; loads the model."""
        model = self.load()
        with self._lock:
            if self._ref is None:
                self._ref = describe(model)
            return self._ref


def _load(name: str, kind: ModelKind, revision: str | None, options: ModelOptions) -> object:
    backend, dtype = options.backend, options.dtype
    match kind:
        case ModelKind.DENSE:
            from st_core.sentence_transformer import SentenceTransformer

            return SentenceTransformer(name, revision=revision, backend=backend, dtype=dtype)
        case ModelKind.SPARSE:
            from st_core.sparse_encoder import SparseEncoder

            return SparseEncoder(name, revision=revision, backend=backend, dtype=dtype)
        case ModelKind.RERANKER:
            from st_core.cross_encoder import CrossEncoder

            return CrossEncoder(name, revision=revision, backend=backend, dtype=dtype)


def has_name(ref: ModelRef) -> bool:
    """Return whether the model of a reference can be loaded by its name.

    Models of st_core have a fingerprint; an object of another library may have the name of a Hub repository.
    """
    return bool(ref.fingerprint) or "/" in ref.name


def stored_model(ref: ModelRef, field: str, collection: str, *, options: ModelOptions, trust: bool) -> LazyModel:
    """Return the model of a stored reference, which is checked when loaded; raise ModelNotFound if it has no name.

    The precision is checked only if ``options`` sets a dtype. Otherwise graphs run in the stored precision if the
    backend supports it, and torch in its default precision.
    """
    if not has_name(ref):
        raise ModelNotFound(
            f"the {field} vectors of {collection!r} were made by an object ({ref.name}), which cannot be loaded by "
            f"name: pass it again, Index.open(…, {field}=encoder)"
        )
    # Hashing a vocabulary takes longer than a search. A precision that was not requested depends on the machine.
    parts = ref.fingerprint.keys() - ({"tokenizer", "precision"} if options.dtype is None else {"tokenizer"})
    check = partial(check_same, ref, field=field, collection=collection, trust=trust, parts=parts)
    return LazyModel(ref.kind, ref.name, ref.revision, options=options.matching(ref), check=check)


def check_same(
    stored: ModelRef, other: ModelRef, *, field: str, collection: str, trust: bool, parts: Collection[str] | None = None
) -> None:
    """Raise SchemaMismatch with the differences unless both references are of the same model.

    Warns if this cannot be decided. ``trust`` allows another fingerprint, but never another dimension. ``parts`` are
    the parts of the fingerprint to compare; None means all.
    """
    maker = f"the {field} vectors of {collection!r} were made by {stored.name!r}"
    if stored.kind is not other.kind or stored.dimension != other.dimension:
        message = (
            f"{maker}, {stored.kind} of dimension {stored.dimension}; {other.name!r} is {other.kind} of dimension "
            f"{other.dimension}: open the collection with the model it was made with, or create another one"
        )
        raise SchemaMismatch(message, store="index", operation="open")
    if trust:
        return
    shared = stored.fingerprint.keys() & other.fingerprint.keys()
    if not shared:
        if parts is None:
            warnings.warn(f"{maker}; nothing tells whether {other.name!r} is the same model", stacklevel=4)
        return
    differing = sorted(
        part for part in shared & set(parts or shared) if stored.fingerprint[part] != other.fingerprint[part]
    )
    if differing:
        message = (
            f"{maker}, {_describe_difference(stored, other, differing)}: use the model as it was, ingest again, or "
            "pass trust_model (--trust-model) if the vectors are alike"
        )
        raise SchemaMismatch(message, store="index", operation="open")


def _describe_difference(stored: ModelRef, other: ModelRef, parts: Sequence[str]) -> str:
    listed = ", ".join(
        f"precision ({stored.precision} then, {other.precision} now)" if part == "precision" else part for part in parts
    )
    if stored.name != other.name:
        return f"and {other.name!r} differs in {listed}"
    return f"which {'as loaded now' if parts == ['precision'] else 'has changed since: it'} differs in {listed}"
