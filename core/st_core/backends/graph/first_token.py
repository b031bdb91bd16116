"""A last layer that computes its first token alone: exact where nothing but that token is read, and a sixth faster on six layers.

Keys and values still come from all tokens; queries, output projection and feed-forward are computed for position 0.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["keep_first_token"]


def keep_first_token(model: nn.Module) -> bool:
    """Make the last layer of a loaded model put out [n, 1, d]; False, with nothing changed, for families it does not know.

    Knows the layers of BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA and DistilBERT as transformers 5 writes them. The caller must compare
    the changed model's numbers with the unchanged one's.
    """
    layers = _layers(model)
    if layers is None:
        return False
    kind = next((known for known in (_BertLayer, _DistilBertLayer) if known.fits(layers[-1])), None)
    if kind is None:
        return False
    layers[-1] = kind(layers[-1])
    return True


def _layers(model: nn.Module) -> nn.ModuleList | None:
    """The one list of layers of an encoder."""
    found = [each for name, each in model.named_modules() if name.endswith("layer") and isinstance(each, nn.ModuleList)]
    return found[0] if len(found) == 1 and len(found[0]) else None


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Attention of queries [n, 1, d] over keys and values [n, t, d], under a mask [n, 1, 1 or t, t]: [n, 1, d]."""
    rows, width = query.shape[0], query.shape[2]
    queries, keys, values = (each.view(rows, -1, heads, width // heads).transpose(1, 2) for each in (query, key, value))
    first = None if mask is None else mask[:, :, :1, :]
    context = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=first)
    return context.transpose(1, 2).flatten(2)


class _BertLayer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    @staticmethod
    def fits(layer: Any) -> bool:
        attention = getattr(layer, "attention", None)
        inner = getattr(attention, "self", None)
        return (
            all(isinstance(getattr(inner, name, None), nn.Linear) for name in ("query", "key", "value"))
            and hasattr(attention, "output")
            and hasattr(layer, "feed_forward_chunk")
            and not getattr(layer, "is_decoder", False)
            and getattr(inner, "position_embedding_type", "absolute") in (None, "absolute")
        )

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """The layer's result for position 0, [n, 1, d]."""
        inner = self.layer.attention.self
        first = hidden_states[:, :1]
        context = attend(
            inner.query(first),
            inner.key(hidden_states),
            inner.value(hidden_states),
            inner.num_attention_heads,
            attention_mask,
        )
        result: Tensor = self.layer.feed_forward_chunk(self.layer.attention.output(context, first))
        return result


class _DistilBertLayer(nn.Module):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    @staticmethod
    def fits(layer: Any) -> bool:
        names = ("q_lin", "k_lin", "v_lin", "out_lin")
        attention = getattr(layer, "attention", None)
        return all(isinstance(getattr(attention, name, None), nn.Linear) for name in names) and hasattr(layer, "ffn")

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
        """The layer's result for position 0, [n, 1, d]."""
        inner = self.layer.attention
        first = hidden_states[:, :1]
        context = attend(
            inner.q_lin(first), inner.k_lin(hidden_states), inner.v_lin(hidden_states), inner.n_heads, attention_mask
        )
        attended = self.layer.sa_layer_norm(inner.out_lin(context) + first)
        result: Tensor = self.layer.output_layer_norm(self.layer.ffn(attended) + attended)
        return result
