"""The forward pass of the common encoders, written for inference: queries, keys and values in one product, no work on padding.

It takes the place of the library's pass for models whose layers have one of the ``FORMS``: BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA,
MPNet, DistilBERT and what is built like them. Names alone prove nothing, so a model is tried on a few tokens when it is loaded, and keeps the
library's pass where the numbers differ. Embeddings and heads stay the library's.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.torch.products import Layer, join_inward, make_layer
from st_core.modules.pooling import Pooling

if TYPE_CHECKING:
    from st_core.modules import Module

__all__ = ["FORMS", "FastEncoder", "States", "accelerated", "first_as_in_whole", "reads_first_token", "same_on_probe"]

logger = logging.getLogger(__name__)

WASTE = 1.1
"""From so many positions per token on, padding is taken out for the products; below, moving the rows costs more than it saves."""

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
    """Where the real tokens of a batch [n, t] are; ``index`` [tokens], or None where it is not worth while to take the others out."""

    rows: int
    width: int
    index: Tensor | None
    mask: Tensor | None

    def pack(self, states: Tensor) -> Tensor:
        """[n, t, d] to [tokens, d]."""
        flat = states.reshape(self.rows * self.width, -1)
        return flat if self.index is None else flat[self.index]

    def spread(self, states: Tensor) -> Tensor:
        """[tokens, d] to [n, t, d], zeros for padding."""
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
    """What the library's encoders give, as far as its heads look at it; states [n, t, d]."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: None = None
    attentions: None = None


class FastEncoder(nn.Module):
    """A drop-in for the library's encoder of one form; nothing in it changes when it runs.

    ``first_only`` computes the last layer for the first position alone, and gives states [n, 1, d]: for heads that look at nothing else.
    :meth:`forward` does so for one call.
    """

    def __init__(
        self,
        embeddings: Any,
        layers: Sequence[Layer],
        *,
        heads: int,
        config: Any,
        pooler: Any = None,
        position_bias: Any = None,
        first_only: bool = False,
    ) -> None:
        """``embeddings``, ``pooler`` and ``position_bias`` are called as the library calls its own; ``config`` is only kept."""
        super().__init__()
        self.embeddings, self.pooler, self.config = embeddings, pooler, config
        self.layers, self.heads, self.first_only = list(layers), heads, first_only
        self.position_bias = position_bias
        self.typed = "token_type_ids" in inspect.signature(embeddings.forward).parameters

    @classmethod
    def of_library(cls, base: Any, form: Mapping[str, str], *, first_only: bool, pack: bool) -> FastEncoder:
        """The encoder of a model of the library; raises AttributeError where the model is of another form."""
        stack = base.get_submodule(form["layers"])
        last = len(stack) - 1
        layers = []
        for at, layer in enumerate(stack):
            part = {name: layer.get_submodule(path) for name, path in form.items() if name != "layers"}
            layers.append(make_layer(join_inward(part), split=first_only and at == last, pack=pack))
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
        **_rest: Any,
    ) -> States:
        """Ids and mask [n, t] to states [n, t, d], or [n, 1, d]; those of padding are of no meaning."""
        typed = {"token_type_ids": token_type_ids} if self.typed else {}
        states = self.embeddings(input_ids=input_ids, position_ids=position_ids, **typed)
        rows = _rows_of(attention_mask, states.dtype)
        mask = self._bias(states, rows.mask)
        flat = rows.pack(states)
        first_only = first_only or self.first_only
        for layer in self.layers[: len(self.layers) - first_only]:
            assert layer.together is not None
            query, key, value = self._split(rows.spread(layer.together(flat)), 3)
            flat = layer.finish(flat, rows.pack(_attend(query, key, value, mask)))
        states = self._first(self.layers[-1], rows, flat, mask) if first_only else rows.spread(flat)
        return States(states, None if self.pooler is None else self.pooler(states))

    def _first(self, layer: Layer, rows: _Rows, flat: Tensor, mask: Tensor | None) -> Tensor:
        first = rows.spread(flat)[:, 0]
        if (
            layer.together is not None
        ):  # the products stand ready for all positions: queries cost little beside what follows them
            query, key, value = self._split(rows.spread(layer.together(flat)), 3)
            query = query[:, :, :1]
        else:
            assert layer.query is not None
            assert layer.keys is not None
            key, value = self._split(rows.spread(layer.keys(flat)), 2)
            (query,) = self._split(layer.query(first)[:, None], 1)
        mask = mask if mask is None else mask[:, :, :1]
        return layer.finish(first, _attend(query, key, value, mask)[:, 0])[:, None]

    def _split(self, states: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[n, t, parts * d] to that many of [n, heads, t, d / heads]."""
        rows, width, _ = states.shape
        return states.view(rows, width, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _bias(self, states: Tensor, mask: Tensor | None) -> Tensor | None:
        """What is added to the scores: minus infinity, nearly, for padding, and what the model has to say about distances."""
        if self.position_bias is None:
            return mask
        bias: Tensor = self.position_bias(states[:1]).to(states.dtype)
        return bias if mask is None else bias + mask


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of [n, heads, t, e] as states [n, t, heads * e]."""
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return found.transpose(1, 2).flatten(2)


def accelerated(model: Any, inputs: Sequence[str], pad_id: int, *, first_only: bool, pack: bool) -> Any:
    """A loaded model with its encoder in the form above, or the model itself where that would give other numbers.

    ``first_only`` says that the head may look at the first position alone; whether it does, is tried.
    """
    for only in (True, False) if first_only else (False,):
        encoder = _fast_encoder(model.base_model, first_only=only, pack=pack)
        if encoder is None:
            break
        candidate = _with_encoder(model, encoder)
        try:
            if same_on_probe(model, candidate, inputs, pad_id):
                return candidate
        except Exception as error:  # noqa: BLE001 - a family that only looks like one of the forms fails in ways of its own
            logger.debug("%s: %s: %s", type(model).__name__, type(error).__name__, error)
    logger.info("%s: runs with the forward pass of the transformers library", type(model).__name__)
    return model


def _fast_encoder(base: Any, *, first_only: bool, pack: bool) -> FastEncoder | None:
    """The encoder of a base model in the form it has; None where it has none of the forms."""
    if getattr(base.config, "is_decoder", False) or getattr(base.config, "output_hidden_states", False):
        return None
    for form in FORMS:
        try:
            return FastEncoder.of_library(base, form, first_only=first_only, pack=pack)
        except (AttributeError, TypeError):
            continue
    return None


def _with_encoder(model: Any, encoder: FastEncoder) -> Any:
    """The model with another encoder below its head, sharing all else with it; the encoder itself for a model without a head."""
    if model.base_model is model:
        return encoder
    swapped = copy.copy(model)
    swapped._modules = dict(model._modules) | {model.base_model_prefix: encoder}  # noqa: SLF001
    return swapped


_AFTER_POOLING = frozenset(("Dense", "Dropout", "LayerNorm", "Normalize", "SparseAutoEncoder"))


def reads_first_token(rest: Sequence[Module], *, pad_left: bool) -> bool:
    """Whether what follows a transformer reads position 0 of a text alone: nothing, for a head that gives scores, or "cls" and no other pooling."""
    return not pad_left and all(
        (module.modes == ("cls",) and module.include_prompt)
        if isinstance(module, Pooling)
        else type(module).__name__ in _AFTER_POOLING
        for module in rest
    )


def first_as_in_whole(model: Any, inputs: Sequence[str], pad_id: int) -> bool:
    """Whether a model can be asked for the first position alone, and gives what it gives among all."""
    if not isinstance(model, FastEncoder):
        return False
    given, _ = _probe(model, inputs, pad_id)
    with torch.inference_mode():
        wanted, found = model(**given)[0][:, :1].float(), model(**given, first_only=True)[0].float()
    return wanted.shape == found.shape and _near(model, wanted, found)


def same_on_probe(model: Any, other: Any, inputs: Sequence[str], pad_id: int) -> bool:
    """Whether two models give one output for two rows of different lengths, up to float noise; padded positions are not looked at."""
    given, mask = _probe(model, inputs, pad_id)
    with torch.inference_mode():
        wanted, found = model(**given)[0].float(), other(**given)[0].float()
    if wanted.shape != found.shape:
        return False
    if wanted.ndim == 3:
        wanted, found = wanted * mask[:, :, None], found * mask[:, :, None]
    return _near(model, wanted, found)


def _near(model: Any, wanted: Tensor, found: Tensor) -> bool:
    kind = next(model.parameters()).dtype
    noise = 1e-5 if kind == torch.float32 else 2e-2
    return bool((wanted - found).abs().max() <= noise * max(1.0, float(wanted.abs().max())))


def _probe(model: Any, inputs: Sequence[str], pad_id: int) -> tuple[dict[str, Tensor], Tensor]:
    """Two rows of different lengths as a model takes them, and their mask."""
    device = next(model.parameters()).device
    vocabulary = int(model.config.vocab_size)
    length, short = 7, 4
    ids = (torch.arange(2 * length, device=device).view(2, length) * 37 + 5) % vocabulary
    mask = torch.ones_like(ids)
    mask[1, short:] = 0
    ids = torch.where(ids == pad_id, ids + 1, ids).masked_fill(mask == 0, pad_id)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: given[name] for name in inputs}, mask
