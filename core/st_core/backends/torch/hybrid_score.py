"""The trainable form of a ``HybridScore``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.numpy.hybrid_score import NORM_EPSILON, distinct_texts, lexical, read_tokens
from st_core.modules.hybrid_score import MAPS, HybridScore
from st_core.text.tokens import Tokens, pad

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HybridNetwork"]


class HybridNetwork(nn.Module):
    """Scores pairs; word vectors, positions, layers, the two weights and the bias are parameters in float32.

    The lexical score of a pair has no gradient.
    """

    def __init__(self, value: HybridScore) -> None:
        """Create the parameters from the weights of a module."""
        super().__init__()
        self.value = value
        self.table = nn.Parameter(torch.from_numpy(value.table * value.scale[:, None]))
        self.position = nn.Parameter(torch.from_numpy(value.position.copy()))
        self.maps = nn.ParameterDict()
        for name in MAPS:
            weight, bias = value.linear(name)
            self.maps[f"{name}_weight"] = nn.Parameter(torch.from_numpy(weight))
            self.maps[f"{name}_bias"] = nn.Parameter(torch.from_numpy(bias))
        self.lexical_weight, self.cosine_weight, self.bias = (
            nn.Parameter(torch.tensor(float(number)))
            for number in (value.lexical_weight, value.cosine_weight, value.bias)
        )

    def forward(self, tokens: Tokens) -> Tensor:
        """Return the scores [n, 1] of pairs."""
        texts = distinct_texts(tokens)
        by_words = torch.from_numpy(lexical(self.value, texts)).to(self.table)
        vectors = self._encode([*texts.queries, *texts.documents])
        queries, documents = vectors[: len(texts.queries)], vectors[len(texts.queries) :]
        cosine = (queries[texts.query_of] * documents[texts.document_of]).sum(dim=1)
        return (self.lexical_weight * by_words + self.cosine_weight * cosine + self.bias)[:, None]

    def _encode(self, texts: Sequence[NDArray[np.int32]]) -> Tensor:
        """Return the unit vectors [n, d] of texts; zeros for a text without content."""
        ids, mask = (
            torch.from_numpy(array).to(self.table.device)
            for array in pad([read_tokens(self.value, text) for text in texts], 0, least=1)
        )
        count, length = ids.shape
        # A text without content attends to its padding, so that no softmax is over masked positions alone.
        seen = mask.bool() | ~mask.bool().any(dim=1, keepdim=True)
        states = functional.embedding(ids, self.table) + self.position[:length]
        for layer in range(len(self.maps["output_weight"])):
            split = self._linear(_normalized(states), "query_key_value", layer)
            query, key, value = split.view(count, length, 3, self.value.heads, -1).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=seen[:, None, None, :], scale=1.0
            )
            states = states + self._linear(
                attended.transpose(1, 2).reshape(count, length, -1), "attention_output", layer
            )
            intermediate = functional.relu(self._linear(_normalized(states), "intermediate", layer))
            states = states + self._linear(intermediate, "output", layer)
        return functional.normalize((states * mask[..., None]).sum(dim=1), dim=1)

    def _linear(self, states: Tensor, name: str, layer: int) -> Tensor:
        return functional.linear(states, self.maps[f"{name}_weight"][layer], self.maps[f"{name}_bias"][layer])

    def written(self) -> HybridScore:
        """Return the module with the current weights, in float32 with scales of 1."""
        layers: dict[str, NDArray[np.generic]] = {}
        for name in MAPS:
            weight = _array(self.maps[f"{name}_weight"])
            layers |= {
                f"{name}.weight": weight,
                f"{name}.scale": np.ones(weight.shape[:2], np.float32),
                f"{name}.bias": _array(self.maps[f"{name}_bias"]),
            }
        table = _array(self.table)
        return replace(
            self.value,
            table=table,
            scale=np.ones(len(table), np.float32),
            position=_array(self.position),
            layers=layers,
            lexical_weight=self.lexical_weight.item(),
            cosine_weight=self.cosine_weight.item(),
            bias=self.bias.item(),
        )


def _normalized(states: Tensor) -> Tensor:
    return functional.layer_norm(states, states.shape[-1:], eps=float(NORM_EPSILON))


def _array(parameter: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = parameter.detach().float().cpu().numpy()
    return array.copy()
