"""The tokenizer that ``model.tokenizer`` returns: its settings, and the tokenizer of the engine that follows them.

A tokenizer of the transformers or the tokenizers library can be changed by attributes and methods. The engine computes
with a tokenizer of its own that never changes, so it compares the settings before each call and builds another one
where they differ.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from st_core.backends.tokenizer_files import own_copy
from st_core.modules import Module
from st_core.modules.transformer import Transformer
from st_core.text.chat import ChatTokenizer
from st_core.text.tokens import BARE, AnyTokenizer, SlowTokenizer, TextTokenizer, finite, is_length, read_layout
from st_core.text.word_pieces import read_word_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from st_core.backends.torch.library import TokenizerFields

__all__ = ["State", "hand_out", "limit_of", "rebuilt", "set_length", "state_of"]

_NAMES = (
    *("all_special_ids", "chat_template", "model_input_names", "pad_token_id", "pad_token_type_id"),
    *("split_special_tokens", "truncation_side"),
)
"""Attributes of tokenizers of transformers that change tokens."""

_STEPS = ("normalizer", "pre_tokenizer", "post_processor")
"""Attributes of tokenizers of the tokenizers library that change tokens."""


class State(NamedTuple):
    """The settings of a tokenizer: its maximum length, and all others."""

    length: object
    others: tuple[object, ...]


def state_of(shown: Any) -> State:
    """Return the settings of a tokenizer of the transformers or the tokenizers library."""
    backend = getattr(shown, "backend_tokenizer", None) or shown
    steps = tuple(repr(getattr(backend, name, None)) for name in _STEPS)
    if backend is shown and not hasattr(shown, "model_max_length"):
        cut = shown.truncation or {}
        others = (shown.get_vocab_size(), shown.encode_special_tokens, shown.padding, cut.get("direction"))
        return State(cut.get("max_length"), (*steps, *map(repr, others)))
    values = tuple(repr(getattr(shown, name, None)) for name in _NAMES)
    return State(shown.model_max_length, (*steps, *values, len(shown)))


def limit_of(state: State) -> int | None:
    """Return the maximum number of tokens in the settings of a tokenizer, None for no limit.

    Raises ValueError for a maximum length that is none.
    """
    if state.length is not None and not is_length(state.length):
        raise ValueError(f"model.tokenizer.model_max_length must be a positive whole number, got {state.length!r}")
    return finite(state.length)


def set_length(shown: Any, length: int | None) -> None:
    """Set the maximum length of a tokenizer of transformers; others take it with each call."""
    if hasattr(shown, "model_max_length"):
        shown.model_max_length = int(1e30) if length is None else length


def hand_out(tokenizer: AnyTokenizer, *, is_shared: bool) -> object:
    """Return the object for ``model.tokenizer``, which a user may change.

    With ``is_shared`` the object belongs to another model, so that a copy is returned. An object of the tokenizers
    library is always a copy: models with equal files share it.
    """
    shown = tokenizer.shown
    if hasattr(shown, "model_max_length") or not hasattr(shown, "get_vocab_size"):
        return copy.deepcopy(shown) if is_shared else shown
    own = own_copy(shown, lower_case=False)
    if tokenizer.model_max_length is not None:
        own.enable_truncation(tokenizer.model_max_length)
    return own


def rebuilt(module: Module, tokenizer: AnyTokenizer, shown: Any) -> AnyTokenizer:
    """Return a tokenizer like another one, with the settings of ``shown``.

    Raises ValueError for a setting that the model cannot follow.
    """
    if not hasattr(shown, "model_max_length"):
        assert isinstance(tokenizer, TextTokenizer)
        return _of_tokenizers(tokenizer, shown)
    assert isinstance(module, Transformer)
    if getattr(shown, "chat_template", None) and not isinstance(tokenizer, ChatTokenizer):
        raise ValueError(
            "model.tokenizer.chat_template was set for a model that reads plain texts; load the model with "
            "processor_kwargs={'chat_template': …}"
        )
    inner = tokenizer.inner if isinstance(tokenizer, ChatTokenizer) else tokenizer
    if "token_type_ids" in shown.model_input_names and not inner.wants_types:
        raise ValueError("model.tokenizer.model_input_names has 'token_type_ids', which the model does not read")
    assert isinstance(inner, (TextTokenizer, SlowTokenizer))
    new = _of_transformers(module, inner, shown)
    return replace(tokenizer, inner=new) if isinstance(tokenizer, ChatTokenizer) else new


def _of_transformers(
    module: Transformer, tokenizer: TextTokenizer | SlowTokenizer, shown: PreTrainedTokenizerBase
) -> TextTokenizer | SlowTokenizer:
    """Return the tokenizer of the engine for one of transformers; the side of padding stays that of the model."""
    from st_core.backends.torch.library import own_tokenizer

    common: TokenizerFields = {
        "pad_id": shown.pad_token_id if shown.pad_token_id is not None else 0,
        "pad_type": shown.pad_token_type_id,
        "pad_left": tokenizer.pad_left,
        "wants_types": "token_type_ids" in shown.model_input_names,
        "model_max_length": finite(shown.model_max_length),
        "special_ids": frozenset(shown.all_special_ids),
    }
    return own_tokenizer(module, shown, common)


def _of_tokenizers(tokenizer: TextTokenizer, shown: Tokenizer) -> TextTokenizer:
    """Return the tokenizer of the engine for one of the tokenizers library."""
    if shown.padding is not None:
        raise ValueError(
            "padding was enabled on model.tokenizer, and its tokens would count as text; call "
            "model.tokenizer.no_padding()"
        )
    cut = shown.truncation or {}
    backend = own_copy(shown, lower_case=False)
    single = BARE if tokenizer.single is BARE else read_layout(backend, pair=False)
    if single is None:
        raise ValueError("model.tokenizer inserts special tokens into a text or reorders it, which is not supported")
    return replace(
        tokenizer,
        backend=backend,
        single=single,
        pair=None if tokenizer.pair is None else read_layout(backend, pair=True),
        keep_left=cut.get("direction", "right") == "right",
        model_max_length=cut.get("max_length"),
        special_ids=frozenset(index for index, token in backend.get_added_tokens_decoder().items() if token.special),
        offered=shown,
        words=read_word_pieces(backend),
    )
