"""Models as they are served: the tasks of calls, each with a step before and a step after the computation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np

from st_connectors.server.batching import Compute, Job
from st_connectors.server.calls import (
    Call,
    Decode,
    Embed,
    EmbedSparse,
    EmbedTokens,
    Reading,
    Result,
    Role,
    Scale,
    Score,
    Scores,
    SparseVectors,
    Text,
    Texts,
    Token,
    Tokenize,
    TokenLists,
    TokenVectors,
    Usage,
    Vectors,
    kind_of,
)
from st_connectors.server.faults import Fault, FaultKind
from st_core.backends.numpy.modules import ACTIVATIONS, sigmoid
from st_core.engine.prepared import Prepared
from st_core.fingerprint import describe
from st_core.protocols import ModelKind, ModelRef
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ServedModel", "Task"]

AnyResult = TypeVar("AnyResult")


class Task(Protocol):
    """A call of one model in two steps around the computation, each run on a thread of the pool."""

    def prepare(self) -> Prepared:
        """Return the tokens of the call; raises Fault for a call that cannot be answered."""
        ...

    def finish(self, job: Job[Any]) -> Result:
        """Return the result of the call from what was computed."""
        ...


class ServedModel:
    """A model with its name, on one or several devices; safe in threads."""

    def __init__(
        self,
        name: str,
        kind: ModelKind,
        models: Sequence[Any],
        *,
        aliases: Sequence[str] = (),
        auto_truncate: bool = True,
        max_tokens: int = 1_000_000,
    ) -> None:
        """Store the loaded models; ``max_tokens`` limits the tokens of a call."""
        self.name = name
        self.kind = kind
        self.aliases = tuple(aliases)
        self.model = models[0]
        self.computes: tuple[Compute, ...] = tuple(each.compute for each in models)
        self.auto_truncate = auto_truncate
        self.max_tokens = max_tokens
        self.ref: ModelRef = describe(self.model)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels of a reranker."""
        named: Mapping[str, str] = self.model.checkpoint.config.get("id2label") or {}
        return tuple(str(named.get(str(each), f"LABEL_{each}")) for each in range(self.ref.dimension))

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The token of each dimension of a sparse vector; empty if dimensions are not tokens."""
        backend = self.model.backend_tokenizer
        if backend is None or self.ref.dimension < backend.get_vocab_size():
            return ()
        return tuple(backend.id_to_token(index) or str(index) for index in range(self.ref.dimension))

    @cached_property
    def keeping_end(self) -> Any:
        """A copy of the model that cuts the beginning of long texts off; it shares the weights."""
        twin = copy.copy(self.model)
        tokenizer = twin.tokenizer
        if hasattr(tokenizer, "truncation_side"):
            tokenizer.truncation_side = "left"
        elif hasattr(tokenizer, "enable_truncation"):
            length = (tokenizer.truncation or {}).get("max_length") or self.ref.max_tokens
            if length is not None:
                tokenizer.enable_truncation(length, direction="left")
        else:
            raise Fault(FaultKind.INVALID, f"the model {self.name!r} cannot truncate texts at their beginning")
        return twin

    def task(self, call: Call) -> Task | None:
        """Return the task of a call; None for a call that is answered without a computation in batches."""
        match call:
            case Embed():
                return _EmbedTask(self, call)
            case EmbedSparse():
                return _SparseTask(self, call)
            case Score():
                return _ScoreTask(self, call)
            case _:
                return None

    def answer(self, call: Call) -> Result:
        """Return the result of a call for which there is no task."""
        match call:
            case EmbedTokens():
                return _token_vectors(self, call)
            case Tokenize():
                return _tokens(self, call)
            case Decode():
                return Texts(self._spent(len(call.ids)), tuple(self._decoded(call)))
            case _:
                raise AssertionError(f"a task answers {type(call).__name__}")

    def check_kind(self, call: Call) -> None:
        """Raise Fault for a call that needs a model of another kind."""
        needed = kind_of(call)
        if needed is not None and needed is not self.kind:
            raise Fault(
                FaultKind.WRONG_KIND, f"the model {self.name!r} is {self.kind}; this route needs one that is {needed}"
            )

    def _decoded(self, call: Decode) -> list[str]:
        return [self.decode(row, skip_special_tokens=call.skip_special_tokens) for row in call.ids]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids; raise Fault for an id that the tokenizer does not have."""
        backend = self.backend_tokenizer
        size = backend.get_vocab_size()
        if any(index >= size for index in ids):
            raise Fault(FaultKind.INVALID, f"a token id is outside the vocabulary, which has {size} tokens")
        return str(backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    @property
    def backend_tokenizer(self) -> Any:
        """The tokenizer of the tokenizers library; raises Fault for a model with another one."""
        backend = self.model.backend_tokenizer
        if backend is None:
            raise Fault(FaultKind.WRONG_KIND, f"the tokenizer of the model {self.name!r} does not show its tokens")
        return backend

    def texts(self, texts: Sequence[Text]) -> list[str]:
        """Return texts, with the texts of token ids."""
        return [each if isinstance(each, str) else self.decode(each) for each in texts]

    def _spent(self, count: int) -> Usage:
        return Usage(self.name, np.zeros(count, np.int64), np.zeros(count, np.bool_))

    def usage(self, prepared: Prepared, is_truncated: NDArray[np.bool_], job: Job[Any]) -> Usage:
        """Return what a job used."""
        return Usage(self.name, prepared.lengths, is_truncated, job.tokenize_s, job.queue_s, job.compute_s)


def _read(
    served: ServedModel, inputs: Sequence[Any], reading: Reading, prepare: Callable[..., Prepared]
) -> tuple[Prepared, NDArray[np.bool_]]:
    """Return the tokens of inputs, and which inputs were truncated; raise Fault for those that may not be.

    ``prepare`` is called with the model that tokenizes, the inputs, and the options of the call.
    """
    model = served.keeping_end if reading.keep_end else served.model
    _check_prompt(served, reading)
    prepared = prepare(model, inputs, {})
    limit = model.token_limit(prepared)
    if reading.max_tokens is not None and (limit is None or reading.max_tokens < limit):
        limit = reading.max_tokens
        prepared = _limited(prepare, model, inputs, limit)
    total = int(prepared.lengths.sum())
    if total > served.max_tokens:
        raise Fault(FaultKind.TOO_MANY, f"the request has {total} tokens; up to {served.max_tokens} are allowed")
    is_truncated = np.zeros(len(prepared), np.bool_)
    suspects = [] if limit is None else np.flatnonzero(prepared.lengths >= limit).tolist()
    if suspects:
        whole = prepare(model, [inputs[position] for position in suspects], {"truncation": False}).lengths
        is_truncated[suspects] = whole > prepared.lengths[suspects]
        may_cut = served.auto_truncate if reading.truncate is None else reading.truncate
        if is_truncated.any() and not may_cut:
            first = int(np.flatnonzero(is_truncated)[0])
            raise Fault(
                FaultKind.TOO_LONG,
                f"input {first} has {int(whole[suspects.index(first)])} tokens; the model {served.name!r} reads up to "
                f"{limit}: shorten it, or request truncation",
            )
    return prepared, is_truncated


def _limited(prepare: Callable[..., Prepared], model: Any, inputs: Sequence[Any], limit: int) -> Prepared:
    try:
        return prepare(model, inputs, {"max_length": limit})
    except ValueError as error:
        raise Fault(FaultKind.INVALID, str(error)) from error


def _check_prompt(served: ServedModel, reading: Reading) -> None:
    prompts = served.model.prompts
    if reading.prompt_name is not None and reading.prompt_name not in prompts:
        known = ", ".join(sorted(prompts)) or "none"
        raise Fault(
            FaultKind.INVALID,
            f"the model {served.name!r} has no prompt of this name; it has: {known}",
            field="prompt_name",
        )


def _prepared_texts(
    model: Any, texts: Sequence[str], reading: Reading, processing: Mapping[str, object], **options: object
) -> Prepared:
    """Return the tokens of texts as queries, as documents, or as neither."""
    steps = {Role.QUERY: model.prepare_query, Role.DOCUMENT: model.prepare_document}
    prepare = model.prepare if reading.role is None else steps[reading.role]
    return cast(
        "Prepared", prepare(list(texts), reading.prompt_name, reading.prompt, processing_kwargs=processing, **options)
    )


def _together(rows: Sequence[AnyResult], joined: Callable[[Sequence[AnyResult]], AnyResult]) -> AnyResult:
    """Return the rows of the parts of a call as one."""
    return rows[0] if len(rows) == 1 else joined(rows)


class _EmbedTask:
    """Dense vectors."""

    def __init__(self, served: ServedModel, call: Embed) -> None:
        self._served, self._call = served, call
        self._is_truncated = np.zeros(0, np.bool_)

    def prepare(self) -> Prepared:
        served, call = self._served, self._call
        if call.dimensions is not None and call.dimensions > served.ref.dimension:
            raise Fault(
                FaultKind.INVALID,
                f"dimensions: the model {served.name!r} has {served.ref.dimension}, got {call.dimensions}",
                field="dimensions",
            )
        prepared, self._is_truncated = _read(
            served,
            served.texts(call.texts),
            call.reading,
            lambda model, texts, processing: _prepared_texts(model, texts, call.reading, processing),
        )
        return prepared

    def finish(self, job: Job[Any]) -> Vectors:
        served, call = self._served, self._call
        model = served.model
        normalize = model.similarity_fn_name == "cosine" if call.normalize is None else call.normalize
        options = {"normalize_embeddings": normalize, "truncate_dim": call.dimensions}
        parts = [np.asarray(model.finish(each, **options), np.float32) for each in job.computed]
        width = call.dimensions or served.ref.dimension
        rows = _together(parts, np.concatenate) if parts else np.zeros((0, width), np.float32)
        _check_finite(served, rows)
        assert job.prepared is not None
        return Vectors(served.usage(job.prepared, self._is_truncated, job), np.ascontiguousarray(rows))


class _SparseTask:
    """Sparse vectors."""

    def __init__(self, served: ServedModel, call: EmbedSparse) -> None:
        self._served, self._call = served, call
        self._is_truncated = np.zeros(0, np.bool_)

    def prepare(self) -> Prepared:
        served, call = self._served, self._call
        keep = call.max_active_dims
        prepared, self._is_truncated = _read(
            served,
            served.texts(call.texts),
            call.reading,
            lambda model, texts, processing: _prepared_texts(
                model, texts, call.reading, processing, max_active_dims=keep
            ),
        )
        return prepared

    def finish(self, job: Job[Any]) -> SparseVectors:
        served = self._served
        width = served.ref.dimension
        parts: list[SparseMatrix] = [served.model.finish(each) for each in job.computed]
        empty = SparseMatrix.from_rows([], width)
        matrix = _together(parts, lambda all_parts: SparseMatrix.concatenate(all_parts, width)) if parts else empty
        assert job.prepared is not None
        return SparseVectors(served.usage(job.prepared, self._is_truncated, job), matrix, served.tokens)


class _ScoreTask:
    """Scores of pairs."""

    def __init__(self, served: ServedModel, call: Score) -> None:
        self._served, self._call = served, call
        self._is_truncated = np.zeros(0, np.bool_)

    def prepare(self) -> Prepared:
        served, call = self._served, self._call
        if call.is_ranking and served.ref.dimension != 1:
            raise Fault(
                FaultKind.WRONG_KIND,
                f"the model {served.name!r} has {served.ref.dimension} labels; a reranker has one",
            )
        prepared, self._is_truncated = _read(
            served,
            call.pairs,
            call.reading,
            lambda model, pairs, processing: model.prepare(
                list(pairs), call.reading.prompt_name, call.reading.prompt, processing_kwargs=processing
            ),
        )
        return prepared

    def finish(self, job: Job[Any]) -> Scores:
        served, call = self._served, self._call
        labels = served.ref.dimension
        parts = [_scaled(served.model, each, call.scale).reshape(-1, labels) for each in job.computed]
        values = _together(parts, np.concatenate) if parts else np.zeros((0, labels), np.float32)
        _check_finite(served, values)
        assert job.prepared is not None
        return Scores(served.usage(job.prepared, self._is_truncated, job), values, served.labels)


def _scaled(model: Any, computed: Any, scale: Scale) -> NDArray[np.float32]:
    """Return the scores of a part in a scale."""
    if scale is Scale.OWN:
        return np.asarray(model.finish(computed), np.float32)
    is_softmax = scale is Scale.UNIT and model.num_labels > 1
    logits = np.asarray(
        model.finish(computed, activation_fn=ACTIVATIONS["Identity"], apply_softmax=is_softmax), np.float32
    )
    return sigmoid(logits) if scale is Scale.UNIT and not is_softmax else logits


def _check_finite(served: ServedModel, rows: NDArray[np.float32]) -> None:
    """Raise Fault for NaN and infinity, which JSON does not have."""
    if not np.isfinite(rows).all():
        raise Fault(FaultKind.FAILED, f"the model {served.name!r} computed a value that is not a finite number")


def _token_vectors(served: ServedModel, call: EmbedTokens) -> TokenVectors:
    texts = served.texts(call.texts)
    prepared, is_truncated = _read(
        served,
        texts,
        call.reading,
        lambda model, each, processing: _prepared_texts(model, each, call.reading, processing),
    )
    names = {Role.QUERY: "encode_query", Role.DOCUMENT: "encode_document"}
    encode = getattr(served.model, "encode" if call.reading.role is None else names[call.reading.role])
    features = encode(texts, call.reading.prompt_name, call.reading.prompt, output_value=None)
    if any("token_embeddings" not in each for each in features):
        raise Fault(FaultKind.WRONG_KIND, f"the model {served.name!r} does not compute vectors of tokens")
    usage = Usage(served.name, prepared.lengths, is_truncated)
    return TokenVectors(usage, tuple(_array(each["token_embeddings"]) for each in features))


def _array(row: Any) -> NDArray[np.float32]:
    """Return a tensor or an array as an array in memory order."""
    values = row.detach().float().cpu().numpy() if hasattr(row, "detach") else row
    return np.ascontiguousarray(values, np.float32)


def _tokens(served: ServedModel, call: Tokenize) -> TokenLists:
    _check_prompt(served, Reading(prompt_name=call.prompt_name))
    prompt = served.model.prompts[call.prompt_name] if call.prompt_name else ""
    backend = served.backend_tokenizer
    rows = [
        _token_row(backend.encode(prompt + text, add_special_tokens=call.add_special_tokens), prompt + text)
        for text in call.texts
    ]
    lengths = np.array([len(row) for row in rows], np.int64)
    return TokenLists(Usage(served.name, lengths, np.zeros(len(rows), np.bool_)), tuple(rows))


def _token_row(encoding: Any, text: str) -> tuple[Token, ...]:
    parts = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
    return tuple(
        Token(index, token, True, None, None) if is_special else Token(index, text[start:stop], False, start, stop)
        for index, token, is_special, (start, stop) in parts
    )
