"""Token ids that a model has no vector for: a tokenizer got tokens that the model was never told of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_core.errors import ModelBroken

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["check_padding", "check_words", "words_of"]

REMEDY = "tokens were added to the tokenizer alone; make the model's table of word vectors as large (transformers: resize_token_embeddings)"


def words_of(model: Any) -> int | None:
    """The rows of a transformer's table of word vectors, None where it is not told."""
    if not hasattr(model, "get_input_embeddings"):
        return getattr(model.config, "vocab_size", None)
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", None)
    except (NotImplementedError, AttributeError):
        return None


def check_words(ids: NDArray[np.int64], words: int | None) -> None:
    """Raise ModelBroken for an id beyond the table: OpenVINO 2026.4 computes with whatever it reads there, and a card's context is lost."""
    if words is not None and ids.size and int(ids.max()) >= words:
        raise ModelBroken(
            f"the tokenizer gives the token {int(ids.max())} and the model has vectors for {words}: {REMEDY}"
        )


def check_padding(pad_id: int, words: int | None, folder: Path) -> None:
    """Raise ModelBroken for padding beyond the table, which every batch of texts of several lengths would need."""
    if words is not None and pad_id >= words:
        raise ModelBroken(
            f"{folder}: the tokenizer's padding is the token {pad_id} and the model has vectors for {words}: {REMEDY}"
        )
