"""Read weights as numpy arrays, from safetensors files and from pickles without running code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_core.errors import ModelBroken, missing_extra

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_tensors", "read_weights"]


def read_weights(folder: Path) -> dict[str, NDArray[Any]]:
    """The tensors of ``model.safetensors``, or of ``pytorch_model.bin`` read without running any code in it.

    Half-precision tensors that numpy has no type for (bfloat16) come as float32. Raises ModelBroken naming the file.
    """
    path = folder / "model.safetensors"
    if path.is_file():
        return _read_safetensors(path)
    pickled = folder / "pytorch_model.bin"
    if pickled.is_file():
        return _read_pickle(pickled)
    raise ModelBroken(f"{folder}: neither model.safetensors nor pytorch_model.bin is there")


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of one file, by its ending a safetensors file or a pickle, of which no code is run; raises ModelBroken naming it."""
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelBroken(f"{path}: not a readable safetensors file: {error}") from error
    except KeyError as error:  # numpy has no type of that name: bfloat16, float8
        return _read_with_torch(path, error)


def _read_with_torch(path: Path, reason: Exception) -> dict[str, NDArray[Any]]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise missing_extra("torch", f"{path} (a tensor type numpy lacks: {reason})") from error
    return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}


def _read_pickle(path: Path) -> dict[str, NDArray[Any]]:
    try:
        import torch
    except ImportError as error:
        raise missing_extra("torch", f"{path} (a pickled file; safetensors need nothing)") from error
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle makes its reader raise anything: struct.error, IndexError, KeyError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelBroken(f"{path}: not a plain file of tensors (code in it is never run): {reason}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ModelBroken(f"{path}: expected a mapping from names to tensors")
    try:
        return {
            str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
            for name, value in tensors.items()
        }
    except (RuntimeError, TypeError) as error:  # sparse tensors, tensors without content
        raise ModelBroken(f"{path}: holds a tensor that is no plain array: {error}") from error
