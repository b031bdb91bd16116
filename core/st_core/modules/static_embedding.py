"""Means of token vectors: the static models of sentence-transformers and of model2vec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable
from st_core.text.tokens import TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["StaticEmbedding"]


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class StaticEmbedding:
    """Computes the mean of ``table[mapping[t]] * scale[t]`` over the tokens t of a text; zeros without tokens.

    ``table`` is [rows, d] of any numeric dtype, so that int8 needs little memory; ``mapping`` and ``scale`` are [V] or
    None.
    """

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    writes: ClassVar[str] = SENTENCE_EMBEDDING

    tokenizer: TextTokenizer
    table: NDArray[np.generic]
    mapping: NDArray[np.int64] | None = None
    scale: NDArray[np.float32] | None = None

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return int(self.table.shape[1])

    @property
    def max_length(self) -> int | None:
        """The maximum length in the tokenizer's own file, usually None."""
        return self.tokenizer.model_max_length

    @classmethod
    def load(cls, files: ModuleFiles) -> StaticEmbedding:
        """Return the module in a folder, whose weights may have either layout."""
        # sentence-transformers disables the padding set in the tokenizer's file, but not the truncation.
        tokenizer = load_tokenizer(files.tokenizer_path(), own_limit=True)
        tensors = files.weights()
        if "embedding.weight" in tensors:
            return _checked(cls(tokenizer, tensors["embedding.weight"]), files)
        if "embeddings" not in tensors:
            raise ModelBroken(
                f"{files.folder}: expected a tensor embedding.weight or embeddings, got {sorted(tensors)}"
            )
        mapping, scale = tensors.get("mapping"), tensors.get("weights")
        module = cls(
            tokenizer,
            tensors["embeddings"],
            None if mapping is None else mapping.astype(np.int64),
            None if scale is None else scale.astype(np.float32),
        )
        return _checked(module, files)

    def save(self) -> Parts:
        """Return the table in the layout of sentence-transformers, or in that of model2vec where it is needed."""
        is_plain = self.mapping is None and self.scale is None and self.table.dtype == np.float32
        tensors: dict[str, NDArray[np.generic] | None] = {"embedding.weight": self.table}
        if not is_plain:
            tensors = {"embeddings": self.table, "mapping": self.mapping, "weights": self.scale}
        return Parts(tensors=tensors, tokenizer=_with_written_limit(self.tokenizer))


def _with_written_limit(tokenizer: TextTokenizer) -> TextTokenizer:
    """Return the tokenizer with its maximum length in its file, where sentence-transformers reads the limit."""
    if tokenizer.model_max_length is None:
        return tokenizer
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    backend.enable_truncation(tokenizer.model_max_length)
    return replace(tokenizer, backend=backend)


def _checked(module: StaticEmbedding, files: ModuleFiles) -> StaticEmbedding:
    """Return the module; raise ModelBroken where table, mapping, scale and tokenizer contradict each other."""
    if module.table.ndim != 2:
        raise ModelBroken(f"{files.folder}: expected embeddings of two dimensions, got the shape {module.table.shape}")
    rows = module.table.shape[0]
    if module.mapping is not None:
        if module.mapping.size and not 0 <= int(module.mapping.min()) <= int(module.mapping.max()) < rows:
            raise ModelBroken(f"{files.folder}: mapping points outside the {rows} rows of the table")
        rows = module.mapping.shape[0]
    if module.scale is not None and module.scale.shape != (rows,):
        raise ModelBroken(f"{files.folder}: weights: expected the shape {(rows,)}, got {module.scale.shape}")
    vocabulary = module.tokenizer.vocabulary_size
    if vocabulary > rows:
        raise ModelBroken(f"{files.folder}: expected a row for each of {vocabulary} tokens, got {rows}")
    return module
