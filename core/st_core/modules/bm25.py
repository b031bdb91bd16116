"""BM25 as a sparse encoder: saturated term frequencies for documents; for queries, frequency times idf.

The inner product of a query vector and a document vector is the BM25 score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from st_core.checkpoint.files import JsonObject
from st_core.errors import ModelBroken
from st_core.modules import SENTENCE_EMBEDDING, ModuleFiles, Parts, unchangeable
from st_core.text.tokens import TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BM25", "Saturation", "read_number", "read_saturation"]


@dataclass(frozen=True, slots=True, eq=False)
class Saturation:
    """The weight ``tf·(k1 + 1) / (tf + k1·(1 - b + b·L / average_length))`` of a term.

    ``tf`` is the number of its occurrences in a text of L terms. The formula is that of Robertson and Zaragoza, "The
    Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.3, without the idf, which is part of the query
    vector. ``average_length`` is a constant of the model, not of a collection, so that a document's vector does not
    depend on other documents.
    """

    k1: float
    b: float
    average_length: float


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class BM25:
    """One half of BM25: the query encoder with an ``idf``, float32 [V], or the document encoder with a ``saturation``.

    A query weighs each of its terms by the number of its occurrences times ``idf``, or a learned weight in its place.
    ``term`` int32 [V] maps each token to the vocabulary entry that it counts as (the token itself, or the base form of
    an inflected word), or to -1 for a token that is left out and does not count towards the length of a text.
    """

    type_path: ClassVar[str] = "st_core.modules.bm25.BM25"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    writes: ClassVar[str] = SENTENCE_EMBEDDING

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
        """None, because texts are not truncated."""
        return None

    @classmethod
    def load(cls, files: ModuleFiles) -> BM25:
        """Return the encoder in a module's folder; without a tensor ``term``, every token counts as itself."""
        tokenizer = load_tokenizer(files.tokenizer_path())
        vocabulary = tokenizer.vocabulary_size
        config = files.config()
        tensors = files.weights() if (files.folder / "model.safetensors").is_file() else {}
        term = np.asarray(tensors.get("term", np.arange(vocabulary)), np.int32)
        _check_shape(files, "term", term, vocabulary)
        if term.size and not -1 <= int(term.min()) <= int(term.max()) < vocabulary:
            raise ModelBroken(f"{files.folder}: term points outside the {vocabulary} entries of the vocabulary")
        match config["half"]:
            case "query":
                idf = np.asarray(tensors["idf"], np.float32)
                _check_shape(files, "idf", idf, vocabulary)
                return cls(tokenizer, term, idf=idf)
            case "document":
                return cls(tokenizer, term, saturation=read_saturation(config))
        raise config.broken("half", "'query' or 'document'")

    def save(self) -> Parts:
        """Return configuration, weights and tokenizer."""
        config: dict[str, object] = {"half": "query"}
        if self.saturation is not None:
            each = self.saturation
            config = {"half": "document", "k1": each.k1, "b": each.b, "average_length": each.average_length}
        return Parts({"config.json": config}, {"term": self.term, "idf": self.idf}, self.tokenizer)


def _check_shape(files: ModuleFiles, name: str, array: NDArray[np.generic], vocabulary: int) -> None:
    if array.shape != (vocabulary,):
        raise ModelBroken(f"{files.folder}: {name}: expected the shape {(vocabulary,)}, got {array.shape}")


def read_saturation(config: JsonObject) -> Saturation:
    """Return the saturation in a configuration; raise ModelBroken for values outside the formula's range."""
    k1, b, average_length = (read_number(config, key) for key in ("k1", "b", "average_length"))
    if not (k1 >= 0 and 0 <= b <= 1 and average_length > 0):
        raise ModelBroken(
            f"{config.path}: expected k1 >= 0, b from 0 to 1 and average_length > 0, got {k1}, {b} and {average_length}"
        )
    return Saturation(k1, b, average_length)


def read_number(config: JsonObject, key: str) -> float:
    """Return a number of a configuration; raise ModelBroken for any other value."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise config.broken(key, "a number")
    return float(value)
