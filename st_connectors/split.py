"""Split long texts into windows by the tokens of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from st_connectors.arguments import set_ints
from st_connectors.ingest import Spans
from st_connectors.models import LazyModel
from st_connectors.vectorise import CutTest, tokenizer_of
from st_core.text.splitter import Offsets, offsets_of, split

__all__ = ["Split", "cut_test", "spans_of"]

DEFAULT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Split:
    """How texts are split into windows of up to ``tokens`` of the model's tokens, ``overlap`` of them shared.

    If ``tokens`` is None, it is 256, or the maximum of the model if that is less. An overlap is at most half a window.
    """

    tokens: int | None = None
    overlap: int = 32

    def __post_init__(self) -> None:
        set_ints(self, {"overlap": 0} if self.tokens is None else {"tokens": 1, "overlap": 0})


def cut_test(model: LazyModel) -> CutTest | None:
    """Return the test of whether the model truncates a text.

    Returns None if the model never truncates texts, or has no tokenizer by which to decide.
    """
    loaded = model.load()
    limit = _max_tokens(loaded)
    offsets = None if limit is None else _offsets(loaded)
    if limit is None or offsets is None:
        return None
    return CutTest(limit, lambda text: len(offsets(text)))


def spans_of(models: Sequence[LazyModel], options: Split) -> Spans:
    """Return the function that splits texts, by the tokens of the first model with a tokenizer."""
    if not isinstance(options, Split):
        raise TypeError(f"split must be a Split such as Split(tokens=256), not {options!r}")
    for model in models:
        loaded = model.load()
        offsets = _offsets(loaded)
        if offsets is None:
            continue
        limit = _max_tokens(loaded)
        size = options.tokens or min(DEFAULT_TOKENS, limit or DEFAULT_TOKENS)
        if limit is not None and size > limit:
            raise ValueError(
                f"windows of {size} tokens would be cut: the model reads {limit}; "
                f"leave out tokens, or use at most {limit}"
            )
        return partial(_split, offsets=offsets, size=size, overlap=min(options.overlap, size // 2))
    raise ValueError("no model has a tokenizer to split texts by: split them before, or pass split=None")


def _split(text: str, *, offsets: Offsets, size: int, overlap: int) -> list[tuple[int, int]]:
    return [(window.start, window.end) for window in split(text, offsets, size=size, overlap=overlap)]


def _offsets(loaded: object) -> Offsets | None:
    tokenizer = tokenizer_of(loaded)
    return None if tokenizer is None else offsets_of(tokenizer)


def _max_tokens(loaded: object) -> int | None:
    """Return the maximum number of tokens of a text, excluding special tokens; None means no limit."""
    limit = getattr(loaded, "max_seq_length", None)
    if not isinstance(limit, int):
        return None
    tokenizer = tokenizer_of(loaded)
    return limit if tokenizer is None else limit - int(tokenizer.num_special_tokens_to_add(is_pair=False))
