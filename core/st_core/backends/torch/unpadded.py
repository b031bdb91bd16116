"""Train the layers of the common encoders without padding.

Embeddings and heads compute batches [n, t]. Between them the layers compute the tokens of all texts as one row, in
which each text attends to itself. The states of tokens and all gradients are those of the padded batch. Batches with
padding on the left are computed as they are, because some heads read the first position.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

__all__ = ["leave_out_padding"]

logger = logging.getLogger(__name__)

ATTENTION = "st_core_unpadded"
"""The name of the attention in transformers."""

STACKS = {
    "bert": "encoder",
    "camembert": "encoder",
    "distilbert": "transformer",
    "electra": "encoder",
    "roberta": "encoder",
    "xlm-roberta": "encoder",
}
"""The layers of a base model, by model type. All of them attend to every token and have no position bias in them."""

OVERHEAD = 110_000
"""The cost of one more call of attention, in tokens times the square of the width. On one core it was 84,000 to 376,000
for texts of 12 and 48 tokens with 384 and 768 dimensions."""


def leave_out_padding(model: Any) -> bool:
    """Change a model of transformers in place, so that its layers leave out padding on the CPU; return whether they do.

    A model of another type, with another attention, or whose states would change stays as it is.
    """
    base, config = model.base_model, model.config
    stack = getattr(base, STACKS.get(config.model_type, ""), None)
    if stack is None or config._attn_implementation != "sdpa" or _returns_more(config):  # noqa: SLF001
        return False
    hooks = [
        stack.register_forward_pre_hook(partial(_pack, config, overhead=0), with_kwargs=True),
        stack.register_forward_hook(_spread, with_kwargs=True),
    ]
    try:
        expected = _probed(base)
        config._attn_implementation = ATTENTION  # noqa: SLF001 - has no public name; files do not contain it
        is_same = torch.allclose(_probed(base), expected, atol=1e-4, rtol=1e-3)
    except Exception as error:  # noqa: BLE001 - another version of transformers may raise anything
        logger.debug("%s: %s: %s", type(model).__name__, type(error).__name__, error)
        is_same = False
    hooks[0].remove()
    if is_same:
        stack.register_forward_pre_hook(partial(_pack, config), with_kwargs=True)
        return True
    config._attn_implementation = "sdpa"  # noqa: SLF001
    hooks[1].remove()
    return False


def _returns_more(config: Any) -> bool:
    return any(getattr(config, name, False) for name in ("output_hidden_states", "output_attentions", "is_decoder"))


def _probed(base: Any) -> Tensor:
    """Return the states of two texts of different lengths."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=base.device)
    ids = (torch.arange(4, device=base.device) % base.config.vocab_size).expand(2, 4)
    with torch.no_grad():
        states: Tensor = base(input_ids=ids, attention_mask=mask)[0]
    return states[mask.bool()]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    lengths: Sequence[int] | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention [1, tokens, h, d] of each query to the keys of its own text, from tensors [1, h, tokens, d].

    ``lengths`` are the numbers of tokens of the texts. Without them return the attention [n, t, h, d] of a padded
    batch.
    """
    if lengths is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return result
    texts = zip(*(torch.split(states, list(lengths), dim=2) for states in (query, key, value)), strict=True)
    parts = [
        functional.scaled_dot_product_attention(own, keys, values, dropout_p=dropout, scale=scaling).transpose(1, 2)
        for own, keys, values in texts
    ]
    return torch.cat(parts, dim=1), None


def _pack(
    config: Any, _stack: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], *, overhead: int | None = None
) -> Any:
    """Replace states [n, t, d] by those of the tokens [1, tokens, d] if that saves more than the calls of attention."""
    if config._attn_implementation != ATTENTION or _returns_more(config):  # noqa: SLF001 - changed since
        return None
    overhead = OVERHEAD if overhead is None else overhead
    states = arguments[0] if arguments else options["hidden_states"]
    mask = options.get("attention_mask")
    if mask is None or states.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    is_token = mask[:, 0, 0]  # every position of a text attends to the same ones: its tokens
    lengths = is_token.sum(dim=1).tolist()
    rows, width, size = states.shape
    is_left = not bool(is_token[:, 0].all())
    if is_left or (rows * width - sum(lengths)) * size**2 < overhead * rows:
        return None
    index = is_token.flatten().nonzero()[:, 0]
    packed = states.reshape(rows * width, size)[index][None]
    new = {"attention_mask": None, "lengths": lengths, "layout": (index, rows, width)}
    if arguments:
        return (packed, *arguments[1:]), options | new
    return arguments, options | new | {"hidden_states": packed}


def _spread(_stack: nn.Module, _arguments: Any, options: Mapping[str, Any], output: Any) -> Any:
    """Replace the states of tokens [1, tokens, d] by those of texts [n, t, d], zeros for padding."""
    if options.get("layout") is None:
        return output
    index, rows, width = options["layout"]
    states = output[0][0]
    wide = states.new_zeros(rows * width, states.shape[-1]).index_copy(0, index, states)
    output.last_hidden_state = wide.view(rows, width, -1)
    return output


AttentionInterface.register(ATTENTION, _attend)  # on import, so that a model read from a pickle has it
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
