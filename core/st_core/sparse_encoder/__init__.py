"""Encode texts as sparse vectors, with the names and arguments of sentence-transformers 6.2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from st_core.arguments import LoadArguments, Placement
from st_core.encoder import Encoder
from st_core.engine.inputs import UNSET, CallArguments, Input, Unset, check_positive, one_or_many, pop_inputs
from st_core.engine.options import CallOptions
from st_core.engine.prepared import Computed, Prepared
from st_core.modules.sparse_auto_encoder import SparseAutoEncoder
from st_core.renamed import accepts_old_names
from st_core.vectors import SparseMatrix, SparseVector

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from st_core.backends import Vectors
    from st_core.engine.plan import Device
    from st_core.processes.pool import WorkerPool
    from st_core.similarity import SimilarityFunction

__all__ = ["SparseEncoder"]


class _OfModelOrClass:
    """A method that can also be called on the class; its ``self`` is None in that case."""

    def __init__(self, function: Callable[[SparseEncoder | None, object], dict[str, float]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: SparseEncoder | None, owner: type) -> Callable[[object], dict[str, float]]:
        return partial(self._function, instance)


class SparseEncoder(Encoder):
    """A model that encodes texts as sparse vectors over its vocabulary.

    ``model_name_or_path`` is a folder, a Hub name (a name without an organisation gets the prefix ``sparse-encoder/``)
    or a built-in model (``builtin:sparse``). Devices, dtypes and thread safety are as in
    :class:`st_core.SentenceTransformer`. Weights that are not positive are dropped, because sparse vectors have the
    normal form of :mod:`st_core.vectors`.
    """

    family = "SparseEncoder"
    organisation = "sparse-encoder"
    default_similarity = "dot"

    max_active_dims: int | None

    @accepts_old_names({"tokenizer_kwargs": "processor_kwargs"})
    def __init__(
        self,
        model_name_or_path: str | PathLike[str] | None = None,
        *,
        similarity_fn_name: str | SimilarityFunction | None = None,
        max_active_dims: int | None = None,
        **loading: Unpack[LoadArguments],
    ) -> None:
        """Load the checkpoint; the other arguments are those of ``LoadArguments``."""
        check_positive("max_active_dims", max_active_dims)
        self._load(model_name_or_path, loading)
        saved = self._settings.get("max_active_dims")
        coders = [module for module in self._engine.modules if isinstance(module, SparseAutoEncoder)]
        if saved is None and coders:
            saved = coders[-1].keep
        self.max_active_dims = max_active_dims if max_active_dims is not None else saved
        self._set_similarity(similarity_fn_name)

    def encode(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Device | Iterable[Device] = None,
        max_active_dims: int | None = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> Any:
        """Return the vectors of texts in order as a :class:`SparseMatrix` [n, V].

        For a single text, return a :class:`SparseVector`.

        With ``convert_to_tensor`` the result is a torch COO tensor, or a dense tensor with
        ``convert_to_sparse_tensor=False``; with ``save_to_cpu`` the tensor is on the CPU. ``max_active_dims`` is the
        number of largest weights that each vector keeps; among equal weights, those with the lower indices are kept.
        The other arguments are those of :meth:`st_core.SentenceTransformer.encode`.
        """
        keep = max_active_dims if max_active_dims is not None else self.max_active_dims
        check_positive("max_active_dims", keep)
        is_here = device is None and pool is None and chunk_size is None
        is_plain = is_here and batch_size is None and not convert_to_tensor and not show_progress_bar
        if is_plain and isinstance(inputs, str) and len(kwargs) == ("task" in kwargs):
            engine = self._current()
            one = engine.one_text(kwargs.get("task"))
            if one is not None:
                chosen = self._prompt(prompt, prompt_name)
                limit = one.max_length if isinstance(engine.limit, Unset) else engine.limit
                vector = one(chosen + inputs if chosen else inputs, limit)
                return vector if keep is None else vector.top(keep)
        listed, single = one_or_many(pop_inputs(inputs, kwargs))
        options = self._options(
            kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        placement = Placement.of(device, pool, chunk_size)
        parts = self._everywhere(placement, SparseEncoder._encode, listed, replace(options, keep=keep))
        matrix = parts[0] if len(parts) == 1 else SparseMatrix.concatenate(parts, parts[0].shape[1])
        return self._converted(
            matrix,
            single=single,
            to_tensor=convert_to_tensor,
            to_sparse_tensor=convert_to_sparse_tensor,
            to_cpu=save_to_cpu,
        )

    def encode_query(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Device | Iterable[Device] = None,
        max_active_dims: int | None = None,
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
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
            save_to_cpu=save_to_cpu,
            device=device,
            max_active_dims=max_active_dims,
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
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: Device | Iterable[Device] = None,
        max_active_dims: int | None = None,
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
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
            save_to_cpu=save_to_cpu,
            device=device,
            max_active_dims=max_active_dims,
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
        max_active_dims: int | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> Prepared:
        """Tokenize the texts of a request, as the first of the three steps of :meth:`encode`.

        The arguments are those of :meth:`encode`. ``finish(compute([prepare(inputs)])[0])`` returns the result of
        ``encode(inputs)``; see :meth:`st_core.SentenceTransformer.prepare`. Requests with different
        ``max_active_dims`` do not share batches.
        """
        keep = max_active_dims if max_active_dims is not None else self.max_active_dims
        check_positive("max_active_dims", keep)
        listed, single = one_or_many(inputs)
        options = self._options(kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size)
        return self._engine.prepare(listed, replace(options, keep=keep), is_single=single)

    def finish(
        self,
        computed: Computed[SparseMatrix],
        *,
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
    ) -> Any:
        """Return the vectors of a computed request, as the last step of :meth:`encode`.

        The arguments are those of :meth:`encode`.
        """
        return self._converted(
            computed.rows,
            single=computed.prepared.is_single,
            to_tensor=convert_to_tensor,
            to_sparse_tensor=convert_to_sparse_tensor,
            to_cpu=save_to_cpu,
        )

    def _rows(self, requests: Sequence[Prepared], finish_batch: Callable[[NDArray[np.int64]], None]) -> SparseMatrix:
        keep = requests[0].options.keep
        order: list[NDArray[np.int64]] = []
        parts: list[SparseMatrix] = []
        for positions, features in self._engine.compute(requests, pooled=True):
            order.append(positions)
            parts.append(_sparse(features["sentence_embedding"], keep))
            finish_batch(positions)
        if not parts:
            return SparseMatrix.from_rows([], self.get_embedding_dimension() or 0)
        if len(parts[0]) == 1 == len(parts):
            return parts[0]
        together = SparseMatrix.concatenate(parts, parts[0].shape[1])
        return _rearranged(together, np.argsort(np.concatenate(order)))

    def _encode(self, inputs: list[Input], options: CallOptions) -> SparseMatrix:
        """Return the vectors of all inputs of a call, or of the chunk of them that a worker process received."""
        parts = [computed.rows for computed in self._computed_windows(inputs, options)]
        return parts[0] if len(parts) == 1 else SparseMatrix.concatenate(parts, parts[0].shape[1])

    def _converted(
        self, matrix: SparseMatrix, *, single: bool, to_tensor: bool, to_sparse_tensor: bool, to_cpu: bool
    ) -> SparseMatrix | SparseVector | torch.Tensor:
        """Return vectors in the requested type; with ``single`` only the first one."""
        if not to_tensor:
            return matrix[0] if single else matrix
        tensor = matrix.to_torch()
        tensor = tensor if to_sparse_tensor else tensor.to_dense()
        if not to_cpu:
            tensor = tensor.to(self.device)
        return tensor[0] if single else tensor

    def _now_saved(self) -> dict[str, object]:
        return super()._now_saved() | {"max_active_dims": self.max_active_dims}

    def get_embedding_dimension(self) -> int | None:
        """Return the width of the vectors, which is the size of the vocabulary."""
        return self._dimension()

    @_OfModelOrClass
    def sparsity(self: SparseEncoder | None, embeddings: object) -> dict[str, float]:
        """Return ``active_dims``, the mean number of weights of a vector, and ``sparsity_ratio``, as a dict.

        ``sparsity_ratio`` is the fraction of dimensions without a weight. The method can be called on the class; it
        then raises TypeError for a SparseVector, whose number of dimensions is unknown without a model.
        """
        if self is None and isinstance(embeddings, SparseVector):
            raise TypeError("a SparseVector does not know its dimensions; call sparsity on the model, or pass a matrix")
        matrix = _as_matrix(embeddings, None if self is None else self.get_embedding_dimension())
        rows, width = matrix.shape
        if rows == 0 or width == 0:
            return {"active_dims": 0.0, "sparsity_ratio": 1.0}
        active = matrix.indices.size / rows
        return {"active_dims": float(active), "sparsity_ratio": float(1.0 - active / width)}

    @overload
    @staticmethod
    def intersection(embeddings_1: object, embeddings_2: SparseVector) -> SparseVector: ...
    @overload
    @staticmethod
    def intersection(embeddings_1: object, embeddings_2: SparseMatrix) -> SparseMatrix: ...
    @overload
    @staticmethod
    def intersection(embeddings_1: object, embeddings_2: torch.Tensor) -> torch.Tensor: ...
    @staticmethod
    def intersection(
        embeddings_1: object, embeddings_2: SparseVector | SparseMatrix | torch.Tensor
    ) -> SparseVector | SparseMatrix | torch.Tensor:
        """Return the elementwise product of a vector with a vector or with each row of a matrix.

        ``embeddings_1`` must be a single vector. The result has the type of ``embeddings_2``: a SparseVector, a
        SparseMatrix, or a torch COO tensor.
        """
        first, second = _as_matrix(embeddings_1, None), _as_matrix(embeddings_2, None)
        if len(first) != 1 or getattr(embeddings_1, "ndim", 1) != 1:
            raise ValueError("embeddings_1 must be one vector")
        sides = ((first, embeddings_1), (second, embeddings_2))
        known = [matrix.shape[1] for matrix, given in sides if not isinstance(given, SparseVector)]
        if known and max(first.shape[1], second.shape[1]) > min(known):
            raise ValueError(f"vectors of {first.shape[1]} and of {second.shape[1]} dimensions do not intersect")
        shared = SparseMatrix.from_rows([_product(first[0], row) for row in second.rows()], second.shape[1])
        if isinstance(embeddings_2, SparseMatrix):
            return shared
        if isinstance(embeddings_2, SparseVector):
            return shared[0]
        tensor = shared.to_torch().to(embeddings_2.device)
        return tensor if embeddings_2.ndim == 2 else tensor[0].coalesce()

    @overload
    def decode(self, embeddings: SparseVector, top_k: int | None = None) -> list[tuple[str, float]]: ...
    @overload
    def decode(self, embeddings: SparseMatrix, top_k: int | None = None) -> list[list[tuple[str, float]]]: ...
    @overload
    def decode(
        self, embeddings: object, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]: ...
    def decode(
        self, embeddings: object, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """Return the tokens of vectors as lists of pairs of token and weight, largest weight first.

        ``top_k`` limits the number of pairs. The result is one list for a vector, and a list of lists for a matrix.
        """
        if top_k is not None and top_k <= 0:
            raise ValueError(f"top_k must be a positive integer, got {top_k}")
        matrix = _as_matrix(embeddings, self.get_embedding_dimension())
        engine = self._current()
        tokenizer = engine.outline(engine.tasks()[0]).tokenizer
        decoded: list[list[tuple[str, float]]] = []
        for row in matrix.rows():
            order = np.lexsort((row.indices, -row.values))[:top_k]
            decoded.append(
                [
                    (tokenizer.token(index), weight)
                    for index, weight in zip(row.indices[order].tolist(), row.values[order].tolist(), strict=True)
                ]
            )
        single = isinstance(embeddings, SparseVector) or getattr(embeddings, "ndim", 2) == 1
        return decoded[0] if single else decoded


def _rearranged(matrix: SparseMatrix, order: NDArray[np.int64]) -> SparseMatrix:
    """Return a matrix with its rows in another order: row i of the result is row ``order[i]`` of the matrix."""
    lengths = np.diff(matrix.indptr)[order]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    picked = np.repeat(matrix.indptr[:-1][order] - indptr[:-1], lengths) + np.arange(indptr[-1])
    return SparseMatrix(indptr, matrix.indices[picked], matrix.values[picked], matrix.shape)


def _product(first: SparseVector, second: SparseVector) -> SparseVector:
    shared, mine, theirs = np.intersect1d(first.indices, second.indices, assume_unique=True, return_indices=True)
    return SparseVector.from_arrays(shared, first.values[mine] * second.values[theirs])


def _sparse(values: Vectors, keep: int | None) -> SparseMatrix:
    """Return the output of a batch as a matrix with the ``keep`` largest weights of each row, None for all weights."""
    if isinstance(values, SparseMatrix):
        matrix = values
    elif isinstance(values, np.ndarray):
        # For 64 rows with 200 weights each among 30,522 terms, this conversion and the selection below take 7.5 ms on
        # one core; np.partition of the dense rows takes 34 ms. A TopK operation in the graph would take 2.1 ms
        # (onnxruntime 1.32) or 3.5 ms (OpenVINO 2026.4). It would save at most 0.1 ms per text, but would require one
        # more input of the graph, and the order of equal weights would be undefined.
        matrix = SparseMatrix.from_dense(values)
    else:
        from st_core.backends.torch.sparse import to_sparse

        return to_sparse(values, keep)
    if keep is None:
        return matrix
    return SparseMatrix.from_rows([row.top(keep) for row in matrix.rows()], matrix.shape[1])


def _as_matrix(embeddings: object, width: int | None) -> SparseMatrix:
    """Return vectors of any supported type as a matrix; raise TypeError for other values, ValueError for other shapes.

    ``width`` is the width of single sparse vectors, None if it is unknown.
    """
    if isinstance(embeddings, SparseMatrix):
        return embeddings
    if isinstance(embeddings, SparseVector):
        return SparseMatrix.from_rows(
            [embeddings], width or (int(embeddings.indices[-1]) + 1 if len(embeddings) else 0)
        )
    if isinstance(embeddings, (list, tuple)) and all(isinstance(each, SparseVector) for each in embeddings):
        return SparseMatrix.from_rows(embeddings, width or 0)
    if hasattr(embeddings, "tocsr"):
        return SparseMatrix.from_scipy(embeddings)
    if hasattr(embeddings, "to_dense") and hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().to_dense().float().cpu().numpy()
    if not isinstance(embeddings, np.ndarray):
        raise TypeError(
            f"expected a SparseMatrix, a SparseVector, a scipy matrix or a tensor, not {type(embeddings).__name__}"
        )
    if embeddings.ndim not in (1, 2):
        raise ValueError(f"expected vectors with one or two dimensions, got {embeddings.ndim}")
    return SparseMatrix.from_dense(np.atleast_2d(embeddings))
