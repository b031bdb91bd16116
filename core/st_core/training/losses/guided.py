"""In-batch negatives without those that a guide, another model, finds as similar as the positive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from st_core.model import Model
from st_core.training.columns import Contract
from st_core.training.devices import gathered, rank
from st_core.training.losses.cached import CachedLoss
from st_core.training.losses.loss import EmbeddingLoss

__all__ = ["CachedGISTEmbedLoss", "GISTEmbedLoss"]


ROUNDING = 1e-6
"""What two products of the same vectors may differ by: a candidate as similar as the positive stays."""


class GISTEmbedLoss(EmbeddingLoss):
    """The cross-entropy of the positive among the candidates of a batch that the guide finds less similar.

    Columns are a query, its positive, and any number of negatives. A candidate is left out if its similarity for the
    guide is above that of the positive less a margin, ``margin`` or with ``margin_strategy="relative"`` that share of
    the similarity. ``contrast_anchors`` and ``contrast_positives`` add queries and positives of other rows to the
    candidates. The guide, a dense model, reads the texts with its own tokenizer, without prompts, and is not trained.
    """

    contract = Contract(2, None)
    settings: ClassVar[tuple[str, ...]] = (
        *("temperature", "margin_strategy", "margin", "contrast_anchors", "contrast_positives"),
        "gather_across_devices",
    )

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        guide: Any,
        temperature: float = 0.01,
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        """Store the arguments; raise ValueError for an unknown strategy and TypeError for a guide of another kind."""
        super().__init__(model)
        if margin_strategy not in ("absolute", "relative"):
            raise ValueError(f"margin_strategy must be absolute or relative, got {margin_strategy!r}")
        if not isinstance(guide, Model) or not hasattr(guide, "encode"):
            raise TypeError(f"the guide must be a dense model of st_core, got {type(guide).__name__}")
        self.guide = guide
        self.temperature = temperature
        self.margin_strategy = margin_strategy
        self.margin = margin
        self.contrast_anchors = contrast_anchors
        self.contrast_positives = contrast_positives
        self.gather_across_devices = gather_across_devices

    def targets(self, features: Sequence[Mapping[str, Any]], labels: Tensor | None) -> list[Tensor]:  # noqa: ARG002 - there are none
        """Return the vectors of the guide [n, d] for each column."""
        encode: Any = self.guide.encode
        return [
            encode(list(each["texts"]), prompt="", convert_to_tensor=True, show_progress_bar=False).clone()
            for each in features
        ]

    def compute_loss_from_embeddings(self, embeddings: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Return the loss of two or more columns [n, d]; ``labels`` are the vectors of the guide for each."""
        own, guide = (self._unit(each) for each in (embeddings, labels))
        rows = len(embeddings[0])
        target = torch.arange(rows, device=embeddings[0].device) + (rank() * rows if self.gather_across_devices else 0)
        least = self._threshold(guide, target)
        scores = [self._masked(own[0] @ own[1].T, guide[0] @ guide[1].T, least, target)]
        if self.contrast_anchors:
            scores.append(self._masked(own[0] @ own[0].T, guide[0] @ guide[0].T, least))
        if self.contrast_positives:
            scores.append(self._masked(own[1][target] @ own[1].T, guide[1][target] @ guide[1].T, least))
        scores += [
            self._masked(own[0] @ mine.T, guide[0] @ its.T, least) for mine, its in zip(own[2:], guide[2:], strict=True)
        ]
        return functional.cross_entropy(torch.cat(scores, dim=1) / self.temperature, target)

    def _unit(self, columns: Sequence[Tensor]) -> list[Tensor]:
        """Return columns as unit vectors; those of documents from all devices."""
        first, *others = [functional.normalize(each, dim=-1, eps=1e-8) for each in columns]
        return [first, *(gathered(each) if self.gather_across_devices else each for each in others)]

    def _threshold(self, guide: Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the similarity [n, 1] above which candidates are left out."""
        positive = (guide[0] * guide[1][target]).sum(dim=-1, keepdim=True)
        share = 1.0 if self.margin_strategy == "absolute" else positive.abs()
        return positive - share * self.margin

    @staticmethod
    def _masked(own: Tensor, guide: Tensor, least: Tensor, target: Tensor | None = None) -> Tensor:
        """Return similarities [n, m] with minus infinity for what is left out; the positive never is."""
        is_left_out = guide.to(own.device) > least.to(own.device) + ROUNDING
        if target is not None:
            is_left_out[torch.arange(len(target), device=target.device), target] = False
        return own.masked_fill(is_left_out, -torch.inf)


class CachedGISTEmbedLoss(GISTEmbedLoss, CachedLoss):
    """:class:`GISTEmbedLoss` for batches that are embedded in parts, with the same value and gradient."""

    def __init__(  # noqa: PLR0917 - the order of sentence-transformers
        self,
        model: Any,
        guide: Any,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,  # noqa: ARG002 - parts have no bar
        margin_strategy: Literal["absolute", "relative"] = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        gather_across_devices: bool = False,
    ) -> None:
        """Store the arguments after checking them."""
        super().__init__(
            model,
            guide,
            temperature,
            margin_strategy,
            margin,
            contrast_anchors,
            contrast_positives,
            gather_across_devices,
        )
        self.set_parts(mini_batch_size, mini_batch_num_tokens)
