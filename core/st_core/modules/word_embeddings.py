"""Word vectors: ``0_WordEmbeddings``, with the words in a separate file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import TOKEN_EMBEDDINGS, ModuleFiles, Parts, unchangeable
from st_core.text.words import WordTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WordEmbeddings"]

_CONFIG = "wordembedding_config.json"
_WORDS = "whitespacetokenizer_config.json"
_TOKENIZER = "sentence_transformers.sentence_transformer.modules.tokenizer.whitespace.WhitespaceTokenizer"


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class WordEmbeddings:
    """Maps each word of a text to its row of ``table`` [words, d]; padding also uses row 0, but is masked."""

    type_path: ClassVar[str] = "sentence_transformers.sentence_transformer.modules.word_embeddings.WordEmbeddings"
    old_names: ClassVar[tuple[str, ...]] = ()
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None

    tokenizer: WordTokenizer
    table: NDArray[np.float32]
    max_length: int
    writes: str = TOKEN_EMBEDDINGS

    @property
    def dimension(self) -> int | None:
        """The width of the vectors."""
        return int(self.table.shape[1])

    @classmethod
    def load(cls, files: ModuleFiles) -> WordEmbeddings:
        """Return the module in a folder; raise ModelUnsupported for another type of tokenizer."""
        config = files.config(_CONFIG)
        tokenizer_type = last_name(str(config["tokenizer_class"]))
        if tokenizer_type != last_name(_TOKENIZER):
            raise ModelUnsupported(
                f"{config.path}: unsupported tokenizer {tokenizer_type!r}; expected {last_name(_TOKENIZER)}"
            )
        length = config.integer("max_seq_length", 1_000_000)
        if length < 1:
            raise config.broken("max_seq_length", "a positive whole number")
        words = files.config(_WORDS)
        vocab = [str(word) for word in words.array("vocab")]
        tokenizer = WordTokenizer(
            {word: index for index, word in enumerate(vocab)},
            frozenset(map(str, words.optional_array("stop_words"))),
            words.boolean("do_lower_case", default=False),
            length,
        )
        tensors = files.weights()
        table = tensors.get("emb_layer.weight")
        if table is None or len(tensors) != 1 or table.ndim != 2 or len(table) < max(1, len(vocab)):
            shapes = {name: array.shape for name, array in tensors.items()}
            raise ModelBroken(
                f"{files.folder}: expected emb_layer.weight with a row for each of {len(vocab)} words, got {shapes}"
            )
        return cls(tokenizer, table.astype(np.float32), length)

    def save(self) -> Parts:
        """Return configuration, words and vectors."""
        config = {"tokenizer_class": _TOKENIZER, "update_embeddings": False, "max_seq_length": self.max_length}
        words = {
            "vocab": list(self.tokenizer.get_vocab()),
            "stop_words": sorted(self.tokenizer.stop_words),
            "do_lower_case": self.tokenizer.lower_case,
        }
        return Parts({_CONFIG: config, _WORDS: words}, {"emb_layer.weight": self.table})
