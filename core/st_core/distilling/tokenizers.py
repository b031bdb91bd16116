"""The tokenizer of a model that is distilled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_core.errors import ModelUnsupported
from st_core.text.tokens import TextTokenizer

if TYPE_CHECKING:
    from st_core.model import Model

__all__ = ["text_tokenizer"]


def text_tokenizer(model: Model) -> TextTokenizer:
    """Return the tokenizer of a model's documents; raise ModelUnsupported for one not of the tokenizers library."""
    engine = model._current()  # noqa: SLF001 - of this package
    tokenizer = engine.outline(engine.tasks()[-1]).tokenizer
    if not isinstance(tokenizer, TextTokenizer):
        raise ModelUnsupported(
            f"{model.checkpoint.name}: its tokenizer is a {type(tokenizer).__name__}, and only one of the tokenizers "
            "library can be distilled; choose another model"
        )
    return tokenizer
