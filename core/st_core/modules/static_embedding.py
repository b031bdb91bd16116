"""One vector per token and their mean: the static models of sentence-transformers and of model2vec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles
from st_core.text.tokens import TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class StaticEmbedding:
    """A text is the mean of ``table[mapping[t]] * scale[t]`` over its tokens t; no tokens give zeros.

    ``table`` is [rows, d] of any number type, so that int8 stays small in memory; ``mapping`` [V] or None, ``scale`` [V] or None.
    """

    tokenizer: TextTokenizer
    table: NDArray[Any]
    mapping: NDArray[np.int64] | None = None
    scale: NDArray[np.float32] | None = None

    @property
    def dimension(self) -> int | None:
        """The width of the result."""
        return int(self.table.shape[1])

    @property
    def max_length(self) -> int | None:
        """What the tokenizer's own file says, mostly nothing."""
        return self.tokenizer.model_max_length


def load(files: ModuleFiles) -> StaticEmbedding:
    """Read the tokenizer and either layout of the weights."""
    # sentence-transformers removes the padding written into the tokenizer's file, but leaves its truncation on.
    tokenizer = load_tokenizer(files.tokenizer_path(), own_limit=True)
    weights = files.weights()
    if "embedding.weight" in weights:
        return _checked(StaticEmbedding(tokenizer, weights["embedding.weight"]), files)
    if "embeddings" not in weights:
        raise ModelBroken(f"{files.folder}: expected a tensor embedding.weight or embeddings, found {sorted(weights)}")
    mapping, scale = weights.get("mapping"), weights.get("weights")
    return _checked(
        StaticEmbedding(
            tokenizer,
            weights["embeddings"],
            None if mapping is None else mapping.astype(np.int64),
            None if scale is None else scale.astype(np.float32),
        ),
        files,
    )


def _checked(module: StaticEmbedding, files: ModuleFiles) -> StaticEmbedding:
    if module.table.ndim != 2:
        raise ModelBroken(
            f"{files.folder}: the table of embeddings has the shape {module.table.shape}, expected two dimensions"
        )
    rows = module.table.shape[0]
    if module.mapping is not None:
        if module.mapping.size and not 0 <= int(module.mapping.min()) <= int(module.mapping.max()) < rows:
            raise ModelBroken(f"{files.folder}: mapping points outside the {rows} rows of the table")
        rows = module.mapping.shape[0]
    if module.scale is not None and module.scale.shape != (rows,):
        raise ModelBroken(f"{files.folder}: weights has the shape {module.scale.shape}, expected {(rows,)}")
    vocabulary = module.tokenizer.backend.get_vocab_size(with_added_tokens=True)
    if vocabulary > rows:
        raise ModelBroken(f"{files.folder}: the tokenizer knows {vocabulary} tokens, the table only {rows}")
    return module
