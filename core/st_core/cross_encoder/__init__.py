"""Score pairs of texts, with the names and arguments of sentence-transformers 6.2."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import numpy as np

from st_core.arguments import LoadArguments, Placement
from st_core.backends.numpy.modules import ACTIVATIONS
from st_core.checkpoint.files import last_name
from st_core.encoder import WINDOW, windows
from st_core.engine.batches import empty_rows, joined
from st_core.engine.inputs import UNSET, CallArguments, Input, as_list, pop_inputs
from st_core.engine.options import CallOptions
from st_core.engine.prepared import Computed, Prepared
from st_core.errors import ModelUnsupported, missing_extra
from st_core.model import Model
from st_core.modules.dense import Dense
from st_core.modules.logit_score import LogitScore
from st_core.modules.transformer import Transformer
from st_core.renamed import accepts_old_names, warn_of_old_name

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from st_core.backends import Rows
    from st_core.engine.plan import Device
    from st_core.processes.pool import WorkerPool

__all__ = ["CrossEncoder"]

logger = logging.getLogger(__name__)

Activation: TypeAlias = Callable[["Rows"], "Rows"]
"""A function from logits to scores; both are numpy arrays or both are tensors."""

_LOADING = {
    "automodel_args": "model_kwargs",
    "cache_dir": "cache_folder",
    "classifier_dropout": "config_kwargs.classifier_dropout",
    "config_args": "config_kwargs",
    "default_activation_function": "activation_fn",
    "model_name": "model_name_or_path",
    "tokenizer_args": "processor_kwargs",
    "tokenizer_kwargs": "processor_kwargs",
}
_IDLE = {"num_workers": "texts are tokenized in this process, while the texts before them are computed"}
_OF_RANK = dict.fromkeys(("apply_softmax", "convert_to_numpy", "convert_to_tensor"), "the scores are Python floats")


class CrossEncoder(Model):
    """A model that reads two texts together and scores them.

    ``model_name_or_path`` is a folder or a Hub name (a name without an organisation gets the prefix
    ``cross-encoder/``). ``activation_fn`` is any function of a tensor, on every backend. The default is the activation
    that the checkpoint names, or else a sigmoid for a model with one label and the identity for a model with several.
    Devices, dtypes and thread safety are as in :class:`st_core.SentenceTransformer`.
    """

    family = "CrossEncoder"
    organisation = "cross-encoder"

    activation_fn: Activation

    @accepts_old_names(_LOADING, positional=("num_labels", "max_length", "activation_fn", "device"))
    def __init__(
        self,
        model_name_or_path: str | PathLike[str] | None = None,
        *,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Activation | None = None,
        **loading: Unpack[LoadArguments],
    ) -> None:
        """Load the checkpoint; the other arguments are those of ``LoadArguments``.

        A transformer without a classification head gets an untrained one with ``num_labels`` labels, with a warning.
        """
        if num_labels is not None:
            loading.setdefault("init_head", True)
            loading["config_kwargs"] = dict(loading.get("config_kwargs") or {}) | {"num_labels": num_labels}
        if max_length is not None:
            options = loading.get("processor_kwargs") or {}
            loading["processor_kwargs"] = dict(options) | {"model_max_length": max_length}
        self._load(model_name_or_path, loading)
        if not any(isinstance(module, Transformer) for module in self._engine.modules):
            self._set_without_transformer(num_labels, max_length)
        self.activation_fn = self.get_default_activation_fn() if activation_fn is None else activation_fn

    def _set_without_transformer(self, num_labels: int | None, max_length: int | None) -> None:
        """Apply arguments that a transformer's loading reads to a model of other modules."""
        if num_labels is not None and num_labels != self.num_labels:
            raise ValueError(f"{self.checkpoint.name} has {self.num_labels} labels, which num_labels cannot change")
        if max_length is not None:
            self.max_seq_length = max_length

    @property
    def num_labels(self) -> int:
        """The number of scores that the model computes for each pair."""
        for module in reversed(self._engine.modules):
            if isinstance(module, Dense) and module.writes == "scores":
                return int(module.weight.shape[0])
            if isinstance(module, LogitScore):
                return 1
            if isinstance(module, Transformer):
                return self._engine.runner(None).info.labels
        return 1

    @property
    def max_length(self) -> int | float | None:
        """The value of ``max_seq_length``, under its old name."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int | None) -> None:
        self.max_seq_length = value

    @property
    def model(self) -> PreTrainedModel | None:
        """The value of ``transformers_model``."""
        return self.transformers_model

    @property
    def default_activation_function(self) -> Activation:
        """The value of ``activation_fn``, under its old name."""
        warn_of_old_name("default_activation_function is now named activation_fn")
        return self.activation_fn

    def is_singular_input(self, inputs: object) -> bool:
        """Return whether inputs are a single pair of texts; raise ValueError for inputs that are not pairs."""
        return _pairs(inputs)[1]

    def get_default_activation_fn(self) -> Activation:
        """Return the activation that the checkpoint names: a class of torch, or any class with ``trust_remote_code``.

        Otherwise return a sigmoid for a model with one label, and the identity for a model with several. A class that
        is not trusted is named in a warning.
        """
        path, trusted = self._activation_path(), bool(self._loading.get("trust_remote_code", False))
        if path is not None and not (trusted or path.startswith("torch.")):
            logger.warning(
                "%s: the activation %r of the checkpoint is not a class of torch, so the default is used in its place; "
                "load the model with trust_remote_code=True to import it",
                self.checkpoint.name,
                path,
            )
            path = None
        if path is None:
            path = "torch.nn.Sigmoid" if self.num_labels == 1 else "torch.nn.Identity"
        if not self._engine.computes_with_torch and path.startswith("torch.") and last_name(path) in ACTIVATIONS:
            return ACTIVATIONS[last_name(path)]
        try:
            from st_core.backends.torch.backend import activation_module
        except ImportError as error:
            raise missing_extra("torch", f"the activation {path}") from error
        return activation_module(path, trusted=trusted)

    def _activation_path(self) -> str | None:
        """Return the dotted path of the activation that the checkpoint names; None if it names none."""
        config = self.checkpoint.config
        nested = config.get("sentence_transformers") or {}
        path = (
            self._settings.get("activation_fn")
            or nested.get("activation_fn")
            or config.get("sbert_ce_default_activation_function")
        )
        return None if path is None else str(path)

    def _now_saved(self) -> dict[str, object]:
        kind = type(self.activation_fn)
        plain = next((name for name, each in ACTIVATIONS.items() if each is self.activation_fn), None)
        path = f"{kind.__module__}.{kind.__qualname__}" if plain is None else f"torch.nn.{plain}"
        if not path.startswith("torch.nn.") and path != self._activation_path():
            raise ValueError(
                f"activation_fn is {self.activation_fn!r}, which cannot be saved by name; set a module of torch.nn "
                "first"
            )
        return super()._now_saved() | {"activation_fn": path}

    @accepts_old_names({"activation_fct": "activation_fn"}, without_effect=_IDLE)
    def predict(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: object = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Device | Iterable[Device] = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
        **kwargs: Unpack[CallArguments],
    ) -> Any:
        """Return the scores of pairs in order, float32: [n] for a model with one label, [n, labels] for several labels.

        For a single pair, return a scalar, or an array [labels].

        ``activation_fn`` replaces the model's own activation. ``apply_softmax`` applies a softmax over the labels after
        the activation. A text that occurs in several pairs is tokenized once. The other arguments are those of
        :meth:`st_core.SentenceTransformer.encode`.
        """
        pairs, single = _pairs(pop_inputs(inputs, kwargs))
        options = self._options(
            kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        activation = self._activation(activation_fn)
        placement = Placement.of(device, pool, chunk_size)
        parts = self._everywhere(placement, CrossEncoder._predict, pairs, options, activation, bool(apply_softmax))
        return _converted(
            joined(parts), single=single, to_array=convert_to_numpy and not convert_to_tensor, stacked=convert_to_tensor
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
        """Tokenize the pairs of a request, as the first of the three steps of :meth:`predict`.

        The arguments are those of :meth:`predict`. ``finish(compute([prepare(inputs)])[0])`` returns the result of
        ``predict(inputs)``; see :meth:`st_core.SentenceTransformer.prepare`.
        """
        pairs, single = _pairs(inputs)
        options = self._options(kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size)
        return self._engine.prepare(pairs, options, is_single=single)

    def finish(
        self,
        computed: Computed[Rows],
        *,
        activation_fn: Activation | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Any:
        """Return the scores of a computed request, as the last step of :meth:`predict`.

        The arguments are those of :meth:`predict`.
        """
        scores = self._scores(computed, self._activation(activation_fn), softmax=bool(apply_softmax))
        return _converted(
            scores,
            single=computed.prepared.is_single,
            to_array=convert_to_numpy and not convert_to_tensor,
            stacked=convert_to_tensor,
        )

    def predict_iter(
        self, inputs: Iterable[tuple[str, str]], *, window: int = WINDOW, **kwargs: object
    ) -> Iterator[Any]:
        """Yield the score of each pair of a stream, in order, with ``window`` pairs in memory at a time.

        The other arguments are those of :meth:`predict`.
        """
        return (score for listed in windows(inputs, window) for score in self._predict_several(listed, kwargs))

    def _predict_several(self, pairs: list[tuple[str, str]], kwargs: Mapping[str, Any]) -> Rows:
        """Return the scores of a list of pairs.

        Raises ValueError if the list contains a text, because :meth:`predict` would take a list of two texts for one
        pair.
        """
        if any(isinstance(each, str) for each in pairs):
            raise ValueError("the stream contains a single text; expected pairs of texts (query, document)")
        return self.predict(pairs, **kwargs)

    def _predict(self, pairs: list[Input], options: CallOptions, activation: Activation, softmax: bool) -> Rows:
        """Return the scores of all pairs of a call, or of the chunk of them that a worker process received."""
        windows = self._computed_windows(pairs, options)
        return joined([self._scores(computed, activation, softmax=softmax) for computed in windows])

    def _rows(self, requests: Sequence[Prepared], finish_batch: Callable[[NDArray[np.int64]], None]) -> Rows:
        rows: Rows = None
        for positions, features in self._engine.compute(requests):
            if "scores" not in features:
                raise ModelUnsupported(f"{self.checkpoint.name}: its modules write no scores")
            part = features["scores"]
            if rows is None:
                rows = empty_rows(part, sum(len(request) for request in requests))
            rows[positions] = part
            finish_batch(positions)
        return np.zeros((0, self.num_labels), np.float32) if rows is None else rows

    def _activation(self, requested: Activation | None) -> Activation:
        """Return the activation of a call; compared with None, because an empty ``torch.nn.Sequential`` is false."""
        return self.activation_fn if requested is None else requested

    def _scores(self, computed: Computed[Rows], activation: Activation, *, softmax: bool) -> Rows:
        """Return the scores of one request, as a numpy array where the model runs without torch, else a tensor.

        The activation is applied batch by batch, because the last digit of a vectorised function's result can depend on
        a value's position in the array. Applied to all rows at once, it would change scores in the last digit.
        """
        if not self._engine.computes_with_torch and activation in ACTIVATIONS.values():
            return by_batches(computed, lambda rows: self._array_scores(rows, activation, softmax=softmax))
        try:
            import torch
        except ImportError as error:
            raise missing_extra("torch", f"the activation {activation!r}, a function of tensors,") from error

        def tensor_scores(rows: Rows) -> Rows:
            tensor = activation(torch.as_tensor(rows).float())
            if self.num_labels == 1 and tensor.ndim > 1:
                tensor = tensor.squeeze(-1)
            return torch.nn.functional.softmax(tensor, dim=1) if softmax and tensor.ndim > 1 else tensor

        with torch.inference_mode():
            return by_batches(computed, tensor_scores)

    def _array_scores(self, rows: Rows, activation: Activation, *, softmax: bool) -> NDArray[np.float32]:
        """Return the scores of rows after the activation, computed by numpy."""
        scores = activation(rows)
        scores = scores.squeeze(-1) if self.num_labels == 1 and scores.ndim > 1 else scores
        return np.asarray(softmax_of(scores) if softmax and scores.ndim > 1 else scores, np.float32)

    @accepts_old_names({"activation_fct": "activation_fn"}, without_effect=_IDLE | _OF_RANK)
    def rank(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Activation | None = None,
        device: Device | Iterable[Device] = None,
        pool: WorkerPool | None = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, int | float | str]]:
        """Return documents by descending score, each as a dict of its index ``corpus_id`` and its ``score``.

        With ``return_documents`` the dict also contains the ``text``. ``top_k`` limits the number of documents.
        Documents with equal scores keep their order. The other arguments are those of :meth:`predict`. Raises
        ValueError for a model with several labels.
        """
        (ranking,) = self.rank_many(
            [query],
            [documents],
            top_k=top_k,
            return_documents=return_documents,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
        )
        return ranking

    def rank_many(
        self,
        queries: Sequence[str],
        documents: Sequence[Sequence[str]],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        **kwargs: Any,
    ) -> list[list[dict[str, int | float | str]]]:
        """Return the result of :meth:`rank` for each query and its own list of documents.

        This is faster than separate calls, because pairs of all queries share batches. The other arguments are those of
        :meth:`predict`. Raises ValueError unless there is one list of documents per query.
        """
        if self.num_labels != 1:
            raise ValueError(f"rank() needs a model with one label, and this one has {self.num_labels}; use predict()")
        queries, lists = as_list(queries), [as_list(each) for each in documents]
        if len(queries) != len(lists):
            raise ValueError(
                f"expected one list of documents for each query, got {len(queries)} queries and {len(lists)} lists"
            )
        pairs = [(query, text) for query, listed in zip(queries, lists, strict=True) for text in listed]
        scores = iter(self.predict(pairs, **kwargs).tolist())
        return [_ranking(listed, list(islice(scores, len(listed))), top_k, whole=return_documents) for listed in lists]


def by_batches(computed: Computed[Rows], function: Callable[[Rows], Rows]) -> Rows:
    """Apply a function to each batch of rows and return the results in the original order of the rows."""
    result: Rows = None
    for positions in computed.batches:
        part = function(computed.rows[positions])
        if result is None:
            result = empty_rows(part, len(computed.prepared))
        result[positions] = part
    return function(computed.rows) if result is None else result


def _ranking(
    documents: list[str], scores: list[float], top_k: int | None, *, whole: bool
) -> list[dict[str, int | float | str]]:
    """Return the indexes and scores of documents by descending score; documents with equal scores keep their order.

    With ``whole`` the texts of the documents are included.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_k]
    return [
        {"corpus_id": index, "score": scores[index]} | ({"text": documents[index]} if whole else {}) for index in order
    ]


def softmax_of(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of scores [n, labels] over the labels."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def _converted(scores: Rows, *, single: bool, to_array: bool, stacked: bool) -> Rows:
    """Return scores as an array with ``to_array``, as one tensor with ``stacked``, or else as a list of tensors.

    With ``single`` return only the first entry.
    """
    if to_array:
        values: Rows = _as_array(scores) if len(scores) else np.array([])
    else:
        values = _as_tensor(scores) if stacked else list(_as_tensor(scores))
    return values[0] if single else values


def _as_tensor(scores: Rows) -> torch.Tensor:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", "a tensor") from error
    return torch.as_tensor(scores)


def _as_array(scores: Rows) -> NDArray[np.float32]:
    array: NDArray[np.float32] = scores if isinstance(scores, np.ndarray) else scores.float().cpu().numpy()
    return array


def _pairs(inputs: object) -> tuple[list[Input], bool]:
    """Return the inputs as a list of pairs, and whether the input was a single pair.

    Raises ValueError unless each input is a pair of texts.
    """
    listed = as_list(inputs)
    single = len(listed) == 2 and all(isinstance(each, str) for each in listed)
    listed = [listed] if single else listed
    for position, pair in enumerate(listed):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            kind = last_name(type(pair).__name__)
            raise ValueError(f"input {position} is a {kind}; expected a pair of texts (query, document)")
    return [(pair[0], pair[1]) for pair in listed], single
