"""A vector per word: ``0_WordEmbeddings``, with the words in a file of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import ModuleFiles
from st_core.text.words import WordTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG = "wordembedding_config.json"
WORDS = "whitespacetokenizer_config.json"


@dataclass(frozen=True, slots=True, eq=False)
class WordEmbeddings:
    """Each word of a text becomes its row of ``table`` [words, d]; row 0 also fills up shorter texts, where no mask reaches."""

    tokenizer: WordTokenizer
    table: NDArray[np.float32]
    max_length: int
    writes: str = "token_embeddings"

    @property
    def dimension(self) -> int | None:
        """The width of the vectors."""
        return int(self.table.shape[1])


def load(files: ModuleFiles) -> WordEmbeddings:
    """Read configuration, words and vectors; raises ModelUnsupported for a tokenizer of another kind."""
    config = files.config(CONFIG)
    kind = last_name(str(config["tokenizer_class"]))
    if kind != "WhitespaceTokenizer":
        raise ModelUnsupported(
            f"{files.folder / CONFIG}: the tokenizer {kind} is not supported; there is WhitespaceTokenizer"
        )
    length = int(config.get("max_seq_length", 1_000_000))
    words = files.config(WORDS)
    listed = words["vocab"]
    tokenizer = WordTokenizer(
        {str(word): index for index, word in enumerate(listed)},
        frozenset(words.get("stop_words") or ()),
        bool(words.get("do_lower_case", False)),
        length,
    )
    tensors = files.weights()
    shapes = {name: array.shape for name, array in tensors.items()}
    table = tensors.get("emb_layer.weight")
    if table is None or len(tensors) != 1 or table.ndim != 2 or len(table) < max(1, len(listed)) or length < 1:
        raise ModelBroken(
            f"{files.folder}: expected emb_layer.weight with a row for each of {len(listed)} words, found {shapes}"
        )
    return WordEmbeddings(tokenizer, table.astype(np.float32), length)
