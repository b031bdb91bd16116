"""Convert arrays, lists and tensors to tensors and arrays, without a copy where possible.

torch is imported when a tensor is made.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["as_batch", "as_floats", "as_tensor", "is_tensor", "numpy_of"]

Floats: TypeAlias = "NDArray[np.floating]"
"""An array of float32, or of float64 if the input is float64."""


def as_tensor(values: object) -> torch.Tensor:
    """Return a tensor, an array, numbers, or a list of any of these as a tensor; sparse tensors become float32.

    An array and its tensor share memory unless the array is read-only. Raises ValueError for arrays with negative
    strides and for lists of entries of different shapes.
    """
    tensor = _stacked(values) if isinstance(values, list | tuple) else _single(values)
    return tensor.float() if tensor.is_sparse else tensor


def as_floats(values: object) -> torch.Tensor:
    """Return :func:`as_tensor` of the values, with floats of less than 32 bits as float32."""
    tensor = as_tensor(values)
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor


def as_batch(tensor: torch.Tensor) -> torch.Tensor:
    """Return a vector [d] as a matrix [1, d], and other tensors unchanged."""
    return tensor[None] if tensor.ndim == 1 else tensor


def _single(values: object) -> torch.Tensor:
    """Return a tensor or an array as a tensor."""
    return values if is_tensor(values) else _of_array(np.asarray(values))


def _stacked(values: Sequence[object]) -> torch.Tensor:
    """Return a list of tensors, arrays or numbers as one tensor."""
    import torch

    if _are_tensors(values):
        return torch.stack([each.coalesce() if each.is_sparse else each for each in values])
    if values and all(isinstance(each, np.ndarray) for each in values):
        return torch.stack([_of_array(np.asarray(each)) for each in values])
    return torch.tensor(values)


def _are_tensors(values: Sequence[object]) -> TypeGuard[Sequence[torch.Tensor]]:
    """Return whether values are one or more tensors."""
    return bool(values) and all(is_tensor(each) for each in values)


def _of_array(array: NDArray[np.generic]) -> torch.Tensor:
    """Return an array as a tensor that shares its memory, or a copy of a read-only array."""
    import torch

    return torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)


def is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    """Return whether a value is a torch tensor.

    torch is not imported for this, because there can be no tensors if torch has not been imported before.
    """
    library = sys.modules.get("torch")
    return library is not None and isinstance(value, library.Tensor)


def numpy_of(tensor: torch.Tensor) -> Floats:
    """Return a dense tensor as an array; float64 is kept, and other types are converted to float32.

    bfloat16 must be converted, because numpy does not have it.
    """
    dense = tensor.detach().cpu()
    array: Floats = (dense if dense.dtype == sys.modules["torch"].float64 else dense.float()).numpy()
    return array
