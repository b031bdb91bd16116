"""Everyday functions of ``sentence_transformers.util``, by the same names: tensors in, tensors out.

Arrays, lists and sparse vectors give arrays. Dense tensors are computed by torch with their gradients, in their own
type or in float32 for half precision. torch is imported for tensors only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from st_core import similarity
from st_core.quantize import quantize_embeddings
from st_core.retrieval import (
    community_detection,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
)
from st_core.similarity import SimilarityFunction, is_tensor

if TYPE_CHECKING:
    import torch

__all__ = [
    "SimilarityFunction",
    "batch_to_device",
    "community_detection",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "get_device_name",
    "information_retrieval",
    "is_sentence_transformer_model",
    "manhattan_sim",
    "normalize_embeddings",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "semantic_search",
    "truncate_embeddings",
]

information_retrieval = semantic_search
"""The old name of ``semantic_search``."""

Batch = TypeVar("Batch", bound=dict[str, Any])


def cos_sim(a: object, b: object) -> Any:
    """Return the cosines of all pairs of vectors [a, b]."""
    return _scores(a, b, lambda left, right: _unit(left) @ _unit(right).T, similarity.cos_sim)


def pytorch_cos_sim(a: object, b: object) -> Any:
    """Call :func:`cos_sim`, under its old name."""
    return cos_sim(a, b)


def dot_score(a: object, b: object) -> Any:
    """Return the inner products of all pairs of vectors [a, b]."""
    return _scores(a, b, lambda left, right: left @ right.T, similarity.dot_score)


def euclidean_sim(a: object, b: object) -> Any:
    """Return the negative Euclidean distances of all pairs of vectors [a, b]."""
    return _scores(a, b, partial(_negative_distances, power=2.0), similarity.euclidean_sim)


def manhattan_sim(a: object, b: object) -> Any:
    """Return the negative Manhattan distances of all pairs of vectors [a, b]."""
    return _scores(a, b, partial(_negative_distances, power=1.0), similarity.manhattan_sim)


def pairwise_cos_sim(a: object, b: object) -> Any:
    """Return the cosines [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: (_unit(left) * _unit(right)).sum(-1), similarity.pairwise_cos_sim)


def pairwise_dot_score(a: object, b: object) -> Any:
    """Return the inner products [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: (left * right).sum(-1), similarity.pairwise_dot_score)


def pairwise_euclidean_sim(a: object, b: object) -> Any:
    """Return the negative Euclidean distances [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: -(left - right).norm(dim=-1), similarity.pairwise_euclidean_sim)


def pairwise_manhattan_sim(a: object, b: object) -> Any:
    """Return the negative Manhattan distances [n] of rows with the same index in both sets."""
    return _scores(a, b, lambda left, right: -(left - right).abs().sum(-1), similarity.pairwise_manhattan_sim)


def normalize_embeddings(embeddings: Any) -> Any:
    """Return vectors [n, d] or a vector [d] scaled to unit length; a zero vector stays zero."""
    if is_tensor(embeddings) and embeddings.is_sparse:
        lengths = (embeddings * embeddings).sum(-1).to_dense().sqrt().clamp(min=1e-12)
        return embeddings / lengths if embeddings.ndim == 1 else embeddings * (1 / lengths)[:, None]
    return _unit(embeddings) if is_tensor(embeddings) else similarity.unit_rows(np.asarray(embeddings))


def truncate_embeddings(embeddings: Any, truncate_dim: int | None) -> Any:
    """Return the first ``truncate_dim`` dimensions of vectors [..., d]; all of them for None."""
    return embeddings[..., :truncate_dim]


def batch_to_device(batch: Batch, target_device: torch.device | str) -> Batch:
    """Move the tensors of a batch to a device, in place, and return the batch."""
    for name, value in batch.items():
        if is_tensor(value):
            batch[name] = value.to(target_device)
    return batch


def get_device_name() -> str:
    """Return the device that a model is loaded on by default: "cuda:0", that of ``LOCAL_RANK``, or "cpu"."""
    from st_core.backends.torch.backend import pick_device

    device = pick_device(None)
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device.type == "cuda" else device.type


def is_sentence_transformer_model(
    model_name_or_path: str,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> bool:
    """Return whether a folder or a Hub repository contains ``modules.json``.

    Errors of the Hub other than a missing file are raised unchanged.
    """
    folder = Path(model_name_or_path)
    if folder.is_dir():
        return (folder / "modules.json").is_file()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        hf_hub_download(
            model_name_or_path,
            "modules.json",
            revision=revision,
            cache_dir=cache_folder,
            token=token,
            local_files_only=local_files_only,
        )
    except LocalEntryNotFoundError:
        if local_files_only:
            return False
        raise
    except EntryNotFoundError:
        return False
    return True


Tensors = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def _scores(a: object, b: object, on_tensors: Tensors, on_rows: Callable[[object, object], Any]) -> Any:
    """Return scores computed by torch if one of the inputs is a dense tensor and neither is sparse."""
    sides = (a, b)
    if not any(is_tensor(side) and not side.is_sparse for side in sides):
        return on_rows(a, b)
    if not all(isinstance(side, (np.ndarray, list)) or (is_tensor(side) and not side.is_sparse) for side in sides):
        return on_rows(a, b)
    left, right = (_rows(side) for side in sides)
    return on_tensors(left, right.to(left.device))


def _rows(vectors: object) -> torch.Tensor:
    """Return dense vectors as a tensor [n, d], half precision as float32."""
    import torch

    if isinstance(vectors, list) and vectors and is_tensor(vectors[0]):
        vectors = torch.stack(cast("list[torch.Tensor]", vectors))
    tensor = vectors if is_tensor(vectors) else torch.as_tensor(np.asarray(vectors))
    tensor = tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor
    return tensor[None] if tensor.ndim == 1 else tensor


def _unit(tensor: torch.Tensor) -> torch.Tensor:
    from torch.nn import functional

    return functional.normalize(tensor, p=2, dim=-1)


def _negative_distances(left: torch.Tensor, right: torch.Tensor, *, power: float) -> torch.Tensor:
    import torch

    return -torch.cdist(left, right, p=power)
