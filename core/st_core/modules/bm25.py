"""The document half of BM25 as a sparse encoder: saturated term frequencies, whose inner product with a query's idf is the BM25 score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles
from st_core.tokens import TextTokenizer, load_tokenizer
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class BM25:
    """A piece t that occurs tf times among the L kept pieces of a text weighs ``tf·(k1 + 1) / (tf + k1·(1 - b + b·L / average_length))``.

    The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.3, without its
    idf, which the query carries. ``kept`` is bool [V]: pieces that are not kept (punctuation) are neither weighed nor counted in L.
    ``average_length`` is part of the model, not of a collection, so a document's vector never depends on its neighbours.
    """

    tokenizer: TextTokenizer
    kept: NDArray[np.bool_]
    k1: float
    b: float
    average_length: float

    @property
    def dimension(self) -> int | None:
        """The size of the vocabulary."""
        return int(self.kept.shape[0])

    @property
    def max_length(self) -> int | None:
        """None: every piece of a text is read."""
        return None


def load(files: ModuleFiles) -> BM25:
    """Read the tokenizer, the three numbers, and which pieces are kept (all of them where no tensor says)."""
    tokenizer = load_tokenizer(files.tokenizer_path())
    config = files.config()
    k1, b, average_length = (_number(files, config, name) for name in ("k1", "b", "average_length"))
    if not (k1 >= 0 and 0 <= b <= 1 and average_length > 0):
        raise ModelBroken(
            f"{files.folder}: expected k1 >= 0, b from 0 to 1 and average_length > 0, found {k1}, {b} and {average_length}"
        )
    vocabulary = int(tokenizer.backend.get_vocab_size(with_added_tokens=True))
    weights = files.weights() if (files.folder / "model.safetensors").is_file() else {}
    kept = np.asarray(weights.get("kept", np.ones(vocabulary, np.bool_)), np.bool_)
    if kept.shape != (vocabulary,):
        raise ModelBroken(f"{files.folder}: kept has the shape {kept.shape}, the tokenizer knows {vocabulary} tokens")
    return BM25(tokenizer, kept, k1, b, average_length)


def _number(files: ModuleFiles, config: dict[str, Any], name: str) -> float:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelBroken(f"{files.folder}: {name} must be a number, not {value!r}")
    return float(value)


def weigh(module: BM25, rows: Sequence[NDArray[np.int32]]) -> SparseMatrix:
    """The weights of the pieces of each text [n, V], from its token ids in any order; a text without kept pieces has an empty row."""
    width = module.kept.size
    sizes = np.fromiter((row.size for row in rows), np.int64, len(rows))
    owners = np.repeat(np.arange(len(rows), dtype=np.int64), sizes)
    ids = np.concatenate([*rows, np.empty(0, np.int32)]).astype(np.int64)
    keep = module.kept[ids]
    owners, ids = owners[keep], ids[keep]
    lengths = np.bincount(owners, minlength=len(rows))
    cells, counts = np.unique(owners * width + ids, return_counts=True)
    holders = cells // width
    room = module.k1 * (1 - module.b + module.b * lengths / module.average_length)
    values = counts * (module.k1 + 1) / (counts + room[holders])
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(holders, minlength=len(rows)), out=indptr[1:])
    return SparseMatrix(indptr, (cells % width).astype(np.uint32), values.astype(np.float32), (len(rows), width))
