"""BM25 as a sparse encoder: documents are saturated term frequencies, queries idf weights, and their inner product is the BM25 score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.errors import ModelBroken
from st_core.modules import ModuleFiles
from st_core.text.tokens import TextTokenizer, load_tokenizer
from st_core.vectors import SparseMatrix

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Saturation:
    """A term that occurs tf times among the L terms of a text weighs ``tf·(k1 + 1) / (tf + k1·(1 - b + b·L / average_length))``.

    The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.3, without its
    idf, which the query carries. ``average_length`` belongs to the model, not to a collection, so a document's vector never depends on its
    neighbours.
    """

    k1: float
    b: float
    average_length: float


@dataclass(frozen=True, slots=True, eq=False)
class BM25:
    """One half of BM25: of queries where it has an ``idf``, float32 [V], of documents where it has a ``saturation``.

    ``term`` is int32 [V]: the vocabulary entry that a piece is counted as (itself, or the base form of an inflected one), or -1 for a piece
    that is left out and not counted in a text's length.
    """

    tokenizer: TextTokenizer
    term: NDArray[np.int32]
    idf: NDArray[np.float32] | None = None
    saturation: Saturation | None = None

    @property
    def dimension(self) -> int | None:
        """The size of the vocabulary."""
        return int(self.term.shape[0])

    @property
    def max_length(self) -> int | None:
        """None: every piece of a text is read."""
        return None


def load(files: ModuleFiles) -> BM25:
    """Read the half that ``config.json`` names; ``term`` is each piece itself where no tensor says otherwise."""
    tokenizer = load_tokenizer(files.tokenizer_path())
    vocabulary = int(tokenizer.backend.get_vocab_size(with_added_tokens=True))
    config = files.config()
    weights = files.weights() if (files.folder / "model.safetensors").is_file() else {}
    term = np.asarray(weights.get("term", np.arange(vocabulary)), np.int32)
    _check_shape(files, "term", term, vocabulary)
    if term.size and not -1 <= int(term.min()) <= int(term.max()) < vocabulary:
        raise ModelBroken(f"{files.folder}: term points outside the {vocabulary} entries of the vocabulary")
    match config["half"]:
        case "query":
            idf = np.asarray(weights["idf"], np.float32)
            _check_shape(files, "idf", idf, vocabulary)
            return BM25(tokenizer, term, idf=idf)
        case "document":
            return BM25(tokenizer, term, saturation=_saturation(files, config))
        case other:
            raise ModelBroken(f"{files.folder}: half must be 'query' or 'document', not {other!r}")


def _check_shape(files: ModuleFiles, name: str, array: NDArray[Any], vocabulary: int) -> None:
    if array.shape != (vocabulary,):
        raise ModelBroken(
            f"{files.folder}: {name} has the shape {array.shape}, the tokenizer knows {vocabulary} tokens"
        )


def _saturation(files: ModuleFiles, config: dict[str, Any]) -> Saturation:
    k1, b, average_length = (_number(files, config, name) for name in ("k1", "b", "average_length"))
    if not (k1 >= 0 and 0 <= b <= 1 and average_length > 0):
        raise ModelBroken(
            f"{files.folder}: expected k1 >= 0, b from 0 to 1 and average_length > 0, found {k1}, {b} and {average_length}"
        )
    return Saturation(k1, b, average_length)


def _number(files: ModuleFiles, config: dict[str, Any], name: str) -> float:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelBroken(f"{files.folder}: {name} must be a number, not {value!r}")
    return float(value)


def weigh(module: BM25, rows: Sequence[NDArray[np.int32]]) -> SparseMatrix:
    """The weights of the terms of each text [n, V], from its piece ids in any order; a text without terms has an empty row."""
    width = module.term.size
    sizes = np.fromiter((row.size for row in rows), np.int64, len(rows))
    owners = np.repeat(np.arange(len(rows), dtype=np.int64), sizes)
    terms = module.term[np.concatenate([*rows, np.empty(0, np.int32)])].astype(np.int64)
    owners, terms = owners[terms >= 0], terms[terms >= 0]
    cells, counts = np.unique(owners * width + terms, return_counts=True)
    holders, columns = np.divmod(cells, width)
    if module.idf is not None:
        values = module.idf[columns]
        holders, columns, values = holders[values > 0], columns[values > 0], values[values > 0]
    else:
        lengths = np.bincount(owners, minlength=len(rows))
        values = _saturated(module.saturation, counts, lengths[holders]).astype(np.float32)
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(holders, minlength=len(rows)), out=indptr[1:])
    return SparseMatrix(indptr, columns.astype(np.uint32), values, (len(rows), width))


def _saturated(how: Saturation | None, counts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    if how is None:
        raise ModelBroken("a half of BM25 needs an idf or a saturation")
    room = how.k1 * (1 - how.b + how.b * lengths / how.average_length)
    return np.asarray(counts * (how.k1 + 1) / (counts + room), np.float64)
