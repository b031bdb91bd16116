"""Check that token ids and text lengths are within the embedding tables of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_core.errors import InputTooLong, ModelBroken

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from st_core.text.tokens import Tokens

__all__ = ["check_padding", "check_positions", "check_words", "words_of"]

REMEDY = (
    "tokens were added to the tokenizer alone; resize the model's table of token vectors "
    "(transformers: resize_token_embeddings)"
)


def words_of(model: object) -> int | None:
    """Return the number of rows of a transformer's token embeddings, None where it is unknown."""
    get_table = getattr(model, "get_input_embeddings", None)
    if get_table is None:
        return getattr(getattr(model, "config", None), "vocab_size", None)
    try:
        return getattr(get_table(), "num_embeddings", None)
    except (NotImplementedError, AttributeError):
        return None


def check_words(ids: NDArray[np.int64], words: int | None) -> None:
    """Raise ModelBroken for a token id without a row in the token embeddings, which have ``words`` rows.

    ``words`` None means that the number is unknown. OpenVINO 2026.4 would read arbitrary memory for such an id, and
    CUDA would lose its context.
    """
    if words is not None and ids.size and int(ids.max()) >= words:
        raise ModelBroken(
            f"the tokenizer produced the token {int(ids.max())} and the model has vectors for {words}: {REMEDY}"
        )


def check_padding(pad_id: int, words: int | None, folder: Path) -> None:
    """Raise ModelBroken for a padding token without a row in the token embeddings; batches of mixed lengths need it."""
    if words is not None and pad_id >= words:
        raise ModelBroken(
            f"{folder}: the tokenizer pads with the token {pad_id} and the model has vectors for {words}: {REMEDY}"
        )


def check_positions(tokens: Tokens, positions: int | None) -> None:
    """Raise InputTooLong for a text with more tokens than position embeddings; ``positions`` None means no limit."""
    longest = max((row.size for row in tokens.ids), default=0)
    if positions is not None and longest > positions:
        raise InputTooLong(
            f"a text of {longest} tokens does not fit into the {positions} positions of the model; "
            f"leave truncation on, with a max_seq_length of {positions} or less"
        )
