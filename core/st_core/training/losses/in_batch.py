"""Losses in which the texts of other rows of a batch are the negatives."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, TypeGuard

import torch
from torch import Tensor

from st_core.training.columns import Contract
from st_core.training.devices import gathered, rank
from st_core.training.losses.cached import CachedLoss
from st_core.training.losses.loss import EmbeddingLoss
from st_core.util.similarity import cos_sim

__all__ = [
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "is_mask",
]

logger = logging.getLogger(__name__)

Direction: TypeAlias = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
Hardness: TypeAlias = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]
Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
_HARDNESS = ("in_batch_negatives", "hard_negatives", "all_negatives")
_WITHOUT_POSITIVE = {"query_to_query", "doc_to_doc"}


class MultipleNegativesRankingLoss(EmbeddingLoss):
    """The cross-entropy of the positive among all documents of a batch, also known as InfoNCE.

    Columns are a query, its positive, and any number of negatives. ``scale`` is the inverse of the temperature.
    ``directions`` adds similarities of queries to each other, of documents to queries, and of documents to each other
    to the candidates, in one softmax with ``partition_mode="joint"`` or in one for each direction. ``hardness_mode``
    adds ``hardness_strength`` times the similarity to the logits of the negatives that it names. With
    ``gather_across_devices`` the texts of all devices are candidates. Raises ValueError for arguments that contradict
    each other.
    """

    contract = Contract(2, None, has_batch_negatives=True)
    settings: ClassVar[tuple[str, ...]] = (
        *("scale", "similarity_fct", "gather_across_devices", "directions", "partition_mode"),
        *("hardness_mode", "hardness_strength"),
    )

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        """Store the arguments after checking them."""
        super().__init__(model)
        _check_scale(scale)
        _check_directions(directions, partition_mode)
        _check_hardness(hardness_mode, hardness_strength)
        self.scale = scale
        self.similarity_fct = similarity_fct
        self.gather_across_devices = gather_across_devices
        self.directions = tuple(directions)
        self.partition_mode = partition_mode
        self.hardness_mode = hardness_mode
        self.hardness_strength = hardness_strength

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the loss of queries [n, d] and of one or more columns of documents [n, d].

        Labels that are no mask of :meth:`st_core.training.known.Known.mask` have no effect.
        """
        if len(embeddings) < 2:
            raise ValueError(f"{type(self).__name__} needs a query and a positive, got {len(embeddings)} columns")
        queries, *columns = embeddings
        rows = queries.shape[0]
        own = torch.arange(rows, device=queries.device) + (rank() * rows if self.gather_across_devices else 0)
        if self.gather_across_devices:
            queries, columns = gathered(queries), [gathered(each) for each in columns]
        logits = self._logits(queries, columns, own)
        if is_mask(labels) and not self.gather_across_devices:
            logits = self._without(logits, labels, rows)
        positive = logits[0].gather(1, own[:, None])[:, 0]
        if self.partition_mode == "joint":
            normaliser = torch.cat(logits, dim=1).logsumexp(dim=1)
        else:
            normaliser = torch.stack([each.logsumexp(dim=1) for each in logits]).mean(dim=0)
        return (normaliser - positive).mean()

    def _logits(self, queries: Tensor, columns: Sequence[Tensor], own: Tensor) -> list[Tensor]:
        """Return the logits of each direction [n, candidates], those of queries to documents first."""
        documents = torch.cat(list(columns))
        is_own = _is_own(own, queries.shape[0], len(columns))
        results = []
        for direction in sorted(self.directions, key=_DIRECTIONS.index):
            if direction == "query_to_doc":
                similarity = self.similarity_fct(queries[own], documents)
                results.append(similarity * self.scale + self._hardness(similarity, is_own, queries.shape[0]))
            elif direction == "query_to_query":
                similarity = self.similarity_fct(queries[own], queries)
                is_self = is_own[:, : queries.shape[0]]
                results.append(similarity.masked_fill(is_self, -torch.inf) * self.scale)
            elif direction == "doc_to_query":
                results.append(self.similarity_fct(queries, columns[0][own]).T * self.scale)
            else:
                similarity = self.similarity_fct(documents, columns[0][own]).T
                results.append(similarity.masked_fill(is_own, -torch.inf) * self.scale)
        return results

    def _without(self, logits: Sequence[Tensor], known: Tensor, rows: int) -> list[Tensor]:
        """Return the logits of each direction with minus infinity for known positives [n, documents] of a query."""
        first = known[:, :rows]
        of = {"query_to_doc": known, "query_to_query": first | first.T, "doc_to_query": first.T, "doc_to_doc": known}
        directions = sorted(self.directions, key=_DIRECTIONS.index)
        return [each.masked_fill(of[direction], -torch.inf) for direction, each in zip(directions, logits, strict=True)]

    def _hardness(self, similarity: Tensor, is_own: Tensor, rows: int) -> Tensor | float:
        """Return what hardness adds to the logits [n, documents] of queries to documents."""
        if self.hardness_mode is None or self.hardness_strength == 0:
            return 0.0
        is_positive = is_own.clone()
        is_positive[:, rows:] = False
        if self.hardness_mode == "in_batch_negatives":
            is_counted = ~is_own
        elif self.hardness_mode == "hard_negatives":
            is_counted = is_own & ~is_positive
        else:
            is_counted = ~is_positive
        return self.hardness_strength * similarity.detach() * is_counted


def is_mask(labels: Any) -> TypeGuard[Tensor]:
    """Return whether labels are a mask of known positives."""
    return isinstance(labels, Tensor) and labels.dtype == torch.bool and labels.ndim == 2


def _is_own(own: Tensor, rows: int, columns: int) -> Tensor:
    """Return which documents [n, columns * rows] belong to the row of each query."""
    positions = torch.arange(rows, device=own.device).repeat(columns)
    return own[:, None] == positions[None, :]


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")


def _check_directions(directions: Sequence[str], partition_mode: str) -> None:
    unknown = [each for each in directions if each not in _DIRECTIONS]
    if unknown:
        raise ValueError(f"unknown direction {unknown[0]!r}; expected some of {', '.join(_DIRECTIONS)}")
    if "query_to_doc" not in directions:
        raise ValueError("directions must contain query_to_doc, which contains the positives")
    if partition_mode not in ("joint", "per_direction"):
        raise ValueError(f"partition_mode must be joint or per_direction, got {partition_mode!r}")
    missing = sorted(_WITHOUT_POSITIVE & set(directions))
    if partition_mode == "per_direction" and missing:
        raise ValueError(f"partition_mode='per_direction' needs positives in every direction; {missing[0]} has none")


def _check_hardness(mode: str | None, strength: float) -> None:
    if mode is not None and mode not in _HARDNESS:
        raise ValueError(f"hardness_mode must be one of {', '.join(_HARDNESS)} or None, got {mode!r}")
    if strength < 0:
        raise ValueError(f"hardness_strength must not be negative, got {strength}")
    if mode is not None and strength == 0:
        logger.warning("hardness_mode=%r has no effect with hardness_strength=0", mode)


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """The mean of the losses of the positive among all documents, and of the query among all queries."""

    settings: ClassVar[tuple[str, ...]] = ("scale", "similarity_fct", "gather_across_devices")

    def __init__(
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        gather_across_devices: bool = False,
    ) -> None:
        """Store the arguments after checking them."""
        super().__init__(
            model, scale, similarity_fct, gather_across_devices, ("query_to_doc", "doc_to_query"), "per_direction"
        )


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss, CachedLoss):
    """:class:`MultipleNegativesRankingLoss` for batches that are embedded in parts, with the same value and gradient.

    A part has at most ``mini_batch_size`` rows, and at most ``mini_batch_num_tokens`` tokens if that is set.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
        show_progress_bar: bool = False,  # noqa: ARG002 - parts have no bar
        hardness_mode: Hardness | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        """Store the arguments after checking them."""
        super().__init__(
            model,
            scale,
            similarity_fct,
            gather_across_devices,
            directions,
            partition_mode,
            hardness_mode,
            hardness_strength,
        )
        self.set_parts(mini_batch_size, mini_batch_num_tokens)


class CachedMultipleNegativesSymmetricRankingLoss(MultipleNegativesSymmetricRankingLoss, CachedLoss):
    """:class:`MultipleNegativesSymmetricRankingLoss` for batches that are embedded in parts."""

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        show_progress_bar: bool = False,  # noqa: ARG002 - parts have no bar
    ) -> None:
        """Store the arguments after checking them."""
        super().__init__(model, scale, similarity_fct, gather_across_devices)
        self.set_parts(mini_batch_size, mini_batch_num_tokens)
