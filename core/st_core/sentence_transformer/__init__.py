"""Encode texts as dense vectors, with the names and arguments of sentence-transformers 6.2."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from st_core.arguments import LoadArguments, Placement
from st_core.checkpoint.files import read_json
from st_core.encoder import Encoder
from st_core.engine.batches import empty_rows, joined, restore
from st_core.engine.inputs import UNSET, CallArguments, Input, Unset, one_or_many, pop_inputs
from st_core.engine.options import CallOptions
from st_core.engine.prepared import Computed, Prepared
from st_core.errors import ModelBroken, missing_extra
from st_core.modules.pooling import Pooling
from st_core.multi import OUTPUTS, Heads, MultiOutput
from st_core.renamed import accepts_old_names, warn_of_old_name
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from st_core.backends import Features, Rows
    from st_core.engine.plan import Device
    from st_core.modules import Module
    from st_core.processes.pool import WorkerPool
    from st_core.quantize import Precision
    from st_core.similarity import SimilarityFunction
    from st_core.tensors import Floats

__all__ = ["SentenceTransformer"]

logger = logging.getLogger(__name__)

RANGES = "quantization_ranges.json"
"""The file in which a model's calibration is saved."""

_NOWHERE: Mapping[int, int | None] = {}
_truncated_here: ContextVar[Mapping[int, int | None]] = ContextVar("truncated_here", default=_NOWHERE)
"""The widths set by ``with model.truncate_embeddings(...)`` in the current thread, by the ``id`` of the model."""

INSTRUCTOR = frozenset(("hkunlp/instructor-base", "hkunlp/instructor-large", "hkunlp/instructor-xl"))
"""Names of models whose vectors leave out the prompt, although their files do not say so."""

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


@dataclass(frozen=True, slots=True)
class _Target:
    """The form of the vectors that a call returns.

    ``width`` is the width to truncate to, None for the full width. ``precision`` None means float32. With ``stacked``
    the vectors are returned as one tensor and not as a list of tensors.
    """

    width: int | None
    normalize: bool
    precision: Precision | None
    as_tensors: bool
    stacked: bool


class SentenceTransformer(Encoder):
    """A model that encodes texts as dense vectors; safe in threads.

    ``model_name_or_path`` is a folder, a Hub name (a name without an organisation gets the prefix
    ``sentence-transformers/``) or a built-in model (``builtin:dense``). A model of static modules runs on numpy; other
    models need torch or a graph. The default ``device`` is CUDA if there is a GPU, else the CPU. The default ``dtype``
    is float32 on the CPU, and the dtype of the checkpoint on other devices.

    Raises ModelNotFound, ModelUnsupported or ModelBroken with the reason.
    """

    family = "SentenceTransformer"
    organisation = "sentence-transformers"
    default_similarity = "cosine"

    quantization_ranges: NDArray[np.float32] | None

    @accepts_old_names({"tokenizer_kwargs": "processor_kwargs", "use_auth_token": "token"})
    def __init__(
        self,
        model_name_or_path: str | PathLike[str] | None = None,
        *,
        similarity_fn_name: str | SimilarityFunction | None = None,
        truncate_dim: int | None = None,
        **loading: Unpack[LoadArguments],
    ) -> None:
        """Load the checkpoint; the other arguments are those of ``LoadArguments``."""
        self._load(model_name_or_path, loading)
        self._truncate_dim = truncate_dim if truncate_dim is not None else self._settings.get("truncate_dim")
        self._set_similarity(similarity_fn_name)
        self.quantization_ranges = _read_ranges(self.checkpoint.folder / RANGES, self._dimension())

    def _adjusted(self, modules: tuple[Module, ...], name: str) -> tuple[Module, ...]:
        if name in INSTRUCTOR:
            return tuple(
                replace(module, include_prompt=False) if isinstance(module, Pooling) else module for module in modules
            )
        pools_prompt = any(isinstance(module, Pooling) and module.include_prompt for module in modules)
        if pools_prompt and any("instructor" in part for part in name.lower().split("/")[1:2]):
            logger.warning(
                "%s: INSTRUCTOR models leave the prompt out of pooling, and this one includes it; "
                "call model.set_pooling_include_prompt(False)",
                name,
            )
        return modules

    def encode(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Device | Iterable[Device] = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> Any:
        """Return the vectors of texts [n, d] in order, as a float32 array; for a single text, return one vector [d].

        With ``convert_to_tensor`` the result is a tensor; without it and without ``convert_to_numpy`` it is a list of
        tensors. Batches are limited by a token budget, and ``batch_size`` can only make them smaller. With
        ``output_value="token_embeddings"`` the result is a list of arrays or tensors [tokens, d], and with
        ``output_value=None`` a list with all features of each input. ``truncate_dim`` truncates vectors before
        ``normalize_embeddings`` scales them to unit length. ``precision`` "int8" and "uint8" require an earlier call of
        :meth:`calibrate`. Further keyword arguments: ``task`` selects a route of a router, ``processing_kwargs`` sets
        ``max_length`` and ``truncation`` for this call, and ``sentences`` is the old name of ``inputs``.

        A single ``device`` moves the model to that device. With a list of devices, a process on each device computes
        part of the inputs, for this call only; with ``pool`` the processes of :meth:`start_multi_process_pool` do. Each
        process receives ``chunk_size`` inputs at a time. Vectors computed by several processes may differ in the last
        digits from those of one process, and tensors are returned on the CPU.

        Raises ValueError for unknown arguments and for inputs that are not texts.
        """
        listed, single = one_or_many(pop_inputs(inputs, kwargs))
        _check_precision(precision)
        options = self._options(
            kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        placement = Placement.of(device, pool, chunk_size)
        width = self._width(truncate_dim)
        if output_value != "sentence_embedding":
            parts = self._everywhere(placement, SentenceTransformer._features, listed, options, output_value, width)
            items = [item for part in parts for item in part]
            return items[0] if single else items
        target = _Target(
            width,
            normalize_embeddings,
            None if precision == "float32" else precision,
            as_tensors=convert_to_tensor or not convert_to_numpy,
            stacked=convert_to_tensor,
        )
        vectors = joined(self._everywhere(placement, SentenceTransformer._encode, listed, options, target))
        vectors = self._converted(vectors, target)
        return vectors[0] if single else vectors

    def encode_query(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Device | Iterable[Device] = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> Any:
        """Call :meth:`encode` for queries, with the task "query" and the prompt named "query".

        ``prompt_name`` and ``prompt`` replace that prompt. The arguments are those of :meth:`encode`, to which they are
        passed by name.
        """
        kwargs.setdefault("task", "query")
        return self.encode(
            inputs=pop_inputs(inputs, kwargs),
            prompt_name=self._query_prompt(prompt_name, prompt),
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
            **kwargs,
        )

    def encode_document(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding", "token_embeddings"] | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Device | Iterable[Device] = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> Any:
        """Call :meth:`encode` for documents, with the task "document" and the model's prompt for documents.

        That is the first of the prompts named "document", "passage" and "corpus" that the model has; ``prompt_name``
        and ``prompt`` replace it. The arguments are those of :meth:`encode`, to which they are passed by name.
        """
        kwargs.setdefault("task", "document")
        return self.encode(
            inputs=pop_inputs(inputs, kwargs),
            prompt_name=self._document_prompt(prompt_name, prompt),
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
            **kwargs,
        )

    def prepare(
        self,
        inputs: object,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        batch_size: int | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> Prepared:
        """Tokenize the texts of a request, as the first of the three steps of :meth:`encode`.

        The arguments are those of :meth:`encode`. ``finish(compute([prepare(inputs)])[0])`` returns the result of
        ``encode(inputs)``. With separate steps, a server can compute several requests together, and can read the number
        of tokens of each text (``lengths``) before the computation.
        """
        listed, single = one_or_many(inputs)
        options = self._options(kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size)
        return self._engine.prepare(listed, options, is_single=single)

    def finish(
        self,
        computed: Computed[Rows],
        *,
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        """Return the vectors of a computed request, as the last step of :meth:`encode`.

        The arguments are those of :meth:`encode`.
        """
        _check_precision(precision)
        target = _Target(
            self._width(truncate_dim),
            normalize_embeddings,
            None if precision == "float32" else precision,
            as_tensors=convert_to_tensor or not convert_to_numpy,
            stacked=convert_to_tensor,
        )
        vectors = self._converted(self._vectors(computed, target), target)
        return vectors[0] if computed.prepared.is_single else vectors

    def _width(self, truncate_dim: int | None) -> int | None:
        """Return the width that vectors are truncated to: the argument, else the model's setting; None for full width.

        Raises ValueError for a width below 1.
        """
        width = truncate_dim if truncate_dim is not None else self.truncate_dim
        if width is not None and width < 1:
            raise ValueError(f"truncate_dim must be a positive integer, got {width}")
        return width

    def _rows(self, requests: Sequence[Prepared], finish_batch: Callable[[NDArray[np.int64]], None]) -> Rows:
        rows: Rows = None
        for positions, features in self._engine.compute(requests, pooled=True):
            part = _embedding(features)
            if len(requests) == 1 == len(requests[0]):
                finish_batch(positions)
                return part
            if rows is None:
                rows = empty_rows(part, sum(len(request) for request in requests))
            rows[positions] = part
            finish_batch(positions)
        return np.zeros((0, self._dimension() or 0), np.float32) if rows is None else rows

    def _vectors(self, computed: Computed[Rows], target: _Target) -> Rows:
        """Return the vectors of a request as an array or a tensor, truncated and normalised as ``target`` specifies."""
        as_tensor = target.as_tensors and not (target.precision and len(computed.prepared))
        if not len(computed.prepared):
            return _no_tensor(self.device) if as_tensor else np.array([])
        runner = self._engine.runner(computed.prepared.options.task)
        vectors = runner.finish(computed.rows, target.width, normalize=target.normalize)
        if not as_tensor:
            return _as_array(vectors)
        return _tensor(vectors) if isinstance(vectors, np.ndarray) else vectors

    def _encode(self, inputs: list[Input], options: CallOptions, target: _Target) -> Rows:
        """Return the vectors of all inputs of a call, or of the chunk of them that a worker process received."""
        vectors: Rows = None
        start = 0
        for computed in self._computed_windows(inputs, options):
            part = self._vectors(computed, target)
            if len(part) == len(inputs):
                return part
            if vectors is None:
                vectors = empty_rows(part, len(inputs))
            vectors[start : start + len(part)] = part
            start += len(part)
        return vectors

    def _converted(self, vectors: Rows, target: _Target) -> Rows:
        """Return finished vectors in the requested precision and type."""
        if target.precision and len(vectors):
            vectors = self._quantize(vectors, target.precision)
        return _as_tensors(vectors, stacked=target.stacked) if target.as_tensors else vectors

    def _features(
        self, inputs: list[Input], options: CallOptions, output_value: str | None, width: int | None
    ) -> list[object]:
        """Return all features of each input, or only its token embeddings if ``output_value`` names them.

        Its ``sentence_embedding`` has at most ``width`` dimensions.
        """
        if output_value not in (None, "token_embeddings"):
            raise ValueError(
                f"unknown output_value {output_value!r}; expected sentence_embedding, token_embeddings or None"
            )
        outputs = self._engine.runner(options.task).info.outputs
        if output_value is not None and outputs is not None and output_value not in outputs:
            raise ValueError(
                f"the graph for backend={self.backend!r} has no {output_value}: it computes only the token that the "
                "model's "
                "pooling reads; load the model with backend='torch'"
            )
        parts = [
            (positions, [_item(features, row, output_value, width) for row in range(positions.size)])
            for positions, features in self._engine.run(inputs, options)
        ]
        return restore(parts, len(inputs))

    def encode_multi(
        self,
        inputs: Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        outputs: Collection[str] = ("dense", "sparse"),
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> MultiOutput:
        """Return the requested outputs for each text from one forward pass, for a model like BGE-M3.

        ``outputs`` are one or more of "dense" (the vectors that :meth:`encode` returns), "sparse" (a row with the
        largest weight of each distinct token of the text, over the vocabulary) and "multi_vector" (a unit vector for
        each token except the first); the other outputs of the result are None. The other arguments are those of
        :meth:`encode`. Raises ModelUnsupported for an output that the checkpoint does not have, and on onnx and
        openvino for outputs other than "dense".
        """
        unknown = set(outputs) - set(OUTPUTS)
        if unknown or not outputs or isinstance(outputs, str):
            raise ValueError(f"outputs must be some of {', '.join(OUTPUTS)}, got {outputs!r}")
        listed, single = one_or_many(inputs)
        if single:
            raise ValueError("encode_multi takes a list of texts, got one text; put it into a list")
        options = self._options(
            kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        heads = Heads.of(self._engine, options.task, self.checkpoint.folder, outputs)
        parts = [
            (positions, heads.read(features, self._engine.runner(options.task), self.truncate_dim))
            for positions, features in self._engine.run(listed, options)
        ]
        return heads.together(parts)

    def calibrate(self, inputs: object, **kwargs: Any) -> NDArray[np.float32]:
        """Set and return the ranges for ``precision`` "int8" and "uint8": minimum and maximum per dimension [2, d].

        ``inputs`` are typical texts, or their vectors [n, d]; the other arguments are those of :meth:`encode`. The
        ranges are stored as ``quantization_ranges``, so that vectors of different calls are comparable, and they are
        saved with the model.
        """
        from st_core.quantize import quantization_ranges

        vectors = inputs if isinstance(inputs, np.ndarray) and inputs.ndim == 2 else self.encode(inputs, **kwargs)
        self.quantization_ranges = np.asarray(quantization_ranges(vectors), np.float32)
        return self.quantization_ranges

    def _now_saved(self) -> dict[str, object]:
        return super()._now_saved() | {"truncate_dim": self._truncate_dim}

    def _saved_files(self) -> dict[str, object]:
        ranges = self.quantization_ranges
        return {} if ranges is None else {RANGES: {"least": ranges[0].tolist(), "greatest": ranges[1].tolist()}}

    def _quantize(self, vectors: Rows, precision: Precision) -> Rows:
        from st_core.quantize import quantize_embeddings

        ranges = self.quantization_ranges
        if precision in ("int8", "uint8"):
            if ranges is None:
                raise ValueError(
                    f"precision={precision!r} needs calibrated ranges: call model.calibrate(typical_texts) first, "
                    "or quantize_embeddings(vectors, precision) to take the ranges from these vectors"
                )
            if ranges.shape[1] < vectors.shape[1]:
                raise ValueError(
                    f"the ranges are for {ranges.shape[1]} dimensions and the vectors have {vectors.shape[1]}: "
                    "calibrate again"
                )
            ranges = ranges[:, : vectors.shape[1]]
        return quantize_embeddings(vectors, precision, ranges)

    @property
    def truncate_dim(self) -> int | None:
        """The width that vectors are truncated to by default; None for the full width."""
        here = _truncated_here.get().get(id(self), UNSET)
        return self._truncate_dim if isinstance(here, Unset) else here

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self._truncate_dim = value

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Truncate vectors to another width within a ``with`` block, in the current thread only."""
        before = _truncated_here.set({**_truncated_here.get(), id(self): truncate_dim})
        try:
            yield
        finally:
            _truncated_here.reset(before)

    def truncate_sentence_embeddings(self, truncate_dim: int | None) -> AbstractContextManager[None]:
        """Call :meth:`truncate_embeddings`, under its old name."""
        warn_of_old_name("truncate_sentence_embeddings is now named truncate_embeddings")
        return self.truncate_embeddings(truncate_dim)

    def encode_multi_process(self, sentences: object, pool: WorkerPool, **kwargs: Any) -> Any:
        """Call :meth:`encode` with a pool, under its old name; the other arguments are those of :meth:`encode`."""
        warn_of_old_name("encode_multi_process is now named encode, with the argument pool")
        return self.encode(sentences, pool=pool, **kwargs)

    @staticmethod
    def load(input_path: str | PathLike[str]) -> SentenceTransformer:
        """Return ``SentenceTransformer(input_path)``; the old name of the constructor."""
        warn_of_old_name("SentenceTransformer.load(path) is now named SentenceTransformer(path)")
        return SentenceTransformer(input_path)

    def get_embedding_dimension(self) -> int | None:
        """Return the width of the vectors."""
        width = self._dimension()
        if self.truncate_dim is None:
            return width
        return self.truncate_dim if width is None else min(width, self.truncate_dim)


def _read_ranges(path: Path, width: int | None) -> NDArray[np.float32] | None:
    """Return the calibration that is saved with a model [2, d], or None if there is no such file.

    ``width`` is the width of the model's vectors, None if it is unknown. Raises ModelBroken if the file does not
    contain valid ranges for vectors of that width.
    """
    if not path.is_file():
        return None
    value: Any = read_json(path)
    try:
        ranges = np.array([value["least"], value["greatest"]], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelBroken(f"{path}: expected two lists of numbers, least and greatest") from error
    if ranges.ndim != 2 or not np.isfinite(ranges).all() or (ranges[0] > ranges[1]).any():
        raise ModelBroken(f"{path}: expected finite ranges, least below greatest")
    if width is not None and ranges.shape[1] > width:
        raise ModelBroken(f"{path}: ranges of {ranges.shape[1]} dimensions for vectors of {width}")
    return ranges


def _check_precision(precision: str | None) -> None:
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")


def _embedding(features: Features) -> Rows:
    try:
        vectors = features["sentence_embedding"]
    except KeyError as error:
        raise ValueError("the model's modules write no sentence_embedding; a pooling module is missing") from error
    return vectors.to_dense() if isinstance(vectors, SparseMatrix) else vectors


def _as_array(part: Rows) -> Floats:
    if isinstance(part, np.ndarray):
        return part
    from st_core.backends.torch.library import as_numpy

    return as_numpy(part)


def _tensor(array: NDArray[np.float32]) -> torch.Tensor:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "a tensor") from error
    return torch.from_numpy(np.ascontiguousarray(array))


def _no_tensor(device: str | torch.device) -> torch.Tensor:
    tensor = _tensor(np.empty(0, np.float32))
    return tensor.to(device)


def _as_tensors(vectors: Rows, *, stacked: bool) -> torch.Tensor | list[torch.Tensor]:
    tensor = _tensor(vectors) if isinstance(vectors, np.ndarray) else vectors
    return tensor if stacked else list(tensor)


def _item(features: Features, row: int, output_value: str | None, width: int | None) -> object:
    """Return the features of the input at ``row`` without padding, or only the feature ``output_value``.

    ``width`` is the largest width of the ``sentence_embedding``, None for the full width.
    """
    tokens = features["tokens"]
    mask = features.get("attention_mask")
    real = slice(None) if mask is None else mask[row] > 0
    positions = None if mask is None else mask.shape[1]
    if output_value is not None:
        if output_value not in features:
            raise ValueError(f"the model has no {output_value}: its vectors are not pooled from token vectors")
        return features[output_value][row][real]
    item: Features = {}
    for name, value in features.items():
        if name == "tokens":
            continue
        if name == "prompt_length":
            item[name] = int(value[row])
        elif not hasattr(value, "shape") or value.shape[:1] != (len(tokens),):
            item[name] = value
        elif name == "sentence_embedding":
            item[name] = value[row][:width]
        elif value.ndim > 1 and value.shape[1] == positions:
            item[name] = value[row][real]
        else:
            item[name] = value[row]
    return item
