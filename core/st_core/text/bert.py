"""Build BERT's tokenizer from a vocabulary and settings, as the transformers library does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from st_core.errors import ModelBroken
from st_core.text.tokens import BARE, TextTokenizer, finite, parse_tokenizer
from st_core.text.word_pieces import read_word_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["ROLES", "is_bert", "load_bert_tokenizer"]

ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""BERT's default special tokens."""

_CLASSES = frozenset(("BertTokenizer", "DistilBertTokenizer"))


def is_bert(settings: Mapping[str, object]) -> bool:
    """Return whether transformers builds a tokenizer with these settings by BERT's rules, whatever its file says."""
    return str(settings.get("tokenizer_class")).removesuffix("Fast") in _CLASSES


def load_bert_tokenizer(
    path: Path, vocabulary: Path, settings: Mapping[str, object], *, max_length: int | None = None
) -> TextTokenizer:
    """Return BERT's tokenizer of a static model; it adds no special tokens.

    The word pieces are those of the file ``tokenizer.json`` at ``path``, or, if there is none, the lines of the file
    ``vocabulary``. The rules are those of ``settings``, the content of ``tokenizer_config.json``. Raises ModelBroken if
    both files are missing or one is not readable.
    """
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    if vocabulary.exists() and not path.exists():
        backend = _from_lines(vocabulary, settings)
    else:
        backend = Tokenizer.from_str(parse_tokenizer(path)[0].to_str())
    strips = settings.get("strip_accents")
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars") is not False,
        strip_accents=strips if isinstance(strips, bool) else None,
        lowercase=settings.get("do_lower_case") is not False,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = frozenset(index for index, token in backend.get_added_tokens_decoder().items() if token.special)
    words = read_word_pieces(backend)
    return TextTokenizer(
        backend, BARE, None, model_max_length=finite(max_length), special_ids=special, offered=backend, words=words
    )


def _from_lines(path: Path, settings: Mapping[str, object]) -> Tokenizer:
    """Return a tokenizer of the word pieces in a file, one on each line, with the special tokens of the settings."""
    from tokenizers import Tokenizer, models

    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelBroken(f"{path}: not a readable vocabulary: {error}") from error
    pieces = {line.removesuffix("\r"): index for index, line in enumerate(lines)}
    special = [_content(settings.get(role), usual) for role, usual in ROLES.items()]
    backend = Tokenizer(models.WordPiece(pieces, unk_token=special[0]))
    backend.add_special_tokens([token for token in special if token in pieces])
    return backend


def _content(token: object, usual: str) -> str:
    """Return the text of a token in settings, which may be an object with properties; ``usual`` if it has none."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else usual
