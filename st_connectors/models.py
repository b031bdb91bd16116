"""Which encoders a collection was made with: loaded by name when first needed, described, and compared with what is given later."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from st_connectors.arguments import check_int
from st_connectors.errors import SchemaMismatch
from st_connectors.ingest import Spans
from st_core.backends.dtypes import check_dtype, dtype_of_precision
from st_core.errors import ModelNotFound
from st_core.fingerprint import describe
from st_core.protocols import ModelKind, ModelRef
from st_core.text.splitter import Offsets, offsets_of, split

__all__ = ["LazyModel", "Running", "Split", "by_reference", "check_same", "cut_test", "has_name", "spans_of"]


@dataclass(frozen=True, slots=True)
class Split:
    """How long texts become windows: up to ``tokens`` of the model's tokens each, ``overlap`` of them shared with the window before.

    ``tokens`` None is 256, or the most that the model takes where that is less. An overlap of more than half a window is half a window.
    """

    tokens: int | None = None
    overlap: int = 32

    def __post_init__(self) -> None:
        if self.tokens is not None:
            check_int(self.tokens, 1, "tokens")
        check_int(self.overlap, 0, "overlap")


@dataclass(frozen=True, slots=True)
class Running:
    """What runs the models that are loaded by name, and in which type, None for the default; raises ValueError for what there is not.

    Objects stay as they are, and static models run on numpy whatever is said.
    """

    backend: str
    dtype: str | None

    def __post_init__(self) -> None:
        check_dtype(self.backend, self.dtype)

    def again(self, ref: ModelRef | None) -> Running:
        """The same for a model that is to be the one of ``ref``: where no type is named, graphs are in that of ``ref``, if they can be."""
        if ref is None or self.dtype is not None:
            return self
        return replace(self, dtype=dtype_of_precision(self.backend, ref.precision))


class LazyModel:
    """A model by name, loaded when first used, or an object that is already one; safe in threads."""

    def __init__(
        self,
        kind: ModelKind,
        given: object,
        revision: str | None = None,
        *,
        running: Running,
        check: Callable[[ModelRef], None] | None = None,
    ) -> None:
        """Take a name (``builtin:…``, a folder, a Hub name), to be loaded as ``running`` says, or an object.

        ``check`` sees the reference of what was loaded by name.
        """
        self.kind = kind
        self._revision = revision
        self._running = running
        self._check = check
        self._name = given if isinstance(given, str) else None
        self._model = None if isinstance(given, str) else given
        self._ref: ModelRef | None = None
        self._lock = threading.Lock()

    def load(self) -> Any:
        """The model itself."""
        with self._lock:
            if self._model is None and self._name is not None:
                loaded = _load(self._name, self.kind, self._revision, self._running)
                if self._check is not None:
                    self._check(describe(loaded))
                self._model = loaded
            return self._model

    def ref(self) -> ModelRef:
        """What is known of the model; loads it."""
        model = self.load()
        with self._lock:
            if self._ref is None:
                self._ref = describe(model)
            return self._ref


def _load(name: str, kind: ModelKind, revision: str | None, running: Running) -> object:
    backend, dtype = running.backend, running.dtype
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
    """Whether a model can be loaded by its name: what we loaded has a fingerprint, and a foreign object may name a Hub repository."""
    return bool(ref.fingerprint) or "/" in ref.name


def by_reference(ref: ModelRef, field: str, collection: str, *, running: Running, trust: bool) -> LazyModel:
    """The model a collection remembers, checked when it is loaded; raises ModelNotFound where it was an object that no name leads to.

    Its precision is checked where ``running`` names a type, and is else what this machine makes of it: on graphs the one remembered, where it has
    them, and on torch the default.
    """
    if not has_name(ref):
        raise ModelNotFound(
            f"the {field} vectors of {collection!r} were made by an object ({ref.name}), which cannot be loaded by name: "
            f"hand it in again, Index.open(…, {field}=encoder)"
        )
    # Reading a vocabulary takes longer than a search, and a precision that nobody named is this machine's choice.
    parts = ref.fingerprint.keys() - ({"tokenizer", "precision"} if running.dtype is None else {"tokenizer"})
    check = partial(check_same, ref, field=field, collection=collection, trust=trust, parts=parts)
    return LazyModel(ref.kind, ref.name, ref.revision, running=running.again(ref), check=check)


def check_same(
    stored: ModelRef, given: ModelRef, *, field: str, collection: str, trust: bool, parts: Collection[str] | None = None
) -> None:
    """Raise SchemaMismatch, saying what differs, unless both are one model; warn where that cannot be known.

    ``trust`` allows another fingerprint, never another dimension. ``parts`` are the components to compare; None means all.
    """
    says = f"the {field} vectors of {collection!r} were made by {stored.name!r}"
    if stored.kind is not given.kind or stored.dimension != given.dimension:
        message = (
            f"{says}, {stored.kind} of dimension {stored.dimension}; {given.name!r} is {given.kind} of dimension "
            f"{given.dimension}: open it with the model it was made with, or make another collection"
        )
        raise SchemaMismatch(message, store="index", operation="open")
    if trust:
        return
    shared = stored.fingerprint.keys() & given.fingerprint.keys()
    if not shared:
        if parts is None:
            warnings.warn(f"{says}; nothing tells whether {given.name!r} is the same model", stacklevel=4)
        return
    differing = sorted(
        part for part in shared & set(parts or shared) if stored.fingerprint[part] != given.fingerprint[part]
    )
    if differing:
        message = (
            f"{says}, {_apart(stored, given, differing)}: use the model as it was, ingest anew, or pass "
            "trust_model (--trust-model) if the vectors are alike"
        )
        raise SchemaMismatch(message, store="index", operation="open")


def _apart(stored: ModelRef, given: ModelRef, parts: Sequence[str]) -> str:
    """What differs between two models, and of their types which they are."""
    named = ", ".join(
        f"precision ({stored.precision} then, {given.precision} now)" if part == "precision" else part for part in parts
    )
    if stored.name != given.name:
        return f"and {given.name!r} differs in {named}"
    return f"which {'as loaded now' if parts == ['precision'] else 'has changed since: it'} differs in {named}"


def cut_test(model: LazyModel) -> Callable[[str], bool] | None:
    """Whether the model leaves out the end of a text; None where it never does, or where it shows no tokenizer to tell by."""
    loaded = model.load()
    room = _room(loaded)
    offsets = None if room is None else _offsets(loaded)
    if room is None or offsets is None:
        return None

    def cuts(text: str) -> bool:
        # A token is at least one character or part of one, so most texts need no counting: of UTF-8 none has more tokens than bytes.
        return len(text.encode()) > room and len(offsets(text)) > room

    return cuts


def spans_of(models: Sequence[LazyModel], how: Split) -> Spans:
    """Where the windows of texts lie, by the tokens of the first of the models that shows its tokenizer."""
    if not isinstance(how, Split):
        raise TypeError(f"split is a Split such as Split(tokens=256), not {how!r}")
    for model in models:
        loaded = model.load()
        offsets = _offsets(loaded)
        if offsets is None:
            continue
        room = _room(loaded)
        size = how.tokens or min(DEFAULT_TOKENS, room or DEFAULT_TOKENS)
        if room is not None and size > room:
            raise ValueError(
                f"windows of {size} tokens would be cut: the model takes {room}; leave out tokens, or give at most so many"
            )
        return partial(_spans, offsets=offsets, size=size, overlap=min(how.overlap, size // 2))
    raise ValueError("none of the models shows a tokenizer to split texts by: split them before, or pass split=None")


DEFAULT_TOKENS = 256


def _spans(text: str, *, offsets: Offsets, size: int, overlap: int) -> list[tuple[int, int]]:
    return [(window.start, window.end) for window in split(text, offsets, size=size, overlap=overlap)]


def _tokenizer(loaded: object) -> Any:
    """The Rust tokenizer of a model, ours or one of sentence-transformers; None where there is none to be seen."""
    shown = getattr(loaded, "tokenizer", None)
    inner = getattr(shown, "backend_tokenizer", shown)
    return inner if hasattr(inner, "to_str") and hasattr(inner, "encode") else None


def _offsets(loaded: object) -> Offsets | None:
    tokenizer = _tokenizer(loaded)
    return None if tokenizer is None else offsets_of(tokenizer)


def _room(loaded: object) -> int | None:
    """How many tokens of a text the model takes beside its special ones; None where it takes all."""
    limit = getattr(loaded, "max_seq_length", None)
    if not isinstance(limit, int):
        return None
    tokenizer = _tokenizer(loaded)
    return limit if tokenizer is None else limit - int(tokenizer.num_special_tokens_to_add(is_pair=False))
