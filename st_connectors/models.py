"""Models of a collection: loaded by name on first use, described, and compared with the stored references."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from typing import Any

from st_connectors.errors import ModelWarning, SchemaMismatch
from st_core import check_dtype, dtype_of_precision
from st_core.errors import ModelNotFound
from st_core.fingerprint import describe
from st_core.protocols import ModelKind, ModelRef

__all__ = [
    "DEFAULT_BACKEND",
    "LazyModel",
    "ModelOptions",
    "check_same",
    "has_name",
    "identity_of",
    "is_recorded",
    "settings_of",
    "stored_model",
    "warn_of_other_running",
]

DEFAULT_BACKEND = "torch"
_ADDRESSES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The backend and dtype of models that are loaded by name; raises ValueError for unknown values.

    A backend of None means that of the collection, else torch; a dtype of None means that of the collection if the
    model runs on the collection's backend, else the default. Model objects are used unchanged, and static models
    always run on numpy.
    """

    backend: str | None
    dtype: str | None

    def __post_init__(self) -> None:
        # int8 is the only dtype that torch does not compute in and the backend of a collection may.
        if self.backend is not None or self.dtype != "int8":
            check_dtype(DEFAULT_BACKEND if self.backend is None else self.backend, self.dtype)

    def matching(self, ref: ModelRef | None) -> ModelOptions:
        """Return options with the backend and the precision of ``ref`` where these are not set, and a backend.

        Raises ValueError for a dtype in which that backend does not compute.
        """
        backend = self.backend
        if backend is None:
            backend = DEFAULT_BACKEND if ref is None or ref.backend is None else ref.backend
        dtype = self.dtype if self.dtype is not None or ref is None else _recorded_dtype(backend, ref)
        return ModelOptions(backend, dtype)


def _recorded_dtype(backend: str, ref: ModelRef) -> str | None:
    """Return the dtype that loads the model of a reference in its precision; None for the default of the backend."""
    return ref.precision if ref.backend == backend == "torch" else dtype_of_precision(backend, ref.precision)


class LazyModel:
    """A model by name, loaded on first use, or a model object. Safe for use from several threads."""

    def __init__(
        self,
        kind: ModelKind,
        model: object,
        revision: str | None = None,
        *,
        options: ModelOptions,
        settings: Mapping[str, int] | None = None,
        check: Callable[[ModelRef], None] | None = None,
        recorded_in: str = "",
    ) -> None:
        """Take a name (``builtin:…``, a folder as a string or a path, a Hub name, an address) or an object.

        ``settings`` are further arguments of the model's class. ``check`` receives the reference of a model loaded by
        name, and may raise. ``recorded_in`` is the collection that the name was read from, used in messages.
        """
        self.kind = kind
        self._revision = revision
        self._options = options.matching(None)
        self._settings = dict(settings or {})
        self._check = check
        self._recorded_in = recorded_in
        self._name = str(fspath(model)) if isinstance(model, str | PathLike) else None
        self._model: Any = None if self._name is not None else model
        self._ref: ModelRef | None = None
        self._lock = threading.Lock()

    @property
    def is_named(self) -> bool:
        """Whether the model is loaded by its name, and therefore runs as the options say."""
        return self._name is not None

    def load(self) -> Any:
        """Return the model, which is loaded on first use."""
        with self._lock:
            if self._model is None and self._name is not None:
                with _explained(self.kind, self._recorded_in, self._options):
                    loaded = self._load(self._name)
                if self._check is not None:
                    self._check(describe(loaded))
                self._model = loaded
            return self._model

    def _load(self, name: str) -> object:
        if name.startswith(_ADDRESSES):
            return _remote(self.kind, name)
        options: dict[str, Any] = {"backend": self._options.backend, "dtype": self._options.dtype, **self._settings}
        match self.kind:
            case ModelKind.DENSE:
                from st_core.sentence_transformer import SentenceTransformer

                return SentenceTransformer(name, revision=self._revision, **options)
            case ModelKind.SPARSE:
                from st_core.sparse_encoder import SparseEncoder

                return SparseEncoder(name, revision=self._revision, **options)
            case ModelKind.RERANKER:
                from st_core.cross_encoder import CrossEncoder

                return CrossEncoder(name, revision=self._revision, **options)

    def close(self) -> None:
        """Close the connections of a model that was opened by its address; other models have none."""
        with self._lock:
            if self._model is not None and self._name is not None and self._name.startswith(_ADDRESSES):
                self._model.close()

    def ref(self) -> ModelRef:
        """Return the model's reference; loads the model."""
        model = self.load()
        with self._lock:
            if self._ref is None:
                self._ref = describe(model)
            return self._ref


def _remote(kind: ModelKind, address: str) -> object:
    """Return the model at an address such as ``http://host:8080#name``; raise ValueError for another address.

    The API key comes from the environment, as those of stores.
    """
    from st_core.remote import RemoteCrossEncoder, RemoteSentenceTransformer, RemoteSparseEncoder

    classes = {
        ModelKind.DENSE: RemoteSentenceTransformer,
        ModelKind.SPARSE: RemoteSparseEncoder,
        ModelKind.RERANKER: RemoteCrossEncoder,
    }
    return classes[kind](address, api_key=os.environ.get("ST_REMOTE_API_KEY"))


@contextmanager
def _explained(kind: ModelKind, collection: str, options: ModelOptions) -> Iterator[None]:
    """Add to errors of loading a model what to do if its name and its backend were read from a collection."""
    try:
        yield
    except ModelNotFound as error:
        if not collection:
            raise
        message = (
            f"{error}; {collection!r} records this name of its {kind} model: if the model has moved, pass its new "
            f"place as {kind}= (--{kind}), or record it with st-connectors relocate"
        )
        raise ModelNotFound(message) from error
    except ImportError as error:
        if not collection or options.backend == DEFAULT_BACKEND:
            raise
        message = (
            f"{error}; {collection!r} records the backend {options.backend}: to use another one, name it as backend= "
            "(--backend)"
        )
        raise ImportError(message, name=error.name) from error


def has_name(ref: ModelRef) -> bool:
    """Return whether the model of a reference can be loaded by its name.

    Models of st_core have a fingerprint; an object of another library may have the name of a Hub repository.
    """
    return bool(ref.fingerprint) or "/" in ref.name


def identity_of(ref: ModelRef) -> dict[str, str]:
    """Return what decides the vectors of a model: its fingerprint, or the name of a model of another library.

    The precision is left out, because one that was not requested depends on the machine.
    """
    return {part: ref.fingerprint[part] for part in ref.fingerprint if part != "precision"} or {"name": ref.name}


def is_recorded(ref: ModelRef, recorded: ModelRef | None) -> bool:
    """Return whether a collection records a model; parts of the fingerprint that it does not record are ignored."""
    if recorded is None:
        return False
    one, other = identity_of(ref), identity_of(recorded)
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[part] == other[part] for part in shared)


def settings_of(ref: ModelRef) -> dict[str, int]:
    """Return the arguments with which a model is loaded by name so that its vectors are those of ``ref``."""
    settings = {"truncate_dim": ref.truncate_dim} if ref.kind is ModelKind.DENSE else {}
    settings |= {"max_active_dims": ref.max_active_dims} if ref.kind is ModelKind.SPARSE else {}
    return {name: value for name, value in settings.items() if value is not None}


def stored_model(ref: ModelRef, field: str, collection: str, *, options: ModelOptions, trust: bool) -> LazyModel:
    """Return the model of a stored reference, which is checked when loaded; raise ModelNotFound if it has no name.

    Where ``options`` sets no backend and no dtype, the model runs as it did when the collection was created. The
    precision is checked only if ``options`` sets a dtype.
    """
    if not has_name(ref):
        raise ModelNotFound(
            f"the {field} vectors of {collection!r} were made by an object ({ref.name}), which cannot be loaded by "
            f"name: pass it again, Index.open(…, {field}=encoder)"
        )
    # Hashing a vocabulary takes longer than a search. A precision that was not requested depends on the machine.
    parts = ref.fingerprint.keys() - ({"tokenizer", "precision"} if options.dtype is None else {"tokenizer"})
    check = partial(check_same, ref, field=field, collection=collection, trust=trust, parts=parts)
    return LazyModel(
        ref.kind,
        ref.name,
        ref.revision,
        options=options.matching(ref),
        settings=settings_of(ref),
        check=check,
        recorded_in=collection,
    )


def warn_of_other_running(refs: Mapping[str, ModelRef], options: ModelOptions, collection: str) -> None:
    """Warn if ``options`` name another backend or dtype than the one that computed the vectors of some fields."""
    others = {}
    for field, ref in refs.items():
        used = options.matching(ref)
        named = " ".join(part for part in (used.backend, options.dtype) if part)
        recorded = _recorded_dtype(ref.backend or DEFAULT_BACKEND, ref) or ref.precision
        is_other = options.backend not in {None, ref.backend} or options.dtype not in {None, recorded}
        if ref.backend is not None and is_other:
            others[field] = (f"{ref.backend} {ref.precision}", named)
    for previous, named in sorted(set(others.values())):
        fields = " and ".join(field for field, pair in others.items() if pair == (previous, named))
        warnings.warn(
            f"the {fields} vectors of {collection!r} were computed by {previous}; texts are now encoded by {named}, as "
            "named, so that scores and ranks can differ",
            ModelWarning,
            stacklevel=4,
        )


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
            f"{maker}, {_describe_difference(stored, other, differing)}: use the model as it was, migrate "
            "to this one (st-connectors migrate), or pass trust_model (--trust-model) if the vectors are alike"
        )
        raise SchemaMismatch(message, store="index", operation="open")


def _describe_difference(stored: ModelRef, other: ModelRef, parts: Sequence[str]) -> str:
    listed = ", ".join(_describe_part(stored, other, part) for part in parts)
    if stored.name != other.name:
        return f"and {other.name!r} differs in {listed}"
    return f"which {'as loaded now' if parts == ['precision'] else 'has changed since: it'} differs in {listed}"


def _describe_part(stored: ModelRef, other: ModelRef, part: str) -> str:
    """Return a part of the fingerprint for a message, with both values of a setting."""
    values = {name: [getattr(ref, name) for ref in (stored, other)] for name in ("precision", "max_active_dims")}
    if part not in values:
        return part
    then, now = values[part]
    return f"{part} ({then} then, {now} now)"
