"""What is told of a transformer without its weights: its tokenizer, the most tokens it reads, and the type it is computed in on torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_core.backends.dtypes import STORED_TYPES, stored_type
from st_core.backends.tokenizer_files import as_transformers

if TYPE_CHECKING:
    from st_core.modules.transformer import Transformer
    from st_core.text.tokens import AnyTokenizer

__all__ = ["Outline", "read_outline"]


@dataclass(frozen=True, slots=True)
class Outline:
    """What is told of a stack; ``file`` is its graph where it came as one."""

    tokenizer: AnyTokenizer
    max_length: int | None
    precision: str
    file: Path | None = None


def read_outline(module: Transformer, device: Any, dtype: Any) -> Outline | None:
    """The outline of a transformer on torch, for a device and a type as the caller gave them; None where only loading it tells the type."""
    precision = _precision(module, device, dtype)
    if precision is None:
        return None
    tokenizer, limit = as_transformers(module, lambda: _of_transformers(module)[0].shown) or _of_transformers(module)
    return Outline(tokenizer, limit, precision)


def _of_transformers(module: Transformer) -> tuple[AnyTokenizer, int | None]:
    from st_core.backends.torch.library import tokenizer_of

    return tokenizer_of(module)


def _precision(module: Transformer, device: Any, dtype: Any) -> str | None:
    asked = dtype or module.asked_type
    if asked is not None and asked != "auto":
        name = str(asked).removeprefix("torch.")
        return name if name in STORED_TYPES.values() else None
    stored = stored_type(module.folder / "model.safetensors", module.config)
    if asked == "auto" or stored == "float32":
        return stored
    return "float32" if str(device).partition(":")[0] == "cpu" else None
