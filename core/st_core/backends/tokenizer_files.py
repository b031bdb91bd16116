"""The tokenizer of a transformer from its files, without the transformers library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.checkpoint.files import read_json
from st_core.errors import ModelBroken, ModelUnsupported, missing_extra
from st_core.modules.transformer import LOADING, Transformer
from st_core.text.tokens import UNLIMITED, Later, TextTokenizer, finite, is_length, parse_tokenizer, read_layout
from st_core.text.word_pieces import read_word_pieces

if TYPE_CHECKING:
    from st_core.text.tokens import Layout

__all__ = ["as_transformers", "from_files", "own_copy"]

TOKENIZER, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"

_TYPED = {"BertTokenizer": True, "DistilBertTokenizer": False}
"""Whether the model of a tokenizer's class takes segment numbers. transformers 5 rebuilds these two from vocabulary and settings."""

_ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens where the settings name no others."""

_USUAL: Mapping[str, tuple[Any, ...]] = {
    "additional_special_tokens": (None, []),
    "extra_special_tokens": (None, [], {}),
    "pad_token_type_id": (None, 0),
    "padding_side": ("right",),
    "truncation_side": ("right",),
}
"""Settings that count, with the values that are known here."""

_READ = frozenset(
    (*_ROLES, "added_tokens_decoder", "do_lower_case", "model_max_length", "strip_accents", "tokenize_chinese_chars")
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
"""Settings that change no token: of decoding, of padding and cutting, which this engine does itself, and of where files once were."""

_MODELS = ("bert", "distilbert")
"""Types of models for which transformers believes the tokenizer's class that the settings name."""

_LENGTH = frozenset(("model_max_length",))
"""What the caller may ask of a tokenizer."""

_FOLLOWED = frozenset(
    ("chat_template", "pad_token", "padding_side", "split_special_tokens", "truncation_side", "use_fast")
)
"""What else may be asked of a tokenizer that is taken from its file as it stands: the rest would change the file's own steps."""

_OTHERS = ("added_tokens.json", "chat_template.jinja", "chat_template.json", "additional_chat_templates")
"""Files and folders that would say more."""


def own_copy(backend: Any, *, lower_case: bool) -> Any:
    """A copy of a tokenizer that nobody else can change, without truncation and padding, that lowers texts first where asked to."""
    from tokenizers import Tokenizer

    copied = Tokenizer.from_str(backend.to_str())
    copied.encode_special_tokens = backend.encode_special_tokens  # tokenizers 0.23 does not write it
    return _stripped(copied, lower_case=lower_case)


def _stripped(backend: Any, *, lower_case: bool) -> Any:
    """A tokenizer that is nobody else's, changed as :func:`own_copy` says."""
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
    """The tokenizer that ``tokenizer.json`` is as it stands, and the most tokens it lets through.

    transformers takes not every such file so: of old ones it rebuilds some steps from other settings, which is not done here. Raises
    ImportError for an option that only transformers follows.
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
    try:
        stamp = path.stat()
    except FileNotFoundError as error:
        raise ModelBroken(f"{path}: the file is missing, and other forms of a tokenizer need transformers") from error
    parsed, special, *_ = parse_tokenizer(path, stamp.st_size, stamp.st_mtime_ns)
    backend = own_copy(parsed, lower_case=module.lower_case)
    backend.encode_special_tokens = saved.get("split_special_tokens") is True
    single = read_layout(backend, pair=False)
    if single is None:
        raise ModelBroken(f"{path}: the tokenizer does not keep a text's tokens together and in order")
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


def as_transformers(module: Transformer, shown: Callable[[], Any]) -> tuple[TextTokenizer, int | None] | None:
    """The tokenizer that transformers 5 would make, and the most tokens it lets through; None where that is not certain.

    It is certain for BERT's word pieces where ``tokenizer.json`` holds nothing else than what transformers puts together from the vocabulary
    and the settings, and these hold nothing that is not known here. ``shown`` makes transformers' own object, should somebody ask for it.
    """
    from tokenizers import Tokenizer

    settings = _known_settings(module)
    if settings is None:
        return None
    try:
        backend = Tokenizer.from_file(str(module.folder / TOKENIZER))
    except Exception:  # noqa: BLE001 - the library raises plain Exception; transformers says what is wrong
        return None
    tokens = {role: settings.get(role, usual) for role, usual in _ROLES.items()}
    if not _as_rebuilt(backend, settings, tokens):
        return None
    backend = _stripped(backend, lower_case=module.lower_case)
    single, pair = read_layout(backend, pair=False), read_layout(backend, pair=True)
    if not _around(single, pair, backend.token_to_id(tokens["cls_token"]), backend.token_to_id(tokens["sep_token"])):
        return None
    assert single is not None
    length = _length(module, settings)
    tokenizer = TextTokenizer(
        backend,
        single,
        pair,
        pad_id=backend.token_to_id(tokens["pad_token"]),
        wants_types=_TYPED[settings["tokenizer_class"].removesuffix("Fast")],
        model_max_length=length,
        special_ids=frozenset(backend.token_to_id(token) for token in tokens.values()),
        offered=Later(shown),
        words=read_word_pieces(backend),
    )
    return tokenizer, length


def _around(single: Layout | None, pair: Layout | None, first: int, last: int) -> bool:
    """Whether texts stand as in BERT: the token ``first``, a text and ``last``, and of a pair the other text and ``last`` as segment 1."""
    if single is None or pair is None:
        return False
    text, other = np.array([-1], np.int32), np.array([-2], np.int32)
    one = [single.fill(text).tolist(), single.fill_types(text).tolist()]
    two = [pair.fill(text, other).tolist(), pair.fill_types(text, other).tolist()]
    return one == [[first, -1, last], [0, 0, 0]] and two == [[first, -1, last, -2, last], [0, 0, 0, 1, 1]]


def _object(path: Path) -> dict[str, Any]:
    """The object in a file, an empty one where there is no such file; raises ModelBroken for another value."""
    if not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise ModelBroken(f"{path}: expected a JSON object")
    return value


def _length(module: Transformer, settings: Mapping[str, Any]) -> int | None:
    """The most tokens that a tokenizer lets through: what is set, or what the model has positions for where nobody asked for another number."""
    named, positions = settings.get("model_max_length"), module.config.get("max_position_embeddings")
    if not (named is None or isinstance(named, bool) or named != named or is_length(named)):  # noqa: PLR0124 - NaN says no length
        raise ModelBroken(f"{module.folder}: model_max_length must be a positive whole number, found {named!r}")
    length = finite(named)
    if "model_max_length" in module.processor_kwargs or not isinstance(positions, int) or positions == -1:
        return length
    return positions if length is None else min(length, positions)


def _known_settings(module: Transformer) -> dict[str, Any] | None:
    """What ``tokenizer_config.json`` says, and the caller's length; None where something is said that is not known here."""
    if module.chat or module.base is not None or module.trust_remote_code or module.task == "text-generation":
        return None
    configured = module.config.get("model_type") in _MODELS and isinstance(
        module.config.get("max_position_embeddings"), int
    )
    asked = module.processor_kwargs.keys() <= _LENGTH and "max_position_embeddings" not in module.config_kwargs
    if not (configured and asked) or any((module.folder / name).exists() for name in _OTHERS):
        return None
    try:
        settings = _object(module.folder / SETTINGS) | dict(module.processor_kwargs)
        special = _object(module.folder / SPECIAL)
    except ModelBroken:
        return None
    named = {role: settings.get(role, usual) for role, usual in _ROLES.items()}
    agreed = all(named.get(role) == _plain(token) for role, token in special.items())
    return (
        settings if agreed and _are_known(settings) and all(isinstance(each, str) for each in named.values()) else None
    )


def _are_known(settings: Mapping[str, Any]) -> bool:
    """Whether settings hold nothing but what is known, and of that what is usual."""
    kind, length = settings.get("tokenizer_class"), settings.get("model_max_length", UNLIMITED)
    return (
        settings.keys() <= _READ | _IDLE | _USUAL.keys()
        and all(settings.get(name, values[0]) in values for name, values in _USUAL.items())
        and isinstance(kind, str)
        and kind.removesuffix("Fast") in _TYPED
        and is_length(length)
    )


def _plain(token: Any) -> Any:
    """What a token is that was saved as an object without any peculiarity."""
    if not isinstance(token, dict) or any(value for name, value in token.items() if name not in ("content", "special")):
        return token
    return token.get("content")


def _as_rebuilt(backend: Any, settings: Mapping[str, Any], tokens: Mapping[str, str]) -> bool:
    """Whether a tokenizer is what transformers makes of its vocabulary: BERT's steps by the settings, and no added tokens but the special ones."""
    model, normalizer = backend.model, backend.normalizer
    kinds = tuple(type(part).__name__ for part in (model, normalizer, backend.pre_tokenizer))
    if kinds != ("WordPiece", "BertNormalizer", "BertPreTokenizer"):
        return False
    steps = (normalizer.clean_text, normalizer.handle_chinese_chars, normalizer.strip_accents, normalizer.lowercase)
    wanted = (
        True,
        settings.get("tokenize_chinese_chars", True),
        settings.get("strip_accents"),
        settings.get("do_lower_case", True),
    )
    pieces = (model.unk_token, model.continuing_subword_prefix, model.max_input_chars_per_word)
    if steps != wanted or pieces != (tokens["unk_token"], "##", 100):
        return False
    sides = [(part or {}).get("direction", "right") for part in (backend.truncation, backend.padding)]
    return sides == ["right", "right"] and _only_special(backend, settings.get("added_tokens_decoder"), tokens)


def _only_special(backend: Any, listed: Any, tokens: Mapping[str, str]) -> bool:
    """Whether the added tokens are the special ones, entries of the vocabulary without peculiarities, in the file and in the settings."""
    added = {index: _facts(token.__getstate__()) for index, token in backend.get_added_tokens_decoder().items()}
    vocabulary = backend.get_vocab(with_added_tokens=False)
    usual = {vocabulary.get(token): _facts({"content": token, "special": True}) for token in tokens.values()}
    if added != usual or None in usual:
        return False
    if listed is None:
        return True
    whole = isinstance(listed, dict) and all(isinstance(each, dict) for each in listed.values())
    return whole and {index: _facts(each) for index, each in listed.items()} == {
        str(index): facts for index, facts in usual.items()
    }


def _facts(token: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an added token is: its text, and whether it is special, and has any of the peculiarities."""
    peculiar = ("lstrip", "normalized", "rstrip", "single_word")
    return token.get("content"), token.get("special"), *(bool(token.get(name)) for name in peculiar)
