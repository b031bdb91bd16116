"""Read the tokenizer of a transformer from its files, without the transformers library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.checkpoint.files import read_json
from st_core.errors import ModelBroken, ModelUnsupported, missing_extra
from st_core.modules.transformer import LOADING, Transformer
from st_core.text.bert import ROLES
from st_core.text.tokens import UNLIMITED, Later, TextTokenizer, finite, is_length, parse_tokenizer, read_layout
from st_core.text.word_pieces import read_word_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from st_core.text.tokens import Layout

__all__ = ["as_transformers", "from_files", "own_copy"]

TOKENIZER, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"

_TYPED = {"BertTokenizer": True, "DistilBertTokenizer": False}
"""Tokenizer classes that transformers 5 rebuilds, and whether their models take segment ids."""

_USUAL: Mapping[str, tuple[object, ...]] = {
    "additional_special_tokens": (None, []),
    "extra_special_tokens": (None, [], {}),
    "pad_token_type_id": (None, 0),
    "padding_side": ("right",),
    "truncation_side": ("right",),
}
"""Settings that change tokens, with the values supported here."""

_READ = frozenset(
    (*ROLES, "added_tokens_decoder", "do_lower_case", "model_max_length", "strip_accents", "tokenize_chinese_chars")
)
_IDLE = frozenset(
    (
        "backend",
        "clean_up_tokenization_spaces",
        "do_basic_tokenize",
        "is_local",
        "local_files_only",
        "max_length",
        "name_or_path",
        "never_split",
        "pad_to_multiple_of",
        "special_tokens_map_file",
        "stride",
        "tokenizer_class",
        "tokenizer_file",
        "truncation_strategy",
    )
)
"""Settings that change no token: settings of decoding, padding and truncation, and former file paths."""

_MODELS = ("bert", "distilbert")
"""Model types for which transformers uses the tokenizer class named in the settings."""

_LENGTH = frozenset(("model_max_length",))
"""Options that a caller may set for a tokenizer that transformers rebuilds."""

_FOLLOWED = frozenset(
    ("chat_template", "pad_token", "padding_side", "split_special_tokens", "truncation_side", "use_fast")
)
"""Further options that a caller may set for a tokenizer that is read from its file unchanged.

Any other option would change the steps stored in the file.
"""

_OTHERS = ("added_tokens.json", "chat_template.jinja", "chat_template.json", "additional_chat_templates")
"""Files and folders that contain further settings."""


def own_copy(backend: Tokenizer, *, lower_case: bool) -> Tokenizer:
    """Return a copy of a tokenizer without truncation and padding; changing it does not affect the original.

    With ``lower_case`` the copy lowercases texts before all other steps.
    """
    from tokenizers import Tokenizer

    copied: Tokenizer = Tokenizer.from_str(backend.to_str())
    copied.encode_special_tokens = backend.encode_special_tokens  # tokenizers 0.23 leaves it out of to_str()
    return _stripped(copied, lower_case=lower_case)


def _stripped(backend: Tokenizer, *, lower_case: bool) -> Tokenizer:
    """Change a tokenizer in place as described in :func:`own_copy`, and return it."""
    from tokenizers import normalizers

    backend.no_padding()
    backend.no_truncation()
    if lower_case and "Lowercase" not in repr(backend.normalizer):
        steps = [normalizers.Lowercase()]
        if isinstance(backend.normalizer, normalizers.Sequence):
            steps += [backend.normalizer[index] for index in range(len(backend.normalizer))]
        elif backend.normalizer is not None:
            steps.append(backend.normalizer)
        backend.normalizer = normalizers.Sequence(steps)
    return backend


def from_files(module: Transformer) -> tuple[TextTokenizer, int | None]:
    """Return the tokenizer that ``tokenizer.json`` describes, without rebuilding it, and its maximum length.

    transformers would rebuild some steps of old files from other settings. Raises ImportError for an option that only
    transformers supports.
    """
    unknown = sorted(module.processor_kwargs.keys() - (_LENGTH | _FOLLOWED | _IDLE | LOADING))
    if unknown:
        raise missing_extra("torch", f"the option {unknown[0]!r} of the tokenizer in {module.folder}")
    saved = _object(module.folder / SPECIAL) | _object(module.folder / SETTINGS)
    saved |= module.processor_kwargs
    template = saved.get("chat_template") or (module.folder / "chat_template.jinja").is_file()
    if module.chat or (module.chat is None and template):
        raise ModelUnsupported(f"{module.folder}: its texts go through a chat template; load it with backend='torch'")
    path = module.folder / TOKENIZER
    if not path.exists():
        raise ModelBroken(f"{path}: the file is missing, and other tokenizer files need transformers")
    parsed, special, *_ = parse_tokenizer(path)
    backend = own_copy(parsed, lower_case=module.lower_case)
    backend.encode_special_tokens = saved.get("split_special_tokens") is True
    single = read_layout(backend, pair=False)
    if single is None:
        raise ModelBroken(f"{path}: the tokenizer inserts special tokens into a text or reorders it")
    padding, length = saved.get("pad_token"), _length(module, saved)
    pad_token = padding.get("content") if isinstance(padding, Mapping) else padding
    tokenizer = TextTokenizer(
        backend,
        single,
        read_layout(backend, pair=True),
        pad_id=(None if pad_token is None else backend.token_to_id(pad_token)) or 0,
        pad_left=saved.get("padding_side") == "left" and not module.pads_right,
        keep_left=saved.get("truncation_side", "right") == "right",
        model_max_length=length,
        special_ids=special,
        offered=backend,
        words=read_word_pieces(backend),
    )
    return tokenizer, length


def as_transformers(module: Transformer, shown: Callable[[], object]) -> tuple[TextTokenizer, int | None] | None:
    """Return the tokenizer that transformers 5 would build and its maximum length, None where that is not certain.

    It is certain for BERT's word pieces where ``tokenizer.json`` contains exactly what transformers builds from the
    vocabulary and the settings, and all settings have supported values. ``shown`` builds the transformers tokenizer
    that ``model.tokenizer`` returns.
    """
    from tokenizers import Tokenizer

    settings = _known_settings(module)
    if settings is None:
        return None
    try:
        backend = Tokenizer.from_file(str(module.folder / TOKENIZER))
    except Exception:  # noqa: BLE001 - tokenizers raises plain Exception; transformers reports the error later
        return None
    tokens = {role: settings.get(role, usual) for role, usual in ROLES.items()}
    if not _as_rebuilt(backend, settings, tokens):
        return None
    backend = _stripped(backend, lower_case=module.lower_case)
    single, pair = read_layout(backend, pair=False), read_layout(backend, pair=True)
    if not _around(single, pair, _id(backend, tokens["cls_token"]), _id(backend, tokens["sep_token"])):
        return None
    assert single is not None
    length = _length(module, settings)
    tokenizer = TextTokenizer(
        backend,
        single,
        pair,
        pad_id=_id(backend, tokens["pad_token"]),
        wants_types=_TYPED[settings["tokenizer_class"].removesuffix("Fast")],
        model_max_length=length,
        special_ids=frozenset(_id(backend, token) for token in tokens.values()),
        offered=Later(shown),
        words=read_word_pieces(backend),
    )
    return tokenizer, length


def _id(backend: Tokenizer, token: str) -> int:
    """Return the id of a token of the vocabulary."""
    number = backend.token_to_id(token)
    assert number is not None
    return number


def _around(single: Layout | None, pair: Layout | None, first: int, last: int) -> bool:
    """Return whether special tokens are placed as in BERT: ``first``, text, ``last``, then for pairs text, ``last``."""
    if single is None or pair is None:
        return False
    text, other = np.array([-1], np.int32), np.array([-2], np.int32)
    one = [single.fill(text).tolist(), single.fill_types(text).tolist()]
    two = [pair.fill(text, other).tolist(), pair.fill_types(text, other).tolist()]
    return one == [[first, -1, last], [0, 0, 0]] and two == [[first, -1, last, -2, last], [0, 0, 0, 1, 1]]


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, an empty object if the file is missing; raise ModelBroken for another value."""
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelBroken(f"{path}: expected a JSON object")
    return value


def _length(module: Transformer, settings: Mapping[str, object]) -> int | None:
    """Return the maximum length of a tokenizer, None for no limit.

    Unless the caller set it, it is at most the number of positions of the model.
    """
    configured, positions = settings.get("model_max_length"), module.config.get("max_position_embeddings")
    if not (configured is None or isinstance(configured, bool) or configured != configured or is_length(configured)):  # noqa: PLR0124 - NaN means no limit
        raise ModelBroken(f"{module.folder}: model_max_length must be a positive whole number, got {configured!r}")
    length = finite(configured)
    if "model_max_length" in module.processor_kwargs or not isinstance(positions, int) or positions == -1:
        return length
    return positions if length is None else min(length, positions)


def _known_settings(module: Transformer) -> dict[str, Any] | None:
    """Return the settings in ``tokenizer_config.json``, with the maximum length that the caller set.

    None where a setting is not supported here.
    """
    if module.chat or module.base is not None or module.trust_remote_code or module.task == "text-generation":
        return None
    configured = module.config.get("model_type") in _MODELS and isinstance(
        module.config.get("max_position_embeddings"), int
    )
    is_plain = module.processor_kwargs.keys() <= _LENGTH and "max_position_embeddings" not in module.config_kwargs
    if not (configured and is_plain) or any((module.folder / name).exists() for name in _OTHERS):
        return None
    try:
        settings = _object(module.folder / SETTINGS) | dict(module.processor_kwargs)
        special = _object(module.folder / SPECIAL)
    except ModelBroken:
        return None
    tokens = {role: settings.get(role, usual) for role, usual in ROLES.items()}
    agreed = all(tokens.get(role) == _plain(token) for role, token in special.items())
    return (
        settings if agreed and _are_known(settings) and all(isinstance(each, str) for each in tokens.values()) else None
    )


def _are_known(settings: Mapping[str, object]) -> bool:
    """Return whether settings contain only known keys with supported values."""
    kind, length = settings.get("tokenizer_class"), settings.get("model_max_length", UNLIMITED)
    return (
        settings.keys() <= _READ | _IDLE | _USUAL.keys()
        and all(settings.get(name, values[0]) in values for name, values in _USUAL.items())
        and isinstance(kind, str)
        and kind.removesuffix("Fast") in _TYPED
        and is_length(length)
    )


def _plain(token: object) -> object:
    """Return the text of a token saved as an object without further properties; return other values unchanged."""
    if not isinstance(token, dict) or any(value for name, value in token.items() if name not in ("content", "special")):
        return token
    return token.get("content")


def _as_rebuilt(backend: Tokenizer, settings: Mapping[str, object], tokens: Mapping[str, str]) -> bool:
    """Return whether a tokenizer equals the one that transformers builds from its vocabulary, with BERT's steps."""
    model, normalizer = backend.model, backend.normalizer
    kinds = tuple(type(part).__name__ for part in (model, normalizer, backend.pre_tokenizer))
    if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        return False
    steps = (normalizer.clean_text, normalizer.handle_chinese_chars, normalizer.strip_accents, normalizer.lowercase)
    expected = (
        True,
        settings.get("tokenize_chinese_chars", True),
        settings.get("strip_accents"),
        settings.get("do_lower_case", True),
    )
    pieces = (model.unk_token, model.continuing_subword_prefix, model.max_input_chars_per_word)
    if steps != expected or pieces != (tokens["unk_token"], "##", 100):
        return False
    sides = [(part or {}).get("direction", "right") for part in (backend.truncation, backend.padding)]
    return sides == ["right", "right"] and _only_special(backend, settings.get("added_tokens_decoder"), tokens)


def _only_special(backend: Tokenizer, listed: object, tokens: Mapping[str, str]) -> bool:
    """Return whether the file and the settings add only the special tokens, without further properties."""
    added = {index: _facts(token.__getstate__()) for index, token in backend.get_added_tokens_decoder().items()}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    usual = {vocabulary.get(token): _facts({"content": token, "special": True}) for token in tokens.values()}
    if added != usual or None in usual:
        return False
    if listed is None:
        return True
    if not isinstance(listed, dict) or not all(isinstance(each, dict) for each in listed.values()):
        return False
    configured = {index: _facts(each) for index, each in listed.items()}
    return configured == {str(index): facts for index, facts in usual.items()}


def _facts(token: Mapping[str, object]) -> tuple[object, ...]:
    """Return an added token's text, whether it is special, and its further properties."""
    properties = ("lstrip", "normalized", "rstrip", "single_word")
    return token.get("content"), token.get("special"), *(bool(token.get(name)) for name in properties)
