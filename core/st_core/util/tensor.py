"""Functions on tensors under the import path of ``sentence_transformers.util.tensor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from st_core import similarity
from st_core.tensors import Floats, as_batch, as_floats, as_tensor, is_tensor, numpy_of
from st_core.util._absent import refusals

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from scipy.sparse import coo_matrix

__all__ = [
    "batch_to_device",
    "cat_padded_token_embeddings",
    "compute_count_vector",
    "normalize_embeddings",
    "select_max_active_dims",
    "stack_padded_token_embeddings",
    "to_scipy_coo",
    "truncate_embeddings",
]

__getattr__ = refusals(__name__)

Batch = TypeVar("Batch", bound=dict[str, Any])
Scalar = TypeVar("Scalar", bound=np.generic)
Vectors = TypeVar("Vectors")

_convert_to_tensor = as_tensor
_convert_to_float_tensor = as_floats
_convert_to_batch = as_batch


def _convert_to_batch_tensor(a: object) -> torch.Tensor:
    """Return values as a tensor of at least two dimensions, half precision as float32."""
    return as_batch(as_floats(a))


def _move_tensors_to_cpu(value: object) -> object:
    """Return a value with the tensors in its lists, tuples and dicts on the CPU."""
    if is_tensor(value):
        return value.cpu()
    if isinstance(value, Mapping):
        return {name: _move_tensors_to_cpu(each) for name, each in value.items()}
    if type(value) is list:
        return [_move_tensors_to_cpu(each) for each in value]
    return tuple(map(_move_tensors_to_cpu, value)) if type(value) is tuple else value


@overload
def normalize_embeddings(embeddings: torch.Tensor) -> torch.Tensor: ...
@overload
def normalize_embeddings(embeddings: NDArray[np.generic] | Sequence[object]) -> Floats: ...
def normalize_embeddings(embeddings: torch.Tensor | NDArray[np.generic] | Sequence[object]) -> torch.Tensor | Floats:
    """Return vectors [n, d] or a vector [d] scaled to unit length; a zero vector stays zero."""
    if not is_tensor(embeddings):
        return similarity.unit_rows(np.asarray(embeddings))
    if embeddings.is_sparse:
        lengths = (embeddings * embeddings).sum(-1).to_dense().sqrt().clamp(min=1e-12)
        return embeddings / lengths if embeddings.ndim == 1 else embeddings * (1 / lengths)[:, None]
    from torch.nn import functional

    return functional.normalize(embeddings, p=2, dim=-1)


@overload
def truncate_embeddings(embeddings: torch.Tensor, truncate_dim: int | None) -> torch.Tensor: ...
@overload
def truncate_embeddings(embeddings: NDArray[Scalar], truncate_dim: int | None) -> NDArray[Scalar]: ...
def truncate_embeddings(
    embeddings: torch.Tensor | NDArray[Scalar], truncate_dim: int | None
) -> torch.Tensor | NDArray[Scalar]:
    """Return the first ``truncate_dim`` dimensions of vectors [..., d]; all of them for None."""
    return embeddings[..., :truncate_dim]


@overload
def select_max_active_dims(embeddings: Vectors, max_active_dims: None) -> Vectors: ...
@overload
def select_max_active_dims(embeddings: object, max_active_dims: int) -> torch.Tensor: ...
@overload
def select_max_active_dims(embeddings: Vectors, max_active_dims: int | None) -> torch.Tensor | Vectors: ...
def select_max_active_dims(embeddings: object, max_active_dims: int | None) -> object:
    """Return vectors [..., d] with their ``max_active_dims`` largest absolute values, and zeros elsewhere, as a tensor.

    For None, the vectors are returned unchanged. Raises ValueError for a number below 1.
    """
    if max_active_dims is None:
        return embeddings
    if max_active_dims < 1:
        raise ValueError(f"max_active_dims must be a positive integer, got {max_active_dims}")
    tensor = as_tensor(embeddings).to_dense()
    kept = tensor.abs().topk(min(max_active_dims, tensor.shape[-1]), dim=-1).indices
    return tensor.new_zeros(tensor.shape).scatter(-1, kept, tensor.gather(-1, kept))


def compute_count_vector(embeddings: torch.Tensor) -> torch.Tensor:
    """Return how many vectors of a tensor [n, d] or [d] have a value in each dimension, as int32 [d]."""
    import torch

    if embeddings.ndim not in (1, 2):
        raise ValueError(f"expected a tensor of 1 or 2 dimensions, got {embeddings.ndim}")
    sparse = embeddings if embeddings.is_sparse else embeddings.to_sparse()
    columns = sparse.coalesce().indices()[-1]
    return torch.bincount(columns, minlength=embeddings.shape[-1]).int()


def to_scipy_coo(x: torch.Tensor) -> coo_matrix:
    """Return a sparse tensor [n, d] as a ``scipy.sparse.coo_matrix``."""
    from scipy.sparse import coo_matrix

    sparse = x.coalesce()
    values = numpy_of(sparse.values())
    return coo_matrix((values, tuple(sparse.indices().cpu().numpy())), shape=tuple(x.shape))


def batch_to_device(batch: Batch, target_device: torch.device | str) -> Batch:
    """Move the tensors of a batch to a device, in place, and return the batch."""
    for name, value in batch.items():
        if is_tensor(value):
            batch[name] = value.to(target_device)
    return batch


def stack_padded_token_embeddings(
    embeddings: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors [n, tokens, d] and masks [n, tokens] stacked as [n, k, longest, d] and [n, k, longest]."""
    import torch

    padded, known = _of_equal_width(embeddings, masks)
    return torch.stack(padded, dim=1), torch.stack(known, dim=1)


def cat_padded_token_embeddings(
    embeddings: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors [n, tokens, d] and masks [n, tokens] of several batches as one batch, padded to the longest."""
    import torch

    padded, known = _of_equal_width(embeddings, masks)
    return torch.cat(padded), torch.cat(known)


def _of_equal_width(
    embeddings: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return vectors [n, tokens, d] and masks [n, tokens] padded with zeros to the largest number of tokens."""
    from torch.nn.functional import pad

    width = max(each.shape[1] for each in embeddings)
    padded = [pad(each, (0, 0, 0, width - each.shape[1])) for each in embeddings]
    return padded, [pad(each, (0, width - each.shape[1])) for each in masks]
