"""A fixed weight per distinct token, for sparse queries without inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from st_core.checkpoint.files import read_object
from st_core.errors import ModelBroken
from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable
from st_core.text.bert import is_bert, load_bert_tokenizer
from st_core.text.tokens import TextTokenizer, finite, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SparseStaticEmbedding", "read_static_tokenizer"]


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class SparseStaticEmbedding:
    """Gives each distinct token of a text its ``weight`` [V]; ``settings`` are those of ``tokenizer_config.json``."""

    type_path: ClassVar[str] = (
        "sentence_transformers.sparse_encoder.modules.sparse_static_embedding.SparseStaticEmbedding"
    )
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    tokenizer: TextTokenizer
    weight: NDArray[np.float32]
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def dimension(self) -> int | None:
        """The size of the vocabulary."""
        return int(self.weight.shape[0])

    @property
    def max_length(self) -> int | None:
        """The maximum length of the tokenizer."""
        return self.tokenizer.model_max_length

    @classmethod
    def load(cls, files: ModuleFiles) -> SparseStaticEmbedding:
        """Return the module in a folder, with weights from a tensor or from a JSON object by token."""
        path, vocabulary = files.tokenizer_path(), files.tokenizer_path("vocab.txt")
        beside = (path if path.is_file() else vocabulary).parent / "tokenizer_config.json"
        settings = dict(read_object(beside)) if beside.is_file() else {}
        limit = files.options.processor_kwargs.get("model_max_length", settings.get("model_max_length"))
        tokenizer = read_static_tokenizer(path, vocabulary, settings, finite(limit))
        listing = files.config().get("path") if (files.folder / "config.json").is_file() else None
        if listing is not None and str(listing).endswith(".json"):
            weight = _from_json(files, str(listing), tokenizer)
        else:
            tensors = files.weights()
            if set(tensors) != {"weight"} or tensors["weight"].ndim != 1:
                raise ModelBroken(f"{files.folder}: expected one tensor weight of one dimension, got {sorted(tensors)}")
            weight = tensors["weight"].astype(np.float32)
        if tokenizer.vocabulary_size > weight.size:
            raise ModelBroken(
                f"{files.folder}: expected a weight for each of {tokenizer.vocabulary_size} tokens, got {weight.size}"
            )
        return cls(tokenizer, weight, settings)

    def save(self) -> Parts:
        """Return settings, weights and tokenizer."""
        limit = self.tokenizer.model_max_length
        settings = {**self.settings} | ({} if limit is None else {"model_max_length": limit})
        json = {"config.json": {"frozen": False}, "tokenizer_config.json": settings}
        return Parts(json, {"weight": self.weight}, self.tokenizer)


def read_static_tokenizer(
    path: Path, vocabulary: Path, settings: Mapping[str, object], max_length: int | None
) -> TextTokenizer:
    """Return the tokenizer that transformers builds from the settings, which take precedence over its file."""
    if is_bert(settings):
        tokenizer = load_bert_tokenizer(path, vocabulary, settings, max_length=max_length)
    else:
        tokenizer = load_tokenizer(path, max_length=max_length)
    return replace(tokenizer, keep_left=settings.get("truncation_side") != "left")


def _from_json(files: ModuleFiles, listing: str, tokenizer: TextTokenizer) -> NDArray[np.float32]:
    """Return the weights [V] from a JSON file in the folder of the module or of the checkpoint.

    Only the last part of the saved path is used, because saved paths are often those of another machine.
    """
    name = PurePosixPath(listing.replace("\\", "/")).name
    weights = read_object(files.folder / name if (files.folder / name).is_file() else files.root / name)
    result = np.zeros(tokenizer.vocabulary_size, np.float32)
    unknown = tokenizer.unknown_id
    for token in weights:
        index = tokenizer.backend.token_to_id(token)
        index = unknown if index is None else index
        if index is not None:
            result[index] = weights.number(token, 0)
    return result
