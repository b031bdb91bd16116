"""The losses of sparse models: losses of vectors, and what makes the vectors sparse."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from st_core.training.losses.distillation import DistillKLDivLoss, MarginMSELoss, MSELoss
from st_core.training.losses.in_batch import Direction, Hardness, MultipleNegativesRankingLoss
from st_core.training.losses.loss import OUTPUT, EmbeddingLoss, Loss
from st_core.training.losses.similarity import (
    AnglELoss,
    CoSENTLoss,
    CosineSimilarityLoss,
    TripletDistanceMetric,
    TripletLoss,
)
from st_core.training.parts import check_parts, computed_in_parts, with_cached_gradients
from st_core.util.similarity import dot_score, pairwise_cos_sim, pairwise_dot_score

__all__ = [
    "CachedSpladeLoss",
    "FlopsLoss",
    "SparseAnglELoss",
    "SparseCoSENTLoss",
    "SparseCosineSimilarityLoss",
    "SparseDistillKLDivLoss",
    "SparseMSELoss",
    "SparseMarginMSELoss",
    "SparseMultipleNegativesRankingLoss",
    "SparseTripletLoss",
    "SpladeLoss",
]

logger = logging.getLogger(__name__)

Similarity: TypeAlias = Callable[[Tensor, Tensor], Tensor]

GAIN = 0.1
"""How strongly the weight of a regularizer follows the number of active terms, per step, in the logarithm."""

COLLAPSED = 50
"""Number of steps in a row without any active term, or with all of the vocabulary, after which a training stops."""


def _refuse_alone(self: EmbeddingLoss, sentence_features: Any, labels: Any = None) -> Any:  # noqa: ARG001
    """Raise ValueError, because the loss alone would leave vectors dense."""
    name = type(self).__name__
    raise ValueError(f"{name} alone does not make vectors sparse; pass it to SpladeLoss(model, {name}(model), …)")


class SparseMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """:class:`MultipleNegativesRankingLoss` of inner products with the scale 1."""

    forward = _refuse_alone

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        scale: float = 1.0,
        similarity_fct: Similarity = dot_score,
        gather_across_devices: bool = False,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: Literal["joint", "per_direction"] = "joint",
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


class SparseMarginMSELoss(MarginMSELoss):
    """:class:`MarginMSELoss` of sparse vectors."""

    forward = _refuse_alone


class SparseDistillKLDivLoss(DistillKLDivLoss):
    """:class:`DistillKLDivLoss` of sparse vectors with the temperature 2."""

    forward = _refuse_alone

    def __init__(
        self,
        model: Any,
        similarity_fct: Similarity = pairwise_dot_score,
        temperature: float = 2.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for a temperature that is not positive."""
        super().__init__(model, similarity_fct, temperature, student_temperature, teacher_temperature)


class SparseTripletLoss(TripletLoss):
    """:class:`TripletLoss` of sparse vectors."""

    forward = _refuse_alone

    def __init__(
        self, model: Any, distance_metric: Similarity = TripletDistanceMetric.EUCLIDEAN, triplet_margin: float = 5
    ) -> None:
        """Store the arguments."""
        super().__init__(model, distance_metric, triplet_margin)


class SparseCoSENTLoss(CoSENTLoss):
    """:class:`CoSENTLoss` of sparse vectors; the model compares vectors by their cosine from then on."""

    forward = _refuse_alone

    def __init__(self, model: Any, scale: float = 20.0, similarity_fct: Similarity = pairwise_cos_sim) -> None:
        """Store the arguments."""
        super().__init__(model, scale, similarity_fct)
        _compare_by_cosine(model)


class SparseAnglELoss(AnglELoss):
    """:class:`AnglELoss` of sparse vectors."""

    forward = _refuse_alone


class SparseCosineSimilarityLoss(CosineSimilarityLoss):
    """:class:`CosineSimilarityLoss` of sparse vectors; the model compares vectors by their cosine from then on."""

    forward = _refuse_alone

    def __init__(
        self, model: Any, loss_fct: nn.Module | None = None, cos_score_transformation: nn.Module | None = None
    ) -> None:
        """Store the error and the transformation."""
        super().__init__(model, loss_fct, cos_score_transformation)
        _compare_by_cosine(model)


class SparseMSELoss(MSELoss):
    """:class:`MSELoss` of sparse vectors, which a sparse teacher makes sparse."""

    def __init__(self, model: Any) -> None:
        """Get the trainable form of a model."""
        super().__init__(model)


def _compare_by_cosine(model: Any) -> None:
    if hasattr(model, "similarity_fn_name"):
        model.similarity_fn_name = "cosine"


class FlopsLoss(Loss):
    """The sum over the vocabulary of the squared mean weight (arXiv 2004.05665), which drives weights to zero.

    With ``threshold`` only vectors with more active terms count (arXiv 2504.14839). With ``term_weights`` [V], such as
    the inverse document frequencies, terms of a low weight cost more: the mean is divided by the weight.
    """

    term_weights: Tensor | None
    settings: ClassVar[tuple[str, ...]] = ("threshold",)

    def __init__(self, model: Any, threshold: float | None = None, term_weights: Tensor | None = None) -> None:
        """Store the arguments."""
        super().__init__(model)
        self.threshold = threshold
        self.register_buffer("term_weights", term_weights)

    def forward(self, sentence_features: Any, labels: Any = None) -> Tensor:  # noqa: ARG002
        """Raise ValueError."""
        raise ValueError("FlopsLoss is part of SpladeLoss and no loss of its own")

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """Return the loss of vectors [n, V]."""
        if self.threshold is not None:
            counts = (embeddings != 0).sum(dim=1, keepdim=True)
            embeddings = embeddings * (counts > self.threshold)
        mean = embeddings.mean(dim=0)
        weights = self.term_weights
        return ((mean if weights is None else mean / weights.clamp(min=1e-3)) ** 2).sum()


class SpladeLoss(Loss):
    """A loss of sparse vectors, with a regularizer that makes documents sparse, and one that makes queries sparse.

    ``loss`` is one of those for sparse vectors. The weights of the regularizers rise from zero over the first third of
    a training; see ``SpladeRegularizerWeightSchedulerCallback``. With ``document_terms`` or ``query_terms``, a number
    of active terms, the weight is instead steered towards it, from this weight on. A training stops if vectors
    have no active term, or all of them, for many steps. With ``use_document_regularizer_only`` all columns are
    documents.
    """

    steered: Tensor
    """What the weights of the regularizers of documents and queries are multiplied by, to reach their targets."""

    settings: ClassVar[tuple[str, ...]] = (
        "document_regularizer_weight",
        "query_regularizer_weight",
        "document_terms",
        "query_terms",
    )

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        loss: Any,
        document_regularizer_weight: float | None = None,
        query_regularizer_weight: float | None = None,
        document_regularizer: nn.Module | None = None,
        query_regularizer: nn.Module | None = None,
        document_regularizer_threshold: int | None = None,
        query_regularizer_threshold: int | None = None,
        use_document_regularizer_only: bool = False,
        document_terms: int | None = None,
        query_terms: int | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for a loss that is no function of vectors."""
        super().__init__(model)
        if not isinstance(loss, EmbeddingLoss):
            raise ValueError(f"SpladeLoss needs a loss of vectors, got {type(loss).__name__}")  # noqa: TRY004 - theirs
        if document_regularizer_weight is None and document_terms is None:
            raise ValueError(
                "SpladeLoss needs document_regularizer_weight, or a number of active terms, document_terms"
            )
        self.loss = loss
        self.contract = loss.contract
        self.document_regularizer: Any = document_regularizer or FlopsLoss(self.model, document_regularizer_threshold)
        self.query_regularizer: Any = query_regularizer or FlopsLoss(self.model, query_regularizer_threshold)
        self.use_document_regularizer_only = use_document_regularizer_only
        self.document_terms = _checked(document_terms, "document_terms")
        self.query_terms = _checked(query_terms, "query_terms")
        self.document_regularizer_weight = _start(document_regularizer_weight, document_terms)
        self.query_regularizer_weight: float | None = _start(query_regularizer_weight, query_terms)
        if use_document_regularizer_only and self.query_regularizer_weight is not None:
            raise ValueError("query_regularizer_weight has no effect with use_document_regularizer_only; leave out one")
        self.register_buffer("steered", torch.ones(2, dtype=torch.float64))
        self._steps_collapsed = 0

    def forward(
        self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the parts of the loss of a batch: base_loss, document_regularizer_loss and query_regularizer_loss."""
        embeddings = [computed_in_parts(self.model, each, OUTPUT) for each in sentence_features]
        parts = self.compute_loss_from_embeddings(embeddings, labels)
        self._measure(embeddings)
        return parts

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> dict[str, Tensor]:
        """Return the parts of the loss of the vectors [n, V] of each column."""
        base = self.loss.compute_loss_from_embeddings(embeddings, labels)
        parts = dict(base) if isinstance(base, Mapping) else {"base_loss": base}
        documents = torch.cat(list(embeddings if self.use_document_regularizer_only else embeddings[1:]))
        weight = self.document_regularizer_weight * float(self.steered[0])
        parts["document_regularizer_loss"] = self.document_regularizer.compute_loss_from_embeddings(documents) * weight
        if self.query_regularizer_weight is not None:
            weight = self.query_regularizer_weight * float(self.steered[1])
            parts["query_regularizer_loss"] = (
                self.query_regularizer.compute_loss_from_embeddings(embeddings[0]) * weight
            )
        return parts

    def _measure(self, embeddings: Sequence[Tensor]) -> None:
        """Count active terms, steer the weights towards their targets, and stop where there is nothing to steer."""
        counts = [(each.detach() > 0).sum(dim=1).double().mean() for each in embeddings]
        query, documents = counts[0], torch.stack(counts[1:] or counts).mean()
        self.measures = {"query_active_terms": query, "document_active_terms": documents}
        if not self.training:
            return
        for place, (count, target) in enumerate(((documents, self.document_terms), (query, self.query_terms))):
            if target is not None:
                error = math.log(max(float(count), 1e-3) / target)
                self.steered[place] *= math.exp(GAIN * min(1.0, max(-1.0, error)))
        self._stop_if_collapsed(float(documents), embeddings[-1].shape[1])

    def _stop_if_collapsed(self, count: float, terms: int) -> None:
        is_collapsed = count in (0, terms)
        self._steps_collapsed = self._steps_collapsed + 1 if is_collapsed else 0
        if self._steps_collapsed >= COLLAPSED:
            state, direction = ("no active term", "lower") if count == 0 else ("all terms active", "higher")
            raise RuntimeError(
                f"documents have had {state} for {COLLAPSED} steps; use a {direction} document_regularizer_weight, or "
                "a target with document_terms"
            )

    def get_config_dict(self) -> dict[str, Any]:
        """Return the arguments of the loss."""
        return {"loss": type(self.loss).__name__, **super().get_config_dict()}


def _checked(terms: int | None, name: str) -> int | None:
    if terms is not None and terms < 1:
        raise ValueError(f"{name} must be a positive number of active terms, got {terms}")
    return terms


def _start(weight: float | None, terms: int | None) -> Any:
    """Return the weight from which a regularizer starts."""
    return 1e-5 if weight is None and terms is not None else weight


class CachedSpladeLoss(SpladeLoss):
    """:class:`SpladeLoss` for batches that are encoded in parts, with the same value and gradient.

    A part has at most ``mini_batch_size`` rows, and at most ``mini_batch_num_tokens`` tokens if that is set.
    """

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        loss: Any,
        document_regularizer_weight: float | None = None,
        query_regularizer_weight: float | None = None,
        document_regularizer: nn.Module | None = None,
        query_regularizer: nn.Module | None = None,
        document_regularizer_threshold: int | None = None,
        query_regularizer_threshold: int | None = None,
        use_document_regularizer_only: bool = False,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,  # noqa: ARG002 - parts have no bar
        document_terms: int | None = None,
        query_terms: int | None = None,
    ) -> None:
        """Store the arguments after checking them."""
        super().__init__(
            model,
            loss,
            document_regularizer_weight,
            query_regularizer_weight,
            document_regularizer,
            query_regularizer,
            document_regularizer_threshold,
            query_regularizer_threshold,
            use_document_regularizer_only,
            document_terms,
            query_terms,
        )
        check_parts(mini_batch_size, mini_batch_num_tokens)
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens

    def forward(
        self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the parts of the loss of a batch, of which the first carries the gradient."""

        def parts_of(embeddings: list[Tensor]) -> dict[str, Tensor]:
            parts = self.compute_loss_from_embeddings(embeddings, labels)
            self._measure(embeddings)
            return parts

        rows, tokens = self.mini_batch_size, self.mini_batch_num_tokens
        parts: dict[str, Tensor] = with_cached_gradients(
            self.model, list(sentence_features), parts_of, "sentence_embedding", rows=rows, tokens=tokens
        )
        return parts
