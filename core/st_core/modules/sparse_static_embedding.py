"""A fixed weight per token that occurs, for queries without inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.checkpoint.files import read_json
from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles
from st_core.text.tokens import TextTokenizer, finite, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SparseStaticEmbedding:
    """Each distinct token of a text gets its ``weight`` [V]; ``settings`` is what ``tokenizer_config.json`` says."""

    tokenizer: TextTokenizer
    weight: NDArray[np.float32]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dimension(self) -> int | None:
        """The size of the vocabulary."""
        return int(self.weight.shape[0])

    @property
    def max_length(self) -> int | None:
        """The tokenizer's limit."""
        return self.tokenizer.model_max_length


def load(files: ModuleFiles) -> SparseStaticEmbedding:
    """Read the tokenizer, and the weights from a tensor or from a JSON mapping of tokens."""
    path = files.tokenizer_path()
    beside = path.parent / "tokenizer_config.json"
    settings = dict(read_json(beside)) if beside.is_file() else {}
    limit = files.options.processor_kwargs.get("model_max_length", settings.get("model_max_length"))
    tokenizer = load_tokenizer(path, max_length=finite(limit))
    config = files.config() if (files.folder / "config.json").is_file() else {}
    listed = config.get("path")
    if listed is not None and str(listed).endswith(".json"):
        weight = _from_mapping(files, str(listed), tokenizer)
    else:
        weights = files.weights()
        if set(weights) != {"weight"} or weights["weight"].ndim != 1:
            raise ModelBroken(f"{files.folder}: expected one tensor weight of one dimension, found {sorted(weights)}")
        weight = weights["weight"].astype(np.float32)
    vocabulary = tokenizer.backend.get_vocab_size(with_added_tokens=True)
    if vocabulary > weight.size:
        raise ModelBroken(f"{files.folder}: the tokenizer knows {vocabulary} tokens, the weights only {weight.size}")
    return SparseStaticEmbedding(tokenizer, weight, settings)


def _from_mapping(files: ModuleFiles, listed: str, tokenizer: TextTokenizer) -> NDArray[np.float32]:
    """Weights [V] from the JSON file of that name in the module's folder or the checkpoint's.

    Saved paths are often those of the machine that saved them; nothing outside the checkpoint is read.
    """
    name = PurePosixPath(listed.replace("\\", "/")).name
    path = files.folder / name if (files.folder / name).is_file() else files.root / name
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelBroken(f"{path}: expected an object of tokens and weights")
    return _weights(value, tokenizer)


def _weights(value: dict[str, Any], tokenizer: TextTokenizer) -> NDArray[np.float32]:
    backend = tokenizer.backend
    weight = np.zeros(backend.get_vocab_size(with_added_tokens=True), np.float32)
    unknown = getattr(backend.model, "unk_token", None)
    fallback = None if unknown is None else backend.token_to_id(unknown)
    for token, number in value.items():
        index = backend.token_to_id(token)
        index = fallback if index is None else index
        if index is not None:
            weight[index] = number
    return weight
