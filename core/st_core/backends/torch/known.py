"""The common encoders, read straight from ``config.json`` and ``model.safetensors`` into this engine's forward pass.

Importing the transformers library, and the parts of torch that it uses, takes most of the time of a start. So a model is read here where its
files hold what is known, key by key and tensor by tensor. Whatever is not certain is left to the library, and so is every complaint about files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.dtypes import FLOATS, stored_type
from st_core.backends.tokenizer_files import as_transformers
from st_core.backends.torch.encoder import FastEncoder, same_on_probe
from st_core.backends.torch.families import ACTIVATIONS, FAMILIES, KEYS, USUAL, Family
from st_core.backends.torch.library import INPUTS, LoadedTransformer, tokenizer_of, wanted_type
from st_core.backends.torch.products import Linear, join_inward, make_layer, make_norm
from st_core.backends.vocabulary_bounds import check_padding

if TYPE_CHECKING:
    from st_core.modules.transformer import Transformer

__all__ = ["load_known"]


class _Unknown(LookupError):
    """Something that is not known here."""


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What a model is made of, before its products are laid out."""

    embeddings: nn.Module
    layers: list[dict[str, Any]]
    config: SimpleNamespace
    dtype: torch.dtype
    positions: int
    from_padding: bool
    head: Callable[[Tensor], Tensor] | None = None
    decoder: tuple[Tensor, Tensor | None] | None = None


def load_known(
    module: Transformer, device: torch.device, dtype: str | torch.dtype | None, *, pack: bool
) -> LoadedTransformer | None:
    """The transformer of a folder; None where the library has to load it. Raises what :func:`load_transformer` raises for a tokenizer or a type."""
    wanted = wanted_type(module, device, dtype)
    try:
        parts = _read(module, device, wanted)
    except (_Unknown, SafetensorError, OSError):
        return None
    tokenizer, limit = as_transformers(module, lambda: tokenizer_of(module)[0].shown) or tokenizer_of(module)
    check_padding(tokenizer.pad_id, parts.config.vocab_size, module.folder)
    names = tuple(name for name in INPUTS if name != "token_type_ids" or tokenizer.wants_types)
    first_only = module.task == "sequence-classification" and not tokenizer.pad_left
    model = _made(parts, first_only=first_only, pack=False)
    if pack:
        packed = _made(parts, first_only=first_only, pack=True)
        model = packed if same_on_probe(model, packed, names, tokenizer.pad_id) else model
    return LoadedTransformer(
        model,
        tokenizer,
        limit,
        parts.dtype,
        names,
        parts.positions,
        tokenizer.pad_left and not parts.from_padding,
        decoder=parts.decoder,
    )


class _Headed(nn.Module):
    """An encoder below a head."""

    def __init__(self, encoder: FastEncoder, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.head, self.config = encoder, head, encoder.config

    def forward(self, **inputs: Any) -> tuple[Tensor]:
        """What the head makes of the states, in the form of the library's outputs."""
        return (self.head(self.encoder(**inputs)[0]),)


def _made(parts: _Parts, *, first_only: bool, pack: bool) -> nn.Module:
    last = len(parts.layers) - 1
    layers = [make_layer(part, split=first_only and at == last, pack=pack) for at, part in enumerate(parts.layers)]
    heads = parts.config.num_attention_heads
    encoder = FastEncoder(parts.embeddings, layers, heads=heads, config=parts.config, first_only=first_only)
    return (encoder if parts.head is None else _Headed(encoder, parts.head)).eval()


class _Embeddings(nn.Module):
    """The vectors of words, positions and, unless None, segments, added up and normalised.

    ``padding`` is the number behind which positions are counted, the padding's own; None where they are counted from zero.
    """

    def __init__(
        self,
        words: Tensor,
        positions: Tensor,
        types: Tensor | None,
        norm: Callable[[Tensor], Tensor],
        padding: int | None,
    ) -> None:
        super().__init__()
        self.words = nn.Parameter(words, requires_grad=False)
        self.positions, self.types, self.norm, self.padding = positions, types, norm, padding

    def forward(
        self, input_ids: Tensor, position_ids: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Ids [n, t] to states [n, t, d]."""
        states = functional.embedding(input_ids, self.words)
        if self.types is not None:
            states = states + (self.types[0] if token_type_ids is None else self.types[token_type_ids])
        if position_ids is not None:
            return self.norm(states + self.positions[position_ids])
        if self.padding is None:
            return self.norm(states + self.positions[: input_ids.shape[1]])
        real = input_ids.ne(self.padding).long()
        return self.norm(states + self.positions[real.cumsum(dim=1) * real + self.padding])


class _Weights:
    """The tensors of a file, of the shapes that are asked for."""

    def __init__(self, file: Any, device: torch.device, wanted: torch.dtype) -> None:
        self._file, self._device, self._wanted = file, device, wanted
        self.names = frozenset(file.keys())

    def tensor(self, name: str, *shape: int) -> Tensor:
        """A tensor; raises _Unknown where it is not there in that shape."""
        if name not in self.names or tuple(self._file.get_slice(name).get_shape()) != shape:
            raise _Unknown(name)
        found: Tensor = self._file.get_tensor(name)
        if not found.dtype.is_floating_point:
            raise _Unknown(name)
        return found.to(self._device, self._wanted)

    def product(self, name: str, outward: int, inward: int) -> SimpleNamespace:
        """The weight and the bias of a product."""
        return SimpleNamespace(
            weight=self.tensor(f"{name}.weight", outward, inward), bias=self.tensor(f"{name}.bias", outward)
        )

    def norm(self, name: str, width: int, epsilon: float) -> SimpleNamespace:
        """A normalisation."""
        weight, bias = self.tensor(f"{name}.weight", width), self.tensor(f"{name}.bias", width)
        return SimpleNamespace(weight=weight, bias=bias, normalized_shape=(width,), eps=epsilon)


def _read(module: Transformer, device: torch.device, wanted: Any) -> _Parts:
    """The parts of a model; raises _Unknown for whatever is not known here."""
    others = set(module.model_kwargs) | set(module.config_kwargs)
    if others - {"dtype", "torch_dtype"} or module.base is not None or module.trust_remote_code:
        raise _Unknown(others)
    family = FAMILIES.get(str(module.config.get("model_type")))
    if family is None:
        raise _Unknown(module.config.get("model_type"))
    config = _config(family, module.config)
    with safe_open(module.folder / "model.safetensors", "pt") as file:
        if (file.metadata() or {}).get("format") != "pt":
            raise _Unknown("format")
        dtype = _stored_type(module) if wanted == "auto" else wanted
        weights = _Weights(file, device, dtype)
        return _parts(module, family, config, weights, dtype)


def _stored_type(module: Transformer) -> torch.dtype:
    name = stored_type(module.folder / "model.safetensors", module.config)
    if name is None:
        raise _Unknown("dtype")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _config(family: Family, config: Mapping[str, Any]) -> SimpleNamespace:
    """The sizes of a model; raises _Unknown for a key that is not known, or one that is missing."""
    if set(config) - KEYS - set(USUAL) - set(family.sizes) - {family.act}:
        raise _Unknown("config.json")
    if any(config.get(key, value) != value for key, value in USUAL.items()):
        raise _Unknown("config.json")
    padding = config.get("pad_token_id")
    if padding is not None and not (type(padding) is int and 0 <= padding < _size(config, "vocab_size")):
        raise _Unknown("pad_token_id")
    if any(config.get(key) not in (None, *FLOATS) for key in ("dtype", "torch_dtype")):
        raise _Unknown("dtype")
    width, inner, layers, heads = (_size(config, key) for key in family.sizes)
    act, epsilon = config.get(family.act), config.get("layer_norm_eps") if family.epsilon is None else family.epsilon
    if width % heads or act not in ACTIVATIONS or not isinstance(epsilon, float):
        raise _Unknown("config.json")
    return SimpleNamespace(
        width=width,
        inner=inner,
        layers=layers,
        num_attention_heads=heads,
        act=act,
        epsilon=epsilon,
        vocab_size=_size(config, "vocab_size"),
        positions=_size(config, "max_position_embeddings"),
        types=_size(config, "type_vocab_size") if family.typed else 0,
        padding=_size(config, "pad_token_id") if family.from_padding else None,
        num_labels=1,
    )


def _size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise _Unknown(key)
    return value


def _parts(
    module: Transformer, family: Family, config: SimpleNamespace, weights: _Weights, dtype: torch.dtype
) -> _Parts:
    base = f"{family.prefix}."
    if module.task == "feature-extraction" and not any(name.startswith(base) for name in weights.names):
        base = ""
    embeddings = _embeddings(weights, f"{base}embeddings", config)
    layers = [
        _layer(weights, f"{base}{family.form['layers']}.{at}", family.form, config) for at in range(config.layers)
    ]
    beyond = f"{base}{family.form['layers']}.{config.layers}."
    if any(name.startswith(beyond) for name in weights.names):
        raise _Unknown(beyond)
    rows = config.positions - (0 if config.padding is None else config.padding + 1)
    head, decoder = None, None
    match module.task:
        case "fill-mask":
            head, decoder = _vocabulary_head(family, config, weights, embeddings.words)
        case "sequence-classification":
            head = _scoring_head(family, config, weights, base, module.config)
        case "feature-extraction":
            pass
        case _:
            raise _Unknown(module.task)
    return _Parts(embeddings, layers, config, dtype, rows, family.from_padding, head, decoder)


def _embeddings(weights: _Weights, name: str, config: SimpleNamespace) -> _Embeddings:
    width = config.width
    return _Embeddings(
        weights.tensor(f"{name}.word_embeddings.weight", config.vocab_size, width),
        weights.tensor(f"{name}.position_embeddings.weight", config.positions, width),
        weights.tensor(f"{name}.token_type_embeddings.weight", config.types, width) if config.types else None,
        make_norm(weights.norm(f"{name}.LayerNorm", width, config.epsilon)),
        config.padding,
    )


def _layer(weights: _Weights, name: str, form: Mapping[str, str], config: SimpleNamespace) -> dict[str, Any]:
    """The parts of a layer, by the names of the form."""
    shapes = dict.fromkeys(("query", "key", "value", "out"), (config.width, config.width)) | {
        "up": (config.inner, config.width),
        "down": (config.width, config.inner),
    }
    products = {part: weights.product(f"{name}.{form[part]}", *shape) for part, shape in shapes.items()}
    norms = {
        part: weights.norm(f"{name}.{form[part]}", config.width, config.epsilon) for part in ("norm", "norm_after")
    }
    return join_inward(products | norms | {"act": ACTIVATIONS[config.act]()})


def _scoring_head(
    family: Family, config: SimpleNamespace, weights: _Weights, base: str, saved: Mapping[str, Any]
) -> Callable[[Tensor], Tensor]:
    """What makes scores [n, labels] of states [n, t, d]: of those of the first position."""
    inner, act, outer = family.scores
    architectures, labels = saved.get("architectures") or [], saved.get("id2label")
    if not isinstance(architectures, list):
        raise _Unknown(architectures)
    named = any(str(name).endswith("ForSequenceClassification") for name in architectures)
    count = len(labels) if isinstance(labels, dict) else saved.get("num_labels", 2)
    config.num_labels = count if named else 1
    dense = weights.product(inner.format(base=base), config.width, config.width)
    out = weights.product(outer, config.num_labels, config.width)
    first, last = Linear(dense.weight, dense.bias, act(), pack=False), Linear(out.weight, out.bias, pack=False)
    return lambda states: last(first(states[:, 0]))


def _vocabulary_head(
    family: Family, config: SimpleNamespace, weights: _Weights, words: Tensor
) -> tuple[Callable[[Tensor], Tensor], tuple[Tensor, Tensor]]:
    """What makes states [n, t, d] ready for the vocabulary, and its matrix [V, d] with its bias [V]."""
    inner, after, matrix, offset = family.words
    dense, norm = weights.product(inner, config.width, config.width), weights.norm(after, config.width, config.epsilon)
    bias = weights.tensor(offset, config.vocab_size)
    for name, tied in ((matrix, words), (offset.replace(".bias", ".decoder.bias"), bias)):
        if name in weights.names and not torch.equal(weights.tensor(name, *tied.shape), tied):
            raise _Unknown(name)
    act = ACTIVATIONS[family.word_act or config.act]()
    transform, settle = Linear(dense.weight, dense.bias, act, pack=False), make_norm(norm)
    return (lambda states: settle(transform(states))), (words, bias)
