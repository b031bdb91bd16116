"""The losses of cross-encoders that read a list of documents for each query, with a label for each document."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.training.columns import Contract, Label
from st_core.training.losses.pairs import PairLoss, Texts

__all__ = [
    "ADRMSELoss",
    "BaseWeightingScheme",
    "LambdaLoss",
    "LambdaRankScheme",
    "ListMLELoss",
    "ListNetLoss",
    "NDCGLoss1Scheme",
    "NDCGLoss2PPScheme",
    "NDCGLoss2Scheme",
    "NoWeightingScheme",
    "PListMLELambdaWeight",
    "PListMLELoss",
    "RankNetLoss",
]

LOWEST = -1e16
"""The score of padding, below every score."""


class _Lists(NamedTuple):
    """Scores and labels [queries, documents] of lists, and which places have a document."""

    scores: Tensor
    labels: Tensor
    mask: Tensor


class ListLoss(PairLoss):
    """The base of losses of lists; the second column contains lists of documents, which may differ in length.

    ``mini_batch_size`` limits the pairs that are scored together: None means as many as there are queries, and 0 or
    less no limit.
    """

    contract = Contract(2, 2, Label.LIST, has_lists=True)
    settings: ClassVar[tuple[str, ...]] = ("activation_fn", "mini_batch_size")

    def __init__(self, model: Any, activation_fn: nn.Module | None = None, mini_batch_size: int | None = None) -> None:
        """Store the arguments."""
        super().__init__(model, activation_fn)
        self.mini_batch_size = mini_batch_size

    def forward(
        self,
        inputs: Sequence[Texts],
        labels: Sequence[Tensor],
        prompt: str | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Return the loss of a column of queries and a column of lists of documents."""
        queries, documents = inputs
        sizes = [len(each) for each in documents]
        if isinstance(labels, Tensor) or sizes != [len(each) for each in labels]:
            raise ValueError(f"{type(self).__name__} needs a label for each of the documents of each query")
        pairs = [(query, text) for query, listed in zip(queries, documents, strict=True) for text in listed]
        rows = self.mini_batch_size or len(queries)
        scores = self.activation_fn(self.logits(pairs, prompt, task, rows if rows > 0 else None).reshape(-1).float())
        return self.loss(_lists(scores, torch.cat(list(labels)).to(scores), sizes))

    def loss(self, lists: _Lists) -> Tensor:
        """Return the loss of lists."""
        raise NotImplementedError


def _lists(scores: Tensor, labels: Tensor, sizes: Sequence[int]) -> _Lists:
    """Return scores and labels of all documents as rows of lists."""
    mask = torch.arange(max(sizes), device=scores.device)[None, :] < torch.tensor(sizes, device=scores.device)[:, None]
    padded = scores.new_full(mask.shape, LOWEST).masked_scatter(mask, scores)
    return _Lists(padded, scores.new_full(mask.shape, -torch.inf).masked_scatter(mask, labels), mask)


class ListNetLoss(ListLoss):
    """The cross-entropy of the scores of a list and its labels, both as distributions."""

    def loss(self, lists: _Lists) -> Tensor:
        """Return the loss of lists."""
        return functional.cross_entropy(lists.scores, lists.labels.softmax(dim=1))


class PListMLELambdaWeight(nn.Module):
    """The weights of the places of a list; the default is 2 to the power of the places after it, less 1.

    ``rank_discount_fn`` returns weights [queries, documents] for a mask of the places that have a document.
    """

    def __init__(self, rank_discount_fn: Callable[[Tensor], Tensor] | None = None) -> None:
        """Store the function."""
        super().__init__()
        self.rank_discount_fn = rank_discount_fn

    def forward(self, mask: Tensor) -> Tensor:
        """Return the weights [queries, documents]; those of long lists are scaled, so that their sum is finite."""
        if self.rank_discount_fn is not None:
            return self.rank_discount_fn(mask)
        sizes = mask.sum(dim=1, keepdim=True)
        after = sizes - torch.arange(1, mask.shape[1] + 1, device=mask.device)
        scale = (sizes - 127).clamp(min=0)
        weights: Tensor = (torch.pow(2.0, after - scale) - torch.pow(2.0, -scale)) * mask
        return weights


class PListMLELoss(ListLoss):
    """The negative log-likelihood of the order of a list, with a weight for each place.

    The order is that of the documents, or with ``respect_input_order=False`` that of their labels.
    """

    settings: ClassVar[tuple[str, ...]] = (*ListLoss.settings, "respect_input_order", "lambda_weight")

    def __init__(
        self,
        model: Any,
        lambda_weight: PListMLELambdaWeight | None = PListMLELambdaWeight(),  # noqa: B008 - it has no state
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        """Store the arguments; ``lambda_weight`` None gives all places the same weight."""
        super().__init__(model, activation_fn, mini_batch_size)
        self.lambda_weight = lambda_weight
        self.respect_input_order = respect_input_order

    def loss(self, lists: _Lists) -> Tensor:
        """Return the loss of lists."""
        scores, mask = lists.scores, lists.mask
        if not self.respect_input_order:
            order = lists.labels.sort(dim=1, descending=True).indices
            scores, mask = scores.gather(1, order), mask.gather(1, order)
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        rest = torch.logcumsumexp(scores.flip(1), dim=1).flip(1)
        likelihood = (scores - rest).masked_fill(~mask, 0.0)
        if self.lambda_weight is not None:
            weights = self.lambda_weight(lists.mask)
            likelihood = likelihood * (weights / (weights.sum(dim=1, keepdim=True) + 1e-10))
        return -likelihood.sum(dim=1).mean()


class ListMLELoss(PListMLELoss):
    """The negative log-likelihood of the order of a list."""

    settings: ClassVar[tuple[str, ...]] = (*ListLoss.settings, "respect_input_order")

    def __init__(
        self,
        model: Any,
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
        respect_input_order: bool = True,
    ) -> None:
        """Store the arguments."""
        super().__init__(model, None, activation_fn, mini_batch_size, respect_input_order)


class BaseWeightingScheme(nn.Module):
    """The base of weights of pairs of documents; ``counts_all_pairs`` includes pairs in the right order."""

    counts_all_pairs = False

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """Return the weights of pairs of documents in the order of their scores.

        ``gain`` [queries, documents] and ``discount`` [1, documents] are those of nDCG, ``true_sorted`` the labels.
        """
        raise NotImplementedError


class NoWeightingScheme(BaseWeightingScheme):
    """Gives all pairs of a list the weight 1."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return the weight 1."""
        return gain.new_tensor(1.0)


class NDCGLoss1Scheme(BaseWeightingScheme):
    """Weighs each document of a pair by its gain; all pairs count."""

    counts_all_pairs = True

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return the weights [queries, documents, 1]."""
        return (gain / discount)[:, :, None]


class NDCGLoss2Scheme(BaseWeightingScheme):
    """Weighs a pair by the difference of gains and by what the distance of its places costs."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return the weights [queries, documents, documents]."""
        count = gain.shape[1]
        places = torch.arange(count, device=gain.device)
        apart = (places[:, None] - places[None, :]).abs()
        inverse = 1.0 / discount[0]
        cost = (inverse[(apart - 1) % count] - inverse[apart % count]).abs()
        return cost.fill_diagonal_(0.0)[None] * _apart(gain)


class LambdaRankScheme(BaseWeightingScheme):
    """Weighs a pair by what exchanging its documents changes in nDCG."""

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:  # noqa: ARG002
        """Return the weights [queries, documents, documents]."""
        return _apart(1.0 / discount) * _apart(gain)


class NDCGLoss2PPScheme(BaseWeightingScheme):
    """``mu`` times :class:`NDCGLoss2Scheme`, plus :class:`LambdaRankScheme`."""

    def __init__(self, mu: float = 10.0) -> None:
        """Store the factor."""
        super().__init__()
        self.mu = mu
        self.schemes = nn.ModuleList([NDCGLoss2Scheme(), LambdaRankScheme()])

    def forward(self, gain: Tensor, discount: Tensor, true_sorted: Tensor) -> Tensor:
        """Return the weights [queries, documents, documents]."""
        by_distance, by_exchange = (scheme(gain, discount, true_sorted) for scheme in self.schemes)
        weights: Tensor = self.mu * by_distance + by_exchange
        return weights


def _apart(values: Tensor) -> Tensor:
    """Return the absolute differences [n, d, d] of all pairs of values [n, d]."""
    return (values[:, :, None] - values[:, None, :]).abs()


class LambdaLoss(ListLoss):
    """The logistic loss of pairs of documents in the wrong order, weighted by what they cost in nDCG (LambdaLoss).

    Labels are grades from 0 to 4, exponents of the gain: scores of a teacher do not belong here. With ``k`` only pairs
    count of which a document is among the first k.
    """

    contract = Contract(2, 2, Label.LIST, 0.0, 4.0, has_lists=True)
    settings: ClassVar[tuple[str, ...]] = (*ListLoss.settings, "weighting_scheme", "k", "sigma", "eps", "reduction_log")

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        weighting_scheme: BaseWeightingScheme | None = NDCGLoss2PPScheme(),  # noqa: B008 - it has no state
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for an unknown logarithm."""
        super().__init__(model, activation_fn, mini_batch_size)
        if reduction_log not in ("natural", "binary"):
            raise ValueError(f"reduction_log must be natural or binary, got {reduction_log!r}")
        self.weighting_scheme = NoWeightingScheme() if weighting_scheme is None else weighting_scheme
        self.k = k
        self.sigma = sigma
        self.eps = eps
        self.reduction_log = reduction_log

    def loss(self, lists: _Lists) -> Tensor:
        """Return the loss of lists."""
        scores, order = lists.scores.sort(dim=1, descending=True)
        grades = lists.labels.gather(1, order)
        is_counted = self._counted(grades)
        gain, discount = self._gains(grades, lists.labels)
        weights = self.weighting_scheme(gain, discount, grades.clamp(min=0.0))
        differences = (scores[:, :, None] - scores[:, None, :]).clamp(-1e8, 1e8)
        losses = weights * functional.logsigmoid(self.sigma * differences)
        if self.reduction_log == "binary":
            losses = losses / math.log(2)
        kept = losses[is_counted]
        loss: Tensor = -kept.sum() / max(kept.numel(), 1)
        return loss

    def _counted(self, grades: Tensor) -> Tensor:
        """Return which pairs [queries, documents, documents] of documents in the order of their scores count."""
        differences = grades[:, :, None] - grades[:, None, :]
        is_pair = differences.isfinite()
        if not getattr(self.weighting_scheme, "counts_all_pairs", False):
            is_pair &= differences > 0
        is_first = torch.arange(grades.shape[1], device=grades.device) < (self.k or grades.shape[1])
        return is_pair & (is_first[:, None] | is_first[None, :])

    def _gains(self, grades: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gains of documents [queries, documents], over the best sum, and discounts [1, documents]."""
        best = labels.sort(dim=1, descending=True).values.clamp(min=0.0)
        discount = torch.log2(torch.arange(grades.shape[1], device=grades.device) + 2.0)[None].to(grades.dtype)
        total = ((2.0**best - 1) / discount)[:, : self.k].sum(dim=1, keepdim=True).clamp(min=self.eps)
        return (2.0 ** grades.clamp(min=0.0) - 1) / total, discount


class RankNetLoss(LambdaLoss):
    """The logistic loss of pairs of documents in the wrong order, without weights."""

    contract = Contract(2, 2, Label.LIST, has_lists=True)
    settings: ClassVar[tuple[str, ...]] = (*ListLoss.settings, "k", "sigma", "eps", "reduction_log")

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        k: int | None = None,
        sigma: float = 1.0,
        eps: float = 1e-10,
        reduction_log: Literal["natural", "binary"] = "binary",
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        """Store the arguments; raise ValueError for an unknown logarithm."""
        super().__init__(model, NoWeightingScheme(), k, sigma, eps, reduction_log, activation_fn, mini_batch_size)


class ADRMSELoss(ListLoss):
    """The squared error of approximate ranks, discounted by the true rank; equal labels share their mean rank."""

    settings: ClassVar[tuple[str, ...]] = ("alpha", *ListLoss.settings)

    def __init__(
        self,
        model: Any,
        alpha: float = 1.0,
        activation_fn: nn.Module | None = None,
        mini_batch_size: int | None = None,
    ) -> None:
        """Store the arguments."""
        super().__init__(model, activation_fn, mini_batch_size)
        self.alpha = alpha

    def loss(self, lists: _Lists) -> Tensor:
        """Return the loss of lists."""
        valid = lists.mask[:, None, :]
        labels = lists.labels.masked_fill(~lists.mask, 0.0)
        others, own = labels[:, None, :], labels[:, :, None]
        above, equal = ((compared & valid).sum(dim=2) for compared in (others > own, others == own))
        true = above + (equal + 1.0) / 2.0
        gaps = lists.scores[:, None, :] - lists.scores[:, :, None]
        found = 1.0 + (torch.sigmoid(self.alpha * gaps) * valid).sum(dim=2) - 0.5 * lists.mask
        errors = (true - found) ** 2 / torch.log2(true + 1.0)
        return (errors * lists.mask).sum() / lists.mask.sum()
