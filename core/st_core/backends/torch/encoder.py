"""The forward pass of the common encoders for inference: queries, keys and values in one product, no work on padding.

It replaces the library's pass for models whose layers have one of the ``FORMS``: BERT, RoBERTa, XLM-RoBERTa, CamemBERT,
ELECTRA, MPNet, DistilBERT and models built like them. Names alone prove nothing, so it is compared on a few tokens when
the model is first used, and the library's pass stays where the numbers differ. Embeddings and heads stay the library's.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from st_core.backends.torch.products import Layer, attend, make_layer, split_heads

__all__ = ["FORMS", "FastEncoder", "States", "accelerate", "has_same_first_token", "has_same_outputs"]

logger = logging.getLogger(__name__)

WASTE = 1.1
"""From so many positions per token on, padding is taken out for the products; below, moving the rows costs more."""

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
"""Where the parts of a layer are, by the families of transformers 5."""


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The positions [tokens] of a batch's real tokens [n, t]; ``index`` is None where padding stays in the products."""

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
    """The outputs of the library's encoders, as far as its heads read them; states [n, t, d]."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: None = None
    attentions: None = None


class FastEncoder(nn.Module):
    """A replacement of the library's encoder of one form; nothing in it changes when it runs.

    ``first_only`` computes the last layer for the first position alone, and gives states [n, 1, d], for heads that read
    nothing else. :meth:`forward` does so for one call.
    """

    def __init__(
        self,
        embeddings: nn.Module,
        layers: Sequence[Layer],
        *,
        heads: int,
        config: Any,
        pooler: nn.Module | None = None,
        position_bias: Callable[[Tensor], Tensor] | None = None,
        first_only: bool = False,
    ) -> None:
        """``embeddings``, ``pooler`` and ``position_bias`` are called as in the library; ``config`` is only stored."""
        super().__init__()
        self.embeddings, self.pooler, self.config = embeddings, pooler, config
        self.layers, self.heads, self.first_only = list(layers), heads, first_only
        self.position_bias = position_bias
        self.typed = "token_type_ids" in inspect.signature(embeddings.forward).parameters

    @classmethod
    def of_library(cls, base: Any, form: Mapping[str, str], *, first_only: bool, pack: bool) -> FastEncoder:
        """Return the encoder of a library model; raises AttributeError where the model is of another form."""
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
        """Compute states [n, t, d], or [n, 1, d], from ids and mask [n, t]; states of padding are undefined."""
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
        """Compute a layer for the first position alone: [n, 1, d]."""
        first = rows.spread(flat)[:, 0]
        if layer.together is not None:  # packed for all positions: queries cost little beside what follows them
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
        """Return the bias of attention scores: the lowest number for padding, plus the model's bias of distances."""
        if self.position_bias is None:
            return mask
        bias = self.position_bias(states[:1]).to(states.dtype)
        return bias if mask is None else bias + mask


def accelerate(model: Any, inputs: Sequence[str], pad_id: int, *, first_only: bool, pack: bool) -> nn.Module:
    """Return a library model with its encoder in the form above, or the model itself where the numbers would differ.

    ``first_only`` says that the head may read the first position alone; that is checked too.
    """
    for only in (True, False) if first_only else (False,):
        encoder = _fast_encoder(model.base_model, first_only=only, pack=pack)
        if encoder is None:
            break
        candidate = _with_encoder(model, encoder)
        try:
            if has_same_outputs(model, candidate, inputs, pad_id):
                return candidate
        except Exception as error:  # noqa: BLE001 - models that only look like a form fail in their own ways
            logger.debug("%s: %s: %s", type(model).__name__, type(error).__name__, error)
    logger.info("%s: runs with the forward pass of the transformers library", type(model).__name__)
    library: nn.Module = model
    return library


def _fast_encoder(base: Any, *, first_only: bool, pack: bool) -> FastEncoder | None:
    """Return the encoder of a base model in the form it has; None where it has none of the forms."""
    if getattr(base.config, "is_decoder", False) or getattr(base.config, "output_hidden_states", False):
        return None
    for form in FORMS:
        try:
            return FastEncoder.of_library(base, form, first_only=first_only, pack=pack)
        except (AttributeError, TypeError):
            continue
    return None


def _with_encoder(model: Any, encoder: FastEncoder) -> nn.Module:
    """Return the model with another encoder below its head, all else shared; the encoder itself without a head."""
    if model.base_model is model:
        return encoder
    swapped: nn.Module = copy.copy(model)
    swapped._modules = dict(model._modules) | {model.base_model_prefix: encoder}  # noqa: SLF001
    return swapped


def has_same_first_token(model: nn.Module, inputs: Sequence[str], pad_id: int) -> bool:
    """Return whether a model can compute the first position alone, and its states there are those among all."""
    if not isinstance(model, FastEncoder):
        return False
    probe, _ = _probe(model, inputs, pad_id)
    with torch.inference_mode():
        expected, states = model(**probe)[0][:, :1].float(), model(**probe, first_only=True)[0].float()
    return expected.shape == states.shape and _is_near(model, expected, states)


def has_same_outputs(model: nn.Module, other: nn.Module, inputs: Sequence[str], pad_id: int) -> bool:
    """Return whether two models give one output for two rows of different lengths, up to float noise.

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


def _probe(model: Any, inputs: Sequence[str], pad_id: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return two rows of different lengths as a model's arguments, and their mask."""
    device = next(model.parameters()).device
    vocabulary = int(model.config.vocab_size)
    length, short = 7, 4
    ids = (torch.arange(2 * length, device=device).view(2, length) * 37 + 5) % vocabulary
    mask = torch.ones_like(ids)
    mask[1, short:] = 0
    ids = torch.where(ids == pad_id, ids + 1, ids).masked_fill(mask == 0, pad_id)
    probe = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: probe[name] for name in inputs}, mask
