"""Scores of pairs of texts, with the names and arguments of sentence-transformers 6.2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from st_core.backends.numpy.modules import ACTIVATIONS
from st_core.checkpoint.files import last_name
from st_core.encoder import WINDOW, windows
from st_core.engine.batches import joined, restore
from st_core.engine.engine import UNSET
from st_core.engine.inputs import as_list, given_inputs
from st_core.errors import ModelUnsupported, missing_extra
from st_core.model import LoadArguments, Model, Placement
from st_core.modules.dense import Dense
from st_core.modules.logit_score import LogitScore
from st_core.modules.transformer import Transformer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.backends import Features
    from st_core.engine.call import Call

__all__ = ["CrossEncoder"]


class CrossEncoder(Model):
    """A model that reads two texts together and scores them.

    ``model_name_or_path`` is a folder or a Hub name (a bare name gets ``cross-encoder/`` in front). ``activation_fn`` is any function of a
    tensor, on every backend; None takes the checkpoint's, else a sigmoid for one label and nothing for several. What is said of devices, types and threads at
    :class:`st_core.SentenceTransformer` holds here too.
    """

    family = "CrossEncoder"
    organisation = "cross-encoder"

    def __init__(
        self,
        model_name_or_path: str | PathLike[str] | None = None,
        *,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        **loading: Unpack[LoadArguments],
    ) -> None:
        """Find the checkpoint, read it and make it ready to run; the other arguments are those of ``LoadArguments``."""
        if num_labels is not None:
            loading["config_kwargs"] = dict(loading.get("config_kwargs") or {}) | {"num_labels": num_labels}
        if max_length is not None:
            kept = loading.get("processor_kwargs") or loading.pop("tokenizer_kwargs", None) or {}
            loading["processor_kwargs"] = dict(kept) | {"model_max_length": max_length}
        self._load(model_name_or_path, **loading)
        self.activation_fn: Callable[[Any], Any] = activation_fn or self.get_default_activation_fn()

    @property
    def num_labels(self) -> int:
        """How many scores a pair gets."""
        for module in reversed(self._engine.modules):
            if isinstance(module, Dense) and module.writes == "scores":
                return int(module.weight.shape[0])
            if isinstance(module, LogitScore):
                return 1
            if isinstance(module, Transformer):
                return int(self._engine.runner(None).labels)  # type: ignore[attr-defined]
        return 1

    @property
    def max_length(self) -> Any:
        """The old name of ``max_seq_length``."""
        return self.max_seq_length

    @max_length.setter
    def max_length(self, value: int | None) -> None:
        self.max_seq_length = value

    def get_default_activation_fn(self) -> Callable[[Any], Any]:
        """The activation that the checkpoint names, if it is torch's; else a sigmoid for one label, nothing for several."""
        config = self.checkpoint.config
        nested = config.get("sentence_transformers") or {}
        path = (
            self._settings.get("activation_fn")
            or nested.get("activation_fn")
            or config.get("sbert_ce_default_activation_function")
        )
        if path is None or not str(path).startswith("torch."):
            path = "torch.nn.Sigmoid" if self.num_labels == 1 else "torch.nn.Identity"
        if self._engine.graphs is not None and last_name(str(path)) in ACTIVATIONS:
            return ACTIVATIONS[last_name(str(path))]
        try:
            from st_core.backends.torch.backend import activation_module
        except ImportError as error:
            raise missing_extra("torch", f"the activation {path}") from error
        return activation_module(str(path), trusted=False)

    def _now_saved(self) -> dict[str, Any]:
        kind = type(self.activation_fn)
        plain = next((name for name, each in ACTIVATIONS.items() if each is self.activation_fn), None)
        path = f"{kind.__module__}.{kind.__qualname__}" if plain is None else f"torch.nn.{plain}"
        if not path.startswith("torch.nn."):
            raise ValueError(
                f"activation_fn is {self.activation_fn!r}, which has no name to save it by; set a module of torch.nn first"
            )
        return super()._now_saved() | {"activation_fn": path}

    def predict(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        inputs: Any = UNSET,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """The scores of pairs in order, float32: [n] for one label, [n, labels] for several; of a single pair, its score or scores.

        ``activation_fn`` stands in for the model's own; ``apply_softmax`` comes after it, over the labels. Of a text that occurs in several
        pairs the tokens are found once. Batches, prompts and the extra arguments are those of :meth:`st_core.SentenceTransformer.encode`.
        ``sentences`` is the old name of ``inputs``.
        """
        pairs, single = _pairs(given_inputs(inputs, kwargs))
        call = self._call(
            kwargs, prompt=prompt, prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        activation = activation_fn or self.activation_fn
        arrays = self._engine.graphs is not None and activation in ACTIVATIONS.values()
        compute = CrossEncoder._array_scores if arrays else CrossEncoder._scores
        placement = Placement(device, pool, chunk_size)
        scores = joined(self._everywhere(placement, compute, pairs, call, activation, bool(apply_softmax)))
        if convert_to_numpy and not convert_to_tensor:
            found: Any = _as_array(scores) if len(pairs) else np.array([])
        else:
            found = _as_tensor(scores) if convert_to_tensor else list(_as_tensor(scores))
        return found[0] if single else found

    def predict_iter(self, inputs: Iterable[tuple[str, str]], *, window: int = WINDOW, **kwargs: Any) -> Iterator[Any]:
        """The score of each pair of a stream, in order, holding ``window`` pairs at a time; the other arguments are :meth:`predict`'s."""
        return (score for listed in windows(inputs, window) for score in self._predict_several(listed, kwargs))

    def _predict_several(self, listed: list[Any], kwargs: Mapping[str, Any]) -> Any:
        """Scores of a list of pairs, which is not taken for one pair even where it holds two texts."""
        if any(isinstance(each, str) for each in listed):
            raise ValueError("the stream holds a text that is no pair of texts; expected (query, document)")
        return self.predict(listed, **kwargs)

    def _array_scores(self, pairs: list[Any], call: Call, activation: Callable[[Any], Any], softmax: bool) -> Any:
        """Scores as an array, without torch."""
        parts: list[tuple[Any, Any]] = []
        for positions, features in self._engine.run(pairs, call) if pairs else ():
            part = activation(self._given_scores(features))
            part = part.squeeze(-1) if self.num_labels == 1 and part.ndim > 1 else part
            parts.append((positions, softmax_of(part) if softmax and part.ndim > 1 else part))
        return np.array(restore(parts, len(pairs)), np.float32)

    def _given_scores(self, features: Features) -> Any:
        if "scores" not in features:
            raise ModelUnsupported(f"{self.checkpoint.name}: its modules give no scores")
        return features["scores"]

    def _scores(self, pairs: list[Any], call: Call, activation: Callable[[Any], Any], softmax: bool) -> Any:
        try:
            import torch
        except ImportError as error:
            raise missing_extra("torch", f"the activation {activation!r}, a function of tensors,") from error
        labels = self.num_labels
        result: Any = None
        with torch.inference_mode():
            for positions, features in self._engine.run(pairs, call) if pairs else ():
                part = activation(torch.as_tensor(self._given_scores(features)).float())
                if labels == 1 and part.ndim > 1:
                    part = part.squeeze(-1)
                if softmax and part.ndim > 1:
                    part = torch.nn.functional.softmax(part, dim=1)
                if result is None:
                    result = part.new_empty((len(pairs), *part.shape[1:]))
                result[torch.from_numpy(positions)] = part
        return torch.empty(0) if result is None else result

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
        activation_fn: Callable[[Any], Any] | None = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
    ) -> list[dict[str, Any]]:
        """Documents by their score with a query, best first: ``corpus_id``, ``score`` and, with ``return_documents``, ``text``.

        Documents of one score stay in the order they came in. Raises ValueError for a model with several labels.
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
    ) -> list[list[dict[str, Any]]]:
        """:meth:`rank` for each query and its own documents, faster than one after another: batches are cut from the pairs of all queries.

        The other arguments are :meth:`predict`'s. Raises ValueError where there are not as many lists of documents as queries.
        """
        if self.num_labels != 1:
            raise ValueError(f"rank() needs a model with one label, and this one has {self.num_labels}; use predict()")
        queries, lists = as_list(queries), [as_list(each) for each in documents]
        if len(queries) != len(lists):
            raise ValueError(
                f"there are {len(queries)} queries and {len(lists)} lists of documents; each query needs one"
            )
        pairs = [(query, text) for query, listed in zip(queries, lists, strict=True) for text in listed]
        scores = iter(self.predict(pairs, **kwargs).tolist())
        return [_ranking(listed, list(islice(scores, len(listed))), top_k, whole=return_documents) for listed in lists]


def _ranking(documents: list[str], scores: list[float], top_k: int | None, *, whole: bool) -> list[dict[str, Any]]:
    """The places of documents by falling score, equal scores in their order, with the documents themselves where ``whole``."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_k]
    return [
        {"corpus_id": index, "score": scores[index]} | ({"text": documents[index]} if whole else {}) for index in order
    ]


def softmax_of(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores [n, labels] as shares that sum to one in each row."""
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def _as_tensor(scores: Any) -> Any:
    if not isinstance(scores, np.ndarray):
        return scores
    try:
        from torch import from_numpy
    except ImportError as error:
        raise missing_extra("torch", "a tensor") from error
    return from_numpy(scores)


def _as_array(scores: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = scores if isinstance(scores, np.ndarray) else scores.float().cpu().numpy()
    return array


def _pairs(inputs: Any) -> tuple[list[tuple[str, str]], bool]:
    """Pairs as a list, and whether there was a single one; raises ValueError for what is no pair of texts."""
    listed = as_list(inputs)
    single = len(listed) == 2 and all(isinstance(each, str) for each in listed)
    listed = [listed] if single else listed
    for position, pair in enumerate(listed):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            kind = last_name(type(pair).__name__)
            raise ValueError(f"input {position} is a {kind} that is no pair of texts; expected (query, document)")
    return [(pair[0], pair[1]) for pair in listed], single
