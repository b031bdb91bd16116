"""Read the outline of a transformer, that is, the stack metadata that is known without loading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_core.backends import Outline
from st_core.backends.dtypes import STORED_TYPES, dtype_name, stored_type
from st_core.backends.tokenizer_files import as_transformers

if TYPE_CHECKING:
    from st_core.modules.transformer import Transformer
    from st_core.text.tokens import AnyTokenizer

__all__ = ["read_outline"]


def read_outline(module: Transformer, device: object, dtype: object) -> Outline | None:
    """Return the outline of a transformer on torch for a requested device and dtype.

    None where the dtype is known only after the weights are loaded.
    """
    precision = _precision(module, device, dtype)
    if precision is None:
        return None
    tokenizer, limit = as_transformers(module, lambda: _of_transformers(module)[0].shown) or _of_transformers(module)
    return Outline(tokenizer, limit, precision)


def _of_transformers(module: Transformer) -> tuple[AnyTokenizer, int | None]:
    from st_core.backends.torch.library import tokenizer_of

    return tokenizer_of(module)


def _precision(module: Transformer, device: object, dtype: object) -> str | None:
    requested = dtype_name(dtype or module.requested_dtype)
    if requested is not None and requested != "auto":
        return requested if requested in STORED_TYPES.values() else None
    stored = stored_type(module.folder / "model.safetensors", module.config)
    if requested == "auto" or stored == "float32":
        return stored
    return "float32" if str(device).partition(":")[0] == "cpu" else None
