"""Read the common encoders from ``config.json`` and ``model.safetensors`` into this package's own forward pass.

Importing the transformers library and the parts of torch that it needs takes most of the start-up time. A model is
therefore read here if every configuration key and every tensor in its files is known. All other models are loaded by
transformers, which also reports any errors in the files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.dtypes import FLOATS, stored_type
from st_core.backends.tokenizer_files import as_transformers
from st_core.backends.torch.encoder import FastEncoder, has_same_outputs
from st_core.backends.torch.families import ACTIVATIONS, FAMILIES, KEYS, USUAL, Family
from st_core.backends.torch.library import (
    INPUTS,
    LoadedTransformer,
    PendingTransformer,
    TransformerInfo,
    requested_dtype,
    tokenizer_of,
)
from st_core.backends.torch.once import Once
from st_core.backends.torch.products import Linear, Parts, Weights, make_layer, make_norm
from st_core.backends.vocabulary_bounds import check_padding

if TYPE_CHECKING:
    from st_core.modules.transformer import Transformer

__all__ = ["load_known"]

logger = logging.getLogger(__name__)

Head = Callable[[Tensor], Tensor]


class _Unknown(LookupError):
    """Raised for a key, value or tensor that is not supported here, so that transformers loads the model."""


@dataclass(frozen=True, slots=True, eq=False)
class _Sizes:
    """The sizes of a model from its configuration; ``padding`` is None where positions are counted from zero."""

    width: int
    inner: int
    layers: int
    heads: int
    act: str
    epsilon: float
    words: int
    positions: int
    types: int
    padding: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """A model whose files are all known: its family, sizes and tensors, and the number of scores of its head."""

    module: Transformer
    family: Family
    sizes: _Sizes
    weights: _Tensors
    base: str
    labels: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """The parts of a model before the weights of its products are packed."""

    embeddings: _Embeddings
    layers: list[Parts]
    head: Head | None = None
    decoder: tuple[Tensor, Tensor | None] | None = None


def load_known(
    module: Transformer, device: torch.device, dtype: str | torch.dtype | None, *, pack: bool
) -> PendingTransformer | None:
    """Read the transformer of a folder; None where the transformers library has to load it.

    Its tensors stay in the file until the model is first used. For a tokenizer or a dtype, raises the errors of
    :func:`load_transformer`.
    """
    requested = requested_dtype(module, device, dtype)
    try:
        known = _read(module, device, requested)
        _parts(known)  # raises _Unknown for a tensor that is missing or of another shape
    except (_Unknown, SafetensorError, OSError):
        return None
    except Exception as error:  # noqa: BLE001 - whatever fails here, transformers loads the model or names the fault
        logger.debug("%s: %s: %s", module.folder, type(error).__name__, error)
        return None
    sizes, family = known.sizes, known.family
    tokenizer, limit = as_transformers(module, lambda: tokenizer_of(module)[0].shown) or tokenizer_of(module)
    check_padding(tokenizer.pad_id, sizes.words, module.folder)
    info = TransformerInfo(
        name=str(module.folder),
        task=module.task,
        tokenizer=tokenizer,
        max_length=limit,
        dtype=known.weights.dtype,
        inputs=tuple(name for name in INPUTS if name != "token_type_ids" or tokenizer.wants_types),
        words=sizes.words,
        labels=known.labels,
        positions=sizes.positions - (0 if sizes.padding is None else sizes.padding + 1),
        takes_positions=tokenizer.pad_left and not family.from_padding,
    )
    return PendingTransformer(info, Once(partial(_prepare, known, info, pack=pack)))


def _prepare(known: _Known, info: TransformerInfo, *, pack: bool) -> LoadedTransformer:
    """Return a model ready for inference; weights are packed where its outputs stay the same."""
    parts = _parts(replace(known, weights=replace(known.weights, convert=True)))
    first_only = info.task == "sequence-classification" and not info.tokenizer.pad_left
    config = SimpleNamespace(vocab_size=known.sizes.words)
    model = _build(known, parts, config, first_only=first_only, pack=False)
    if pack:
        packed = _build(known, parts, config, first_only=first_only, pack=True)
        model = packed if has_same_outputs(model, packed, info.inputs, info.tokenizer.pad_id) else model
    return LoadedTransformer(info, model, parts.decoder)


class _Headed(nn.Module):
    """An encoder followed by a head."""

    def __init__(self, encoder: FastEncoder, head: Head) -> None:
        super().__init__()
        self.encoder, self.head, self.config = encoder, head, encoder.config

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        """Return a tuple that contains the head's output, as models of the transformers library do."""
        return (self.head(self.encoder(**inputs)[0]),)


def _build(known: _Known, parts: _Model, config: SimpleNamespace, *, first_only: bool, pack: bool) -> nn.Module:
    last = len(parts.layers) - 1
    layers = [make_layer(part, split=first_only and at == last, pack=pack) for at, part in enumerate(parts.layers)]
    encoder = FastEncoder(parts.embeddings, layers, heads=known.sizes.heads, config=config, first_only=first_only)
    return (encoder if parts.head is None else _Headed(encoder, parts.head)).eval()


class _Embeddings(nn.Module):
    """The normalised sum of token embeddings, position embeddings and, unless None, segment embeddings.

    Positions are counted from the id ``padding`` plus one, or from zero where it is None.
    """

    def __init__(self, words: Tensor, positions: Tensor, types: Tensor | None, norm: Head, padding: int | None) -> None:
        super().__init__()
        self.words = nn.Parameter(words)
        self.positions, self.types, self.norm, self.padding = positions, types, norm, padding

    def forward(
        self, input_ids: Tensor, position_ids: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Compute states [n, t, d] from ids [n, t]."""
        states = functional.embedding(input_ids, self.words)
        if self.types is not None:
            states = states + (self.types[0] if token_type_ids is None else self.types[token_type_ids])
        if position_ids is not None:
            return self.norm(states + self.positions[position_ids])
        if self.padding is None:
            return self.norm(states + self.positions[: input_ids.shape[1]])
        real = input_ids.ne(self.padding).long()
        return self.norm(states + self.positions[real.cumsum(dim=1) * real + self.padding])


@dataclass(frozen=True, slots=True, eq=False)
class _Tensors:
    """The tensors of a file by name, with the device and dtype of the computation.

    A tensor is converted when it is read, and only with ``convert``.
    """

    tensors: Mapping[str, Tensor]
    device: torch.device
    dtype: torch.dtype
    convert: bool = False

    def tensor(self, name: str, *shape: int) -> Tensor:
        """Return a tensor; raise _Unknown where the file has no floating-point tensor of that name and shape."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.shape != shape or not tensor.dtype.is_floating_point:
            raise _Unknown(name)
        return tensor.to(self.device, self.dtype) if self.convert else tensor

    def product(self, name: str, outward: int, inward: int) -> Weights:
        """Return the weight [outward, inward] and the bias of a product."""
        return Weights(self.tensor(f"{name}.weight", outward, inward), self.tensor(f"{name}.bias", outward))

    def norm(self, name: str, width: int, epsilon: float) -> Weights:
        """Return the weight and bias [width] of a normalisation."""
        return Weights(self.tensor(f"{name}.weight", width), self.tensor(f"{name}.bias", width), epsilon)


def _read(module: Transformer, device: torch.device, requested: torch.dtype | str) -> _Known:
    """Read the files of a model; raise _Unknown for anything in them that is not supported here."""
    options = set(module.model_kwargs) | set(module.config_kwargs)
    if options - {"dtype", "torch_dtype"} or module.base is not None or module.trust_remote_code:
        raise _Unknown(options)
    family = FAMILIES.get(str(module.config.get("model_type")))
    if family is None:
        raise _Unknown(module.config.get("model_type"))
    sizes = _sizes(family, module.config)
    dtype = requested if isinstance(requested, torch.dtype) else _stored_type(module)
    with safe_open(module.folder / "model.safetensors", "pt") as file:
        if (file.metadata() or {}).get("format") != "pt":
            raise _Unknown("format")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    base = f"{family.prefix}."
    if module.task == "feature-extraction" and not any(name.startswith(base) for name in tensors):
        base = ""
    weights = _Tensors(tensors, device, dtype)
    labels = _labels(module.config) if module.task == "sequence-classification" else 1
    known = _Known(module, family, sizes, weights, base, labels)
    if module.task == "fill-mask":
        _check_tied(known)
    return known


def _stored_type(module: Transformer) -> torch.dtype:
    """Return the common dtype of a checkpoint's tensors; raise _Unknown where they have several."""
    name = stored_type(module.folder / "model.safetensors", module.config)
    if name is None:
        raise _Unknown("dtype")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _sizes(family: Family, config: Mapping[str, object]) -> _Sizes:
    """Return the sizes of a model; raise _Unknown for an unknown or a missing configuration key."""
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
    if width % heads or not isinstance(act, str) or act not in ACTIVATIONS or not isinstance(epsilon, float):
        raise _Unknown("config.json")
    return _Sizes(
        width=width,
        inner=inner,
        layers=layers,
        heads=heads,
        act=act,
        epsilon=epsilon,
        words=_size(config, "vocab_size"),
        positions=_size(config, "max_position_embeddings"),
        types=_size(config, "type_vocab_size") if family.typed else 0,
        padding=_size(config, "pad_token_id") if family.from_padding else None,
    )


def _size(config: Mapping[str, object], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise _Unknown(key)
    return value


def _labels(config: Mapping[str, Any]) -> int:
    """Return the number of scores, 1 for a model that was not saved as a classifier."""
    architectures, labels = config.get("architectures") or [], config.get("id2label")
    if not isinstance(architectures, list):
        raise _Unknown(architectures)
    if not any(str(name).endswith("ForSequenceClassification") for name in architectures):
        return 1
    count: int = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    return count


def _check_tied(known: _Known) -> None:
    """Raise _Unknown where the vocabulary matrix or its bias is stored twice with different values.

    The bytes are compared, because torch would compare large tensors in threads, and loading must not start any.
    """
    _, _, matrix, offset = known.family.words
    pairs = (
        (matrix, f"{known.base}embeddings.word_embeddings.weight"),
        (f"{offset.removesuffix('.bias')}.decoder.bias", offset),
    )
    for name, tied in pairs:
        copy, original = known.weights.tensors.get(name), known.weights.tensors.get(tied)
        if copy is not None and (original is None or not _is_equal(copy, original)):
            raise _Unknown(name)


def _is_equal(tensor: Tensor, other: Tensor) -> bool:
    if tensor.shape != other.shape or tensor.dtype != other.dtype:
        return False
    return np.array_equal(tensor.contiguous().view(torch.uint8).numpy(), other.contiguous().view(torch.uint8).numpy())


def _parts(known: _Known) -> _Model:
    """Return the parts of a model; raise _Unknown for a missing tensor, a wrong shape or an unexpected tensor."""
    sizes, family, weights, base = known.sizes, known.family, known.weights, known.base
    embeddings = _embeddings(weights, f"{base}embeddings", sizes)
    stack = f"{base}{family.form['layers']}"
    layers = [_layer(weights, f"{stack}.{at}", family.form, sizes) for at in range(sizes.layers)]
    beyond = f"{stack}.{sizes.layers}."
    if any(name.startswith(beyond) for name in weights.tensors):
        raise _Unknown(beyond)
    match known.module.task:
        case "fill-mask":
            head, decoder = _vocabulary_head(known, embeddings.words)
            return _Model(embeddings, layers, head, decoder)
        case "sequence-classification":
            return _Model(embeddings, layers, _scoring_head(known))
        case "feature-extraction":
            return _Model(embeddings, layers)
        case task:
            raise _Unknown(task)


def _embeddings(weights: _Tensors, name: str, sizes: _Sizes) -> _Embeddings:
    width = sizes.width
    return _Embeddings(
        weights.tensor(f"{name}.word_embeddings.weight", sizes.words, width),
        weights.tensor(f"{name}.position_embeddings.weight", sizes.positions, width),
        weights.tensor(f"{name}.token_type_embeddings.weight", sizes.types, width) if sizes.types else None,
        make_norm(weights.norm(f"{name}.LayerNorm", width, sizes.epsilon)),
        sizes.padding,
    )


def _layer(weights: _Tensors, name: str, form: Mapping[str, str], sizes: _Sizes) -> Parts:
    """Return the parts of the layer ``name``, by the keys of ``form``."""
    shapes = dict.fromkeys(("query", "key", "value", "out"), (sizes.width, sizes.width)) | {
        "up": (sizes.inner, sizes.width),
        "down": (sizes.width, sizes.inner),
    }
    products = {part: weights.product(f"{name}.{form[part]}", *shape) for part, shape in shapes.items()}
    norms = {part: weights.norm(f"{name}.{form[part]}", sizes.width, sizes.epsilon) for part in ("norm", "norm_after")}
    return {**products, **norms, "act": ACTIVATIONS[sizes.act]()}


def _scoring_head(known: _Known) -> Head:
    """Return the head that computes scores [n, labels] from the state of the first token in [n, t, d]."""
    inner, act, outer = known.family.scores
    width = known.sizes.width
    dense = known.weights.product(inner.format(base=known.base), width, width)
    out = known.weights.product(outer, known.labels, width)
    first, last = Linear(dense.weight, dense.bias, act(), pack=False), Linear(out.weight, out.bias, pack=False)
    return lambda states: last(first(states[:, 0]))


def _vocabulary_head(known: _Known, words: Tensor) -> tuple[Head, tuple[Tensor, Tensor]]:
    """Return the head that prepares states [n, t, d] for the vocabulary matrix, that matrix [V, d] and its bias [V]."""
    inner, after, _, offset = known.family.words
    width = known.sizes.width
    dense = known.weights.product(inner, width, width)
    norm = make_norm(known.weights.norm(after, width, known.sizes.epsilon))
    bias = known.weights.tensor(offset, known.sizes.words)
    transform = Linear(dense.weight, dense.bias, ACTIVATIONS[known.family.word_act or known.sizes.act](), pack=False)
    return (lambda states: norm(transform(states))), (words, bias)
