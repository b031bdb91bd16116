"""Read weights as numpy arrays from safetensors files, and from pickled files without running code in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from st_core.errors import ModelBroken, missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Arrays", "as_float32", "read_tensors", "read_weights"]

Arrays = dict[str, "NDArray[np.generic]"]


def read_weights(folder: Path) -> Arrays:
    """Return the tensors of ``model.safetensors`` or, if there is no such file, of ``pytorch_model.bin``.

    Code in a pickled file is not run. Tensors of types that numpy lacks, such as bfloat16, are converted to float32.
    Raises ModelBroken, with the path, for a missing or unreadable file.
    """
    path = folder / "model.safetensors"
    if path.is_file():
        return _read_safetensors(path)
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file():
        return _read_pickle(pickled)
    raise ModelBroken(f"{folder}: no weights; expected model.safetensors or pytorch_model.bin")


def read_tensors(path: Path) -> Arrays:
    """Return the tensors of a safetensors file or, if the suffix is another, of a pickled file.

    Raises ModelBroken, with the path, for an unreadable file.
    """
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def as_float32(
    tensors: Mapping[str, NDArray[np.generic]], shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> dict[str, NDArray[np.float32]]:
    """Return tensors as float32; raises ModelBroken unless their names and shapes equal ``shapes``."""
    actual = {name: array.shape for name, array in tensors.items()}
    if actual != shapes:
        raise ModelBroken(f"{folder}: expected tensors {dict(shapes)}, got {actual}")
    return {name: array.astype(np.float32) for name, array in tensors.items()}


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelBroken(f"{path}: not a readable safetensors file: {error}") from error
    except KeyError as error:  # a type that numpy lacks: bfloat16, float8
        return _read_with_torch(path, error)


def _read_with_torch(path: Path, reason: Exception) -> Arrays:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing_extra("torch", f"{path} (a tensor type that numpy lacks: {reason})") from error
    return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}


def _read_pickle(path: Path) -> Arrays:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", f"{path} (a pickled file; safetensors files need no extra)") from error
    try:
        tensors: object = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # damaged pickles raise various exceptions: struct.error, IndexError, KeyError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelBroken(f"{path}: not a plain file of tensors (code in it is never run): {reason}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ModelBroken(f"{path}: expected a mapping from names to tensors")
    try:
        return {
            str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
            for name, value in tensors.items()
        }
    except (RuntimeError, TypeError) as error:  # sparse tensors, and tensors without data
        raise ModelBroken(f"{path}: contains a tensor that is no plain array: {error}") from error
