"""A faster forward pass for the common encoders: one product for queries, keys and values, and no work on padding.

It replaces the forward pass of the transformers library for inference with models whose layers have one of the
``FORMS``: BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, MPNet, DistilBERT and models built like them. Matching names
do not prove that a model computes the same, so both passes are compared on a few texts when the model is first used,
longer than every limit that its configuration names. Where the results differ, or the comparison fails, the pass of the
library is used. It is also used for models whose attention is limited to windows or blocks (Longformer, BigBird): they
attend to everything in a short text and change with the length. Embeddings and heads are always those of the library.
"""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from st_core.backends.torch.products import Layer, attend, make_layer, split_heads

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["FORMS", "FastEncoder", "States", "accelerate", "has_same_first_token", "has_same_outputs"]

logger = logging.getLogger(__name__)

WASTE = 1.1
"""Minimum ratio of positions to tokens at which padding is removed before the products.

At a lower ratio, moving the rows costs more than it saves.
"""

PROBE = 7
"""Number of tokens of the longer row on which two forward passes are compared, unless a model needs more."""

LONG_PROBE = 1_024
"""The same for models outside ``GLOBAL``, as far as they have positions."""

GLOBAL = frozenset(("bert", "camembert", "distilbert", "electra", "ernie", "mpnet", "roberta", "xlm-roberta"))
"""Model types that compute alike at every length, except for limits that their configuration names."""

LOCAL_KEYS = re.compile("window|block|landmark|hash|bandwidth|local|sparse")
"""Configuration keys of attention that does not reach every position."""

LIMIT_KEYS = re.compile("bucket|distance|relative|span|kernel|stride|segment_l|chunk")
"""Configuration keys of lengths beyond which a model may compute differently."""

_BERT = {
    "up": "intermediate.dense",
    "act": "intermediate.intermediate_act_fn",
    "down": "output.dense",
    "norm_after": "output.LayerNorm",
}
FORMS: Sequence[Mapping[str, str]] = (
    {
        "layers": "encoder.layer",
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "out": "attention.output.dense",
        "norm": "attention.output.LayerNorm",
    }
    | _BERT,
    {
        "layers": "encoder.layer",
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "out": "attention.attn.o",
        "norm": "attention.LayerNorm",
    }
    | _BERT,
    {
        "layers": "transformer.layer",
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "out": "attention.out_lin",
        "norm": "sa_layer_norm",
        "up": "ffn.lin1",
        "act": "ffn.activation",
        "down": "ffn.lin2",
        "norm_after": "output_layer_norm",
    },
)
"""Attribute paths of the parts of a layer in transformers 5, one mapping per form of layer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The layout of a batch [n, t]: ``index`` [tokens] contains the positions that are not padding.

    ``index`` is None where padding stays in the products. ``mask`` is added to attention scores to hide padding; None
    where a batch has no padding.
    """

    rows: int
    width: int
    index: Tensor | None
    mask: Tensor | None

    def pack(self, states: Tensor) -> Tensor:
        """Return states [n, t, d] as [tokens, d]."""
        flat = states.reshape(self.rows * self.width, -1)
        return flat if self.index is None else flat[self.index]

    def spread(self, states: Tensor) -> Tensor:
        """Return states [tokens, d] as [n, t, d], zeros for padding."""
        if self.index is not None:
            wide = states.new_zeros((self.rows * self.width, states.shape[-1]))
            states = wide.index_copy_(0, self.index, states)
        return states.view(self.rows, self.width, -1)


def _rows_of(mask: Tensor, dtype: torch.dtype) -> _Rows:
    rows, width = mask.shape
    real = int(mask.sum())
    if real == rows * width:
        return _Rows(rows, width, None, None)
    index = mask.reshape(-1).nonzero()[:, 0] if real * WASTE < rows * width else None
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    hidden.masked_fill_(mask == 0, torch.finfo(dtype).min)
    return _Rows(rows, width, index, hidden[:, None, None, :])


class States(NamedTuple):
    """Encoder outputs, named as in the transformers library, as far as its heads read them; states are [n, t, d]."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: None = None
    attentions: None = None


class FastEncoder(nn.Module):
    """A replacement of an encoder of the transformers library; running it changes none of its attributes.

    With ``first_only`` the last layer is computed for the first position alone and the states are [n, 1, d], for heads
    that read no other position. The argument of :meth:`forward` does the same for one call.
    """

    def __init__(
        self,
        embeddings: nn.Module,
        layers: Sequence[Layer],
        *,
        heads: int,
        config: PretrainedConfig,
        pooler: nn.Module | None = None,
        position_bias: Callable[[Tensor], Tensor] | None = None,
        first_only: bool = False,
    ) -> None:
        """Store the parts of the encoder.

        ``embeddings``, ``pooler`` and ``position_bias`` are modules and a method of the transformers model, called with
        the same arguments as there. ``config`` is only stored, for heads that read it. ``first_only`` computes the last
        layer for the first position alone.
        """
        super().__init__()
        self.embeddings, self.pooler, self.config = embeddings, pooler, config
        self.layers, self.heads, self.first_only = list(layers), heads, first_only
        self.position_bias = position_bias
        self.typed = "token_type_ids" in inspect.signature(embeddings.forward).parameters

    @classmethod
    def of_library(cls, base: PreTrainedModel, form: Mapping[str, str], *, first_only: bool, pack: bool) -> FastEncoder:
        """Return the encoder of a transformers model; raise AttributeError where the model does not have this form."""
        stack = base.get_submodule(form["layers"])
        last = len(stack) - 1
        layers = []
        for at, layer in enumerate(stack):
            parts = {name: layer.get_submodule(path) for name, path in form.items() if name != "layers"}
            layers.append(make_layer(parts, split=first_only and at == last, pack=pack))
        return cls(
            base.embeddings,
            layers,
            heads=int(getattr(base.config, "num_attention_heads", 0) or base.config.n_heads),
            config=base.config,
            pooler=getattr(base, "pooler", None),
            position_bias=getattr(base.get_submodule(form["layers"].partition(".")[0]), "compute_position_bias", None),
            first_only=first_only,
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        first_only: bool = False,
        **_rest: object,
    ) -> States:
        """Compute states [n, t, d] from ids and mask [n, t]; with ``first_only`` [n, 1, d].

        States of padding are undefined.
        """
        typed = {"token_type_ids": token_type_ids} if self.typed else {}
        states = self.embeddings(input_ids=input_ids, position_ids=position_ids, **typed)
        rows = _rows_of(attention_mask, states.dtype)
        mask = self._bias(states, rows.mask)
        flat = rows.pack(states)
        first_only = first_only or self.first_only
        for layer in self.layers[: len(self.layers) - first_only]:
            assert layer.together is not None
            query, key, value = split_heads(rows.spread(layer.together(flat)), 3, self.heads)
            flat = layer.finish(flat, rows.pack(attend(query, key, value, mask)))
        states = self._first(self.layers[-1], rows, flat, mask) if first_only else rows.spread(flat)
        return States(states, None if self.pooler is None else self.pooler(states))

    def _first(self, layer: Layer, rows: _Rows, flat: Tensor, mask: Tensor | None) -> Tensor:
        """Compute the states [n, 1, d] of a layer for the first position alone."""
        first = rows.spread(flat)[:, 0]
        if layer.together is not None:  # built for all positions; the unused queries cost little
            query, key, value = split_heads(rows.spread(layer.together(flat)), 3, self.heads)
            query = query[:, :, :1]
        else:
            assert layer.query is not None
            assert layer.keys is not None
            key, value = split_heads(rows.spread(layer.keys(flat)), 2, self.heads)
            (query,) = split_heads(layer.query(first)[:, None], 1, self.heads)
        mask = mask if mask is None else mask[:, :, :1]
        return layer.finish(first, attend(query, key, value, mask)[:, 0])[:, None]

    def _bias(self, states: Tensor, mask: Tensor | None) -> Tensor | None:
        """Return the bias of attention scores: the lowest finite value for padding, plus the model's position bias."""
        if self.position_bias is None:
            return mask
        bias = self.position_bias(states[:1]).to(states.dtype)
        return bias if mask is None else bias + mask


def accelerate(
    model: PreTrainedModel, inputs: Sequence[str], pad_id: int, *, first_only: bool, pack: bool
) -> nn.Module:
    """Return a model with its encoder replaced by a FastEncoder, or the model itself where the results would differ.

    ``first_only`` is whether the head may read the first position alone; this is verified as well.
    """
    for only in (True, False) if first_only else (False,):
        try:
            encoder = _fast_encoder(model.base_model, first_only=only, pack=pack)
            if encoder is None:
                break
            candidate = _with_encoder(model, encoder)
            if has_same_outputs(model, candidate, inputs, pad_id):
                return candidate
        except Exception as error:  # noqa: BLE001 - a model that only resembles a form can raise anything
            logger.debug("%s: %s: %s", type(model).__name__, type(error).__name__, error)
    logger.info("%s: runs with the forward pass of the transformers library", type(model).__name__)
    library: nn.Module = model
    return library


def _fast_encoder(base: PreTrainedModel, *, first_only: bool, pack: bool) -> FastEncoder | None:
    """Return the FastEncoder of a base model; None where the model has none of the forms."""
    if getattr(base.config, "is_decoder", False) or getattr(base.config, "output_hidden_states", False):
        return None
    if any(_whole_numbers(base.config, LOCAL_KEYS)):
        return None
    for form in FORMS:
        try:
            return FastEncoder.of_library(base, form, first_only=first_only, pack=pack)
        except (AttributeError, TypeError):
            continue
    return None


def _whole_numbers(config: PretrainedConfig, keys: re.Pattern[str]) -> Iterator[int]:
    """Yield the positive whole numbers that a configuration has for keys that match a pattern, alone or in lists."""
    values = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    for key, value in values.items():
        if keys.search(key):
            numbers = value if isinstance(value, (list, tuple)) else [value]
            yield from (number for number in numbers if type(number) is int and number > 0)


def _probe_length(config: PretrainedConfig, pad_id: int) -> int:
    """Return a number of tokens beyond every limit in a configuration, as far as the model has positions for them."""
    least = LONG_PROBE if getattr(config, "model_type", "bert") not in GLOBAL else PROBE
    wanted = max(least, *(1 + limit for limit in _whole_numbers(config, LIMIT_KEYS)), 0)
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:  # some families use the first rows for padding
        wanted = min(wanted, positions - pad_id - 1)
    return max(wanted, PROBE)


def _with_encoder(model: PreTrainedModel, encoder: FastEncoder) -> nn.Module:
    """Return a copy of a model with another encoder and the same head; the encoder alone for a model without a head."""
    if model.base_model is model:
        return encoder
    swapped: nn.Module = copy.copy(model)
    swapped._modules = dict(model._modules) | {model.base_model_prefix: encoder}  # noqa: SLF001
    return swapped


def has_same_first_token(model: nn.Module, inputs: Sequence[str], pad_id: int) -> bool:
    """Return whether a model gives the same states for the first position with ``first_only`` and without."""
    if not isinstance(model, FastEncoder):
        return False
    try:
        probe, _ = _probe(model, inputs, pad_id)
        with torch.inference_mode():
            expected, states = model(**probe)[0][:, :1].float(), model(**probe, first_only=True)[0].float()
    except Exception as error:  # noqa: BLE001 - the states of all positions are computed instead
        logger.debug("%s: %s: %s", type(model).__name__, type(error).__name__, error)
        return False
    return expected.shape == states.shape and _is_near(model, expected, states)


def has_same_outputs(model: nn.Module, other: nn.Module, inputs: Sequence[str], pad_id: int) -> bool:
    """Return whether two models give equal outputs, up to rounding, for two rows of different lengths.

    Outputs of padding are not compared.
    """
    probe, mask = _probe(model, inputs, pad_id)
    with torch.inference_mode():
        expected, outputs = model(**probe)[0].float(), other(**probe)[0].float()
    if expected.shape != outputs.shape:
        return False
    if expected.ndim == 3:
        expected, outputs = expected * mask[:, :, None], outputs * mask[:, :, None]
    return _is_near(model, expected, outputs)


def _is_near(model: nn.Module, expected: Tensor, outputs: Tensor) -> bool:
    dtype = next(model.parameters()).dtype
    noise = 1e-5 if dtype == torch.float32 else 2e-2
    return bool((expected - outputs).abs().max() <= noise * max(1.0, float(expected.abs().max())))


def _probe(model: PreTrainedModel, inputs: Sequence[str], pad_id: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return the arguments of a model for two rows of different lengths, and the mask of the rows."""
    device = next(model.parameters()).device
    vocabulary = int(model.config.vocab_size)
    length = _probe_length(model.config, pad_id)
    short = length // 2 + 1
    ids = (torch.arange(2 * length, device=device).view(2, length) * 37 + 5) % vocabulary
    mask = torch.ones_like(ids)
    mask[1, short:] = 0
    ids = torch.where(ids == pad_id, ids + 1, ids).masked_fill(mask == 0, pad_id)
    probe = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: probe[name] for name in inputs}, mask
