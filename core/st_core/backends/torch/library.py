"""Load a transformer and its tokenizer with the transformers library."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.dtypes import FLOATS
from st_core.backends.tokenizer_files import own_copy
from st_core.backends.torch.hush import hushed
from st_core.backends.torch.merging import check_peft, merge_layers
from st_core.backends.torch.once import Once
from st_core.backends.torch.pooling import attended, position_ids
from st_core.backends.vocabulary_bounds import check_padding, words_of
from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken, ModelError, ModelUnsupported, missing_extra
from st_core.text.chat import ChatTokenizer, is_structured
from st_core.text.tokens import UNLIMITED, AnyTokenizer, SlowTokenizer, TextTokenizer, finite, is_length, read_layout
from st_core.text.word_pieces import read_word_pieces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import ModuleType

    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from st_core.backends import Features
    from st_core.modules.transformer import Transformer
    from st_core.tensors import Floats

    class TokenizerFields(TypedDict):
        """The fields that a TextTokenizer and a SlowTokenizer share."""

        pad_id: int
        pad_type: int
        pad_left: bool
        wants_types: bool
        model_max_length: int | None
        special_ids: frozenset[int]


__all__ = [
    "INPUTS",
    "LoadedTransformer",
    "PendingTransformer",
    "TransformerInfo",
    "library_model",
    "load_transformer",
    "named_errors",
    "own_tokenizer",
    "requested_dtype",
    "split_decoder",
    "tokenizer_of",
    "unchangeable_config",
]

logger = logging.getLogger(__name__)


class OptionUnknown(ModelUnsupported, ValueError):
    """A loader of transformers does not have an argument in ``model_kwargs``, of the caller or of the checkpoint."""


_AUTO = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
}

# Encoder-decoder models of which only the encoder is used, because it alone produces text vectors.
_ENCODERS = {
    "blenderbot": "models.blenderbot.modeling_blenderbot.BlenderbotEncoder",
    "blenderbot-small": "models.blenderbot_small.modeling_blenderbot_small.BlenderbotSmallEncoder",
    "longt5": "LongT5EncoderModel",
    "m2m_100": "models.m2m_100.modeling_m2m_100.M2M100Encoder",
    "marian": "models.marian.modeling_marian.MarianEncoder",
    "mt5": "MT5EncoderModel",
    "pegasus": "models.pegasus.modeling_pegasus.PegasusEncoder",
    "pegasus_x": "models.pegasus_x.modeling_pegasus_x.PegasusXEncoder",
    "prophetnet": "ProphetNetEncoder",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
"""Names of classes in transformers. Some are parts of the whole model, and their tensors have other names alone."""

_NAMES_OF_PARTS = {
    r"^((model|prophetnet)\.)?encoder\.": "",
    r"^((model|prophetnet)\.)?shared\.": "embed_tokens.",
    r"^(prophetnet\.)word_embeddings\.": "word_embeddings.",
}
"""What the names of tensors in a whole model become in its encoder."""

_COMPUTED = {"marian": "embed_positions.weight", "pegasus": "embed_positions.weight"}
"""A tensor that transformers computes, so that not all checkpoints contain it, by model type."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True, eq=False)
class TransformerInfo:
    """Properties of a transformer that are known from its files alone.

    ``name`` is used in messages. ``inputs`` are the names in ``INPUTS`` that it accepts. ``words`` is the number of
    rows of its token embeddings, ``positions`` the number of usable rows of its position embeddings; None means no
    limit. ``takes_positions`` is whether it is padded on the left and takes position ids, so that padding does not
    shift token positions. ``logits_to_keep`` is the number of last positions that a causal language model computes
    logits for (0 means all), None where the model has no such argument. ``has_all_layers`` is whether it returns the
    hidden states of all layers.
    """

    name: str
    task: str
    tokenizer: AnyTokenizer
    max_length: int | None
    dtype: torch.dtype
    inputs: tuple[str, ...]
    words: int | None
    labels: int = 1
    positions: int | None = None
    takes_positions: bool = False
    logits_to_keep: int | None = None
    has_all_layers: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTransformer:
    """A transformer on its device, ready to compute.

    ``decoder`` is set where ``model`` stops before its vocabulary matrix: it is that matrix [V, d] and its bias, so
    that pooling can compute the logits in blocks. Otherwise it is None.
    """

    info: TransformerInfo
    model: nn.Module
    decoder: tuple[Tensor, Tensor | None] | None = None

    def outputs(self, features: Features, **options: object) -> Any:
        """Return the model's outputs; ``options`` are passed on to the model as keyword arguments."""
        info = self.info
        mask = attended(features["attention_mask"], pad_left=info.tokenizer.pad_left)
        inputs = {name: features[name] for name in info.inputs if name in features} | {"attention_mask": mask}
        if info.takes_positions:
            inputs["position_ids"] = position_ids(mask)
        if info.logits_to_keep is not None:
            inputs["logits_to_keep"] = info.logits_to_keep
        return self.model(**inputs, **options)

    def hidden(self, features: Features) -> Tensor:
        """Return the model's first output: hidden states [n, t, d], or the logits of its head."""
        states: Tensor = self.outputs(features)[0]
        return states

    def logits(self, features: Features) -> Tensor:
        """Return hidden states [n, t, d], vocabulary logits [n, t, V] or scores [n, labels], depending on the head."""
        states = self.hidden(features)
        return states if self.decoder is None else functional.linear(states, *self.decoder)


@dataclass(frozen=True, slots=True, eq=False)
class PendingTransformer:
    """A transformer whose files have been read; ``ready`` prepares it for inference on first use."""

    info: TransformerInfo
    ready: Once[LoadedTransformer]


def load_transformer(module: Transformer, device: torch.device, dtype: str | torch.dtype | None) -> LoadedTransformer:
    """Load the weights and the tokenizer of a transformer without computing anything.

    Raises ModelUnsupported where weights are missing that would have to be initialised at random, ModelBroken where
    files are damaged.
    """
    transformers = _library(module)
    options = {"local_files_only": True, "trust_remote_code": module.trust_remote_code}
    config = _config(transformers, module, options)
    tokenizer, limit = _tokenizer(transformers, module, config, options)
    model = _model(transformers, module, config, options, requested_dtype(module, device, dtype))
    words = words_of(model)
    check_padding(tokenizer.pad_id, words, module.folder)
    if "device_map" not in module.model_kwargs:
        model = model.to(device)
    parameters = inspect.signature(model.forward).parameters
    info = TransformerInfo(
        name=str(module.folder),
        task=module.task,
        tokenizer=tokenizer,
        max_length=limit,
        dtype=model.dtype,
        inputs=tuple(name for name in INPUTS if name != "token_type_ids" or tokenizer.wants_types),
        words=words,
        labels=int(getattr(model.config, "num_labels", 1)),
        positions=_positions(model),
        takes_positions=tokenizer.pad_left and "position_ids" in parameters and not _counts_from_padding(model),
        logits_to_keep=(
            module.logits_to_keep if module.task == "text-generation" and "logits_to_keep" in parameters else None
        ),
        has_all_layers=bool(getattr(model.config, "output_hidden_states", False)),
    )
    return LoadedTransformer(info, model)


def tokenizer_of(module: Transformer) -> tuple[AnyTokenizer, int | None]:
    """Return the tokenizer of a transformer and its maximum length without loading the weights."""
    transformers = _library(module)
    options = {"local_files_only": True, "trust_remote_code": module.trust_remote_code}
    return _tokenizer(transformers, module, _config(transformers, module, options), options)


def library_model(module: Transformer, device: torch.device, dtype: str | torch.dtype | None) -> nn.Module:
    """Return a transformer as the object of transformers, with inference tensors, which torch refuses to change."""
    transformers = _library(module)
    options = {"local_files_only": True, "trust_remote_code": module.trust_remote_code}
    config = _config(transformers, module, options)
    requested = requested_dtype(module, device, dtype)
    model: nn.Module = _model(transformers, module, config, options, requested, drops_pooler=False)
    _make_inference_tensors(model.to(device))
    return model


def _make_inference_tensors(model: nn.Module) -> None:
    """Replace the parameters of a model by inference tensors; shared parameters stay shared."""
    new: dict[int, Tensor] = {}
    with torch.inference_mode():
        for part in model.modules():
            parameters: dict[str, Any] = part._parameters  # noqa: SLF001 - an assignment would check the type
            for name, parameter in parameters.items():
                if parameter is None:
                    continue
                if id(parameter) not in new:
                    new[id(parameter)] = parameter.detach().clone()  # an nn.Parameter of it would be changeable
                parameters[name] = new[id(parameter)]


def unchangeable_config(module: Transformer) -> PretrainedConfig:
    """Return the configuration of a transformer as an object of transformers that refuses changes."""
    options = {"local_files_only": True, "trust_remote_code": module.trust_remote_code}
    return _frozen(_config(_library(module), module, options))


def _frozen(config: PretrainedConfig) -> PretrainedConfig:
    """Make a configuration, and those in it, refuse changes; their classes keep their names."""

    def refuse(_config: object, name: str, _value: object = None) -> None:
        raise AttributeError(
            f"{name} cannot be set: the configuration of a loaded model does not change; load it with "
            f"config_kwargs={{{name!r}: …}}"
        )

    for value in vars(config).values():
        if hasattr(value, "model_type"):
            _frozen(value)
    kind = type(config)
    config.__class__ = type(kind.__name__, (kind,), {"__setattr__": refuse, "__delattr__": refuse})
    return config


def _library(module: Transformer) -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise missing_extra("torch", f"the transformer in {module.folder}") from error
    library: ModuleType = transformers
    return library


def requested_dtype(module: Transformer, device: torch.device, dtype: str | torch.dtype | None) -> torch.dtype | str:
    """Return the dtype to compute in, or "auto" for the dtype of the checkpoint; raise ValueError for an unknown dtype.

    ``dtype`` None takes the dtype from the options of the module, else float32 on the CPU and "auto" elsewhere.
    """
    requested = module.requested_dtype if dtype is None else dtype
    if requested is None:
        return torch.float32 if device.type == "cpu" else "auto"
    name = str(requested).removeprefix("torch.")
    if name == "auto":
        return name
    if name not in FLOATS:
        raise ValueError(f"unknown dtype {requested!r}; expected one of {', '.join(FLOATS)}, auto")
    known: torch.dtype = getattr(torch, name)
    return known


def _config(transformers: ModuleType, module: Transformer, options: Mapping[str, object]) -> PretrainedConfig:
    extra = {key: value for key, value in module.config_kwargs.items() if key not in ("dtype", "torch_dtype")}
    folder = module.base or module.folder
    with named_errors(folder / "config.json", "the configuration cannot be used", ModelUnsupported):
        config = transformers.AutoConfig.from_pretrained(str(folder), **{**options, **extra})
    architectures = config.architectures or []
    named = any(name.endswith("ForSequenceClassification") for name in architectures)
    if module.task == "sequence-classification" and not named and "num_labels" not in extra:
        config.num_labels = 1
    if getattr(config, "use_cache", None) and "use_cache" not in extra:
        config.use_cache = False
    return config


def _model(
    transformers: ModuleType,
    module: Transformer,
    config: PretrainedConfig,
    options: Mapping[str, object],
    dtype: torch.dtype | str,
    *,
    drops_pooler: bool = True,
) -> PreTrainedModel:
    name = _AUTO[module.task]
    if module.task == "feature-extraction":
        name = _ENCODERS.get(config.model_type, name)
    extra = {key: value for key, value in module.model_kwargs.items() if key not in ("dtype", "torch_dtype")}
    if name.endswith("Encoder"):
        extra.setdefault("key_mapping", _NAMES_OF_PARTS)
    folder = module.base or module.folder
    with named_errors(folder, "the weights cannot be loaded"), _named_options(folder, extra), hushed():
        model, loading = _class_of(transformers, name).from_pretrained(
            str(folder), config=config, output_loading_info=True, dtype=dtype, **{**options, **extra}
        )
    _refuse_invented(module, loading.get("missing_keys", ()), loading.get("mismatched_keys"))
    if module.base is not None:
        _merge_adapter(module, model)
    if drops_pooler:
        _drop_pooler(module, model)
    return model.eval()


def _class_of(transformers: Any, name: str) -> Any:
    """Return a class of transformers by its name, or by its path for a class that is not public."""
    module, _, last = name.rpartition(".")
    return getattr(import_module(f"{transformers.__name__}.{module}") if module else transformers, last)


@contextmanager
def _named_options(folder: Path | str, options: Mapping[str, object]) -> Iterator[None]:
    """Convert the error about an unknown option among ``model_kwargs`` to a ValueError that names the option."""
    try:
        yield
    except TypeError as error:
        unknown = [name for name in options if f"unexpected keyword argument {name!r}" in str(error)]
        if not unknown:
            raise
        raise OptionUnknown(
            f"{folder}: model_kwargs has {unknown[0]!r}, which no loader of transformers takes"
        ) from error


def _merge_adapter(module: Transformer, model: PreTrainedModel) -> None:
    """Merge an adapter into the weights of its model, so that it adds no computation.

    Raises ModelBroken where the adapter does not fit the model.
    """
    check_peft(f"the adapter in {module.folder}")
    with named_errors(module.folder, "the adapter cannot be loaded"):
        loading = model.load_adapter(str(module.folder))
        wrong = [*loading.missing_keys, *loading.unexpected_keys, *(key[0] for key in loading.mismatched_keys)]
        if wrong:
            raise ModelBroken(
                f"{module.folder}: the adapter does not fit its model: {', '.join(sorted(map(str, wrong))[:3])}"
            )
        merge_layers(model)


def _positions(model: nn.Module) -> int | None:
    """Return the number of usable rows of the position embeddings, None for a model without them.

    Where positions are counted from the padding id, the rows up to that id are not used.
    """
    for name, table in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return None


def _counts_from_padding(model: nn.Module) -> bool:
    """Return whether a model computes its own position ids, starting at the padding id plus one, as RoBERTa does."""
    return any(
        isinstance(table, nn.Embedding) and table.padding_idx is not None
        for name, table in model.named_modules()
        if name.rpartition(".")[2] == "position_embeddings"
    )


@contextmanager
def named_errors(path: Path | str, what: str, kind: type[ModelError] = ModelBroken) -> Iterator[None]:
    """Convert errors of the transformers library to errors of class ``kind`` that name ``path`` and contain ``what``.

    ``what`` states the failure. The library raises exceptions of every type. A missing package and exhausted memory are
    not the fault of the file, so their errors are raised unchanged.
    """
    try:
        yield
    except (ImportError, MemoryError, torch.OutOfMemoryError, OptionUnknown):
        raise
    except ModelError:
        raise
    except Exception as error:
        first, *more = (str(error).strip() or type(error).__name__).splitlines()
        reason = f"{first} {more[0].strip()}" if more and first.endswith(":") else first
        if "Unrecognized configuration" in reason:
            kind = ModelUnsupported
        if "ignore_mismatched_sizes" in reason:
            reason = "tensors have other shapes than config.json says"
        raise kind(f"{path}: {what}: {reason}") from error


def _refuse_invented(module: Transformer, keys: Iterable[str], mismatched: object) -> None:
    """Raise an error where the library initialised missing weights at random.

    For feature extraction a missing pooler is accepted, because its output is not used, and so is a computed tensor.
    """
    missing = sorted(
        key
        for key in keys
        if module.task != "feature-extraction"
        or ("pooler" not in key.split(".") and key != _COMPUTED.get(str(module.config.get("model_type"))))
    )
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelUnsupported(
            f"{module.folder}: the checkpoint lacks {', '.join(missing[:3])}{more}, which {module.task} needs; "
            f"random numbers would have to replace them{_new_head(module)}"
        )
    if mismatched:
        raise ModelBroken(f"{module.folder}: tensors of another shape than config.json says: {mismatched}")


def _new_head(module: Transformer) -> str:
    """Return advice on adding a head that the architecture of a transformer does not have."""
    ending = {"fill-mask": "ForMaskedLM", "sequence-classification": "ForSequenceClassification"}.get(module.task)
    if ending is None or any(str(name).endswith(ending) for name in module.config.get("architectures") or ()):
        return ""
    return "; to train a new head, pass init_head=True"


def _drop_pooler(module: Transformer, model: PreTrainedModel) -> None:
    """Remove the pooler of BERT-like models, whose output is not used; these models run without it."""
    if module.task == "feature-extraction" and module.config.get("model_type") in (
        "bert",
        "camembert",
        "mpnet",
        "roberta",
        "xlm-roberta",
    ):
        model.pooler = None


class _Identity(nn.Module):
    """A replacement of the vocabulary matrix that returns its input; it has a ``bias`` because some heads read it."""

    def __init__(self, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, states: Tensor) -> Tensor:
        """Return the states unchanged."""
        return states


def split_decoder(loaded: LoadedTransformer) -> LoadedTransformer:
    """Return a masked language model that stops before its vocabulary matrix, with that matrix as its ``decoder``.

    The result is compared on a few tokens first. Where the states times the matrix differ from the model's own logits,
    ``loaded`` is returned unchanged.
    """
    model: PreTrainedModel = loaded.model
    decoder = model.get_output_embeddings()
    if not isinstance(decoder, nn.Linear):
        return loaded
    probe = torch.tensor([[1, 2, 3, 4]], device=model.device)
    with torch.inference_mode():
        expected = model(input_ids=probe)[0]
        model.set_output_embeddings(_Identity(decoder.bias))
        try:
            states = model(input_ids=probe)[0]
            same = states.shape[-1] == decoder.weight.shape[1] and bool(
                torch.allclose(functional.linear(states, decoder.weight, decoder.bias), expected, atol=1e-4, rtol=1e-3)
            )
        except Exception:  # noqa: BLE001 - a head with more operations than one product can raise anything
            same = False
    if not same:
        model.set_output_embeddings(decoder)
        logger.warning("%s: its head needs the logits of all tokens at once in memory", type(model).__name__)
        return loaded
    return replace(loaded, decoder=(decoder.weight, decoder.bias))


def _tokenizer(
    transformers: ModuleType, module: Transformer, config: PretrainedConfig, options: Mapping[str, object]
) -> tuple[AnyTokenizer, int | None]:
    """Return the tokenizer and its maximum length.

    The tokenizer is built by transformers rather than read from ``tokenizer.json``: some of its classes rebuild the
    tokenizer from its vocabulary, so the token ids of the file alone could differ from those of sentence-transformers.
    """
    own = any((module.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    folder = module.folder if own or module.base is None else module.base
    with named_errors(folder, "the tokenizer cannot be loaded"):
        shown = transformers.AutoTokenizer.from_pretrained(str(folder), **{**options, **module.processor_kwargs})
    if module.task == "text-generation":
        shown.padding_side = "left"  # so that the last position holds a token in every row
    if len(shown) <= len(shown.all_special_ids):  # transformers builds an empty tokenizer where files are missing
        raise ModelBroken(
            f"{module.folder}: the tokenizer has no vocabulary; expected tokenizer.json or the files it is built from"
        )
    length = shown.model_max_length
    if isinstance(length, bool) or length != length:  # noqa: PLR0124 - JSON's true and NaN are not lengths
        length = shown.model_max_length = UNLIMITED
    if not is_length(length):
        is_option = "model_max_length" in module.processor_kwargs
        where = f"{module.folder}: processor_kwargs" if is_option else str(module.folder / "tokenizer_config.json")
        raise ModelBroken(f"{where}: model_max_length must be a positive whole number, got {length!r}")
    positions = getattr(config, "max_position_embeddings", None)
    if "model_max_length" not in module.processor_kwargs and isinstance(positions, int) and positions != -1:
        length = min(length, positions)
        shown.model_max_length = length
    common: TokenizerFields = {
        "pad_id": shown.pad_token_id if shown.pad_token_id is not None else 0,
        "pad_type": shown.pad_token_type_id,
        "pad_left": shown.padding_side == "left" and not module.pads_right,
        "wants_types": "token_type_ids" in shown.model_input_names,
        "model_max_length": finite(length),
        "special_ids": frozenset(shown.all_special_ids),
    }
    tokenizer = own_tokenizer(module, shown, common)
    if module.chat or (module.chat is None and shown.chat_template):
        structured = is_structured(shown.chat_template, str(config.model_type), module.chat_format)
        return ChatTokenizer(tokenizer, structured, module.chat_options), finite(length)
    return tokenizer, finite(length)


def own_tokenizer(
    module: Transformer, shown: PreTrainedTokenizerBase, common: TokenizerFields
) -> TextTokenizer | SlowTokenizer:
    """Return the tokenizer of this package that corresponds to ``shown``, a tokenizer of transformers."""
    backend = getattr(shown, "backend_tokenizer", None)
    if backend is None or last_name(type(backend).__name__) != "Tokenizer":
        return SlowTokenizer(shown, **common)
    backend = own_copy(backend, lower_case=module.lower_case)
    single = read_layout(backend, pair=False)
    if single is None:
        return SlowTokenizer(shown, **common)
    keep_left = getattr(shown, "truncation_side", "right") == "right"
    pair, words = read_layout(backend, pair=True), read_word_pieces(backend)
    return TextTokenizer(backend, single, pair, keep_left=keep_left, words=words, offered=shown, **common)


def as_numpy(tensor: Tensor) -> Floats:
    """Return a tensor as a numpy array; bfloat16, which numpy lacks, becomes float32."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return np.asarray(tensor.cpu().numpy())
