"""Loads a transformer and its tokenizer with the transformers library."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from st_core.backends.dtypes import FLOATS
from st_core.backends.tokenizer_files import own_copy
from st_core.backends.torch.hush import hushed
from st_core.backends.vocabulary_bounds import check_padding, words_of
from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken, ModelError, ModelUnsupported, missing_extra
from st_core.text.chat import ChatTokenizer, is_structured
from st_core.text.tokens import UNLIMITED, AnyTokenizer, SlowTokenizer, TextTokenizer, finite, is_length, read_layout
from st_core.text.word_pieces import read_word_pieces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from st_core.backends import Features
    from st_core.modules.transformer import Transformer

__all__ = ["INPUTS", "LoadedTransformer", "load_transformer", "tokenizer_of", "wanted_type"]

logger = logging.getLogger(__name__)

_AUTO = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
}

# Of these, sentence vectors come from the encoder alone.
_ENCODERS = {
    "longt5": "LongT5EncoderModel",
    "mt5": "MT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True, slots=True, eq=False)
class LoadedTransformer:
    """A transformer on its device, with its tokenizer.

    ``positions`` is how many tokens it has position vectors for, None where positions are not looked up in a table.
    ``places`` says that it is padded on the left and takes the numbers of positions, so that padding does not move a text.
    ``logits_to_keep`` goes to a causal language model that can leave out the logits of all but the last positions; otherwise None.
    ``decoder`` is the vocabulary matrix [V, d] and its bias where ``model`` was made to stop before it, so that pooling can go through the
    vocabulary in blocks; otherwise None.
    """

    model: nn.Module
    tokenizer: AnyTokenizer
    max_length: int | None
    dtype: torch.dtype
    inputs: tuple[str, ...]
    positions: int | None = None
    places: bool = False
    logits_to_keep: int | None = None
    decoder: tuple[Tensor, Tensor | None] | None = None

    def hidden(self, features: Features) -> Tensor:
        """What the model puts out: states [n, t, d], or with a head its logits."""
        result: Tensor = self.outputs(features)[0]
        return result

    def outputs(self, features: Features, **more: Any) -> Any:
        """All that the model puts out; ``more`` are its own arguments.

        A text without any token, which a tokenizer without special ones makes of an empty one, is read as one token of padding: attention to
        nothing would be no number.
        """
        inputs = {name: features[name] for name in self.inputs if name in features}
        mask = inputs.get("attention_mask")
        if mask is not None and not features["tokens"].lengths.all():
            inputs["attention_mask"] = mask = mask.clone()
            mask[:, -1 if self.tokenizer.pad_left else 0] = 1
        if mask is not None and self.places:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        if self.logits_to_keep is not None:
            inputs["logits_to_keep"] = self.logits_to_keep
        return self.model(**inputs, **more)

    def forward(self, features: Features) -> Tensor:
        """Token states [n, t, d], vocabulary logits [n, t, V] or scores [n, labels]."""
        states = self.hidden(features)
        if self.decoder is None:
            return states
        return functional.linear(states, *self.decoder)


def load_transformer(module: Transformer, device: torch.device, dtype: str | torch.dtype | None) -> LoadedTransformer:
    """Load weights and tokenizer; raises ModelUnsupported where weights would have to be invented, ModelBroken where files are wrong."""
    transformers = _library(module)
    options = {"local_files_only": True, "trust_remote_code": module.trust_remote_code}
    config = _config(transformers, module, options)
    tokenizer, limit = _tokenizer(transformers, module, config, options)
    model = _model(transformers, module, config, options, wanted_type(module, device, dtype))
    check_padding(tokenizer.pad_id, words_of(model), module.folder)
    if "device_map" not in module.model_kwargs:
        model = model.to(device)
    model.requires_grad_(requires_grad=False)
    decoder = _split_decoder(model) if module.task == "fill-mask" else None
    names = tuple(name for name in INPUTS if name != "token_type_ids" or tokenizer.wants_types)
    takes = inspect.signature(model.forward).parameters
    return LoadedTransformer(
        model,
        tokenizer,
        limit,
        model.dtype,
        names,
        _positions(model),
        tokenizer.pad_left and "position_ids" in takes and not _numbers_from_padding(model),
        module.logits_to_keep if module.task == "text-generation" and "logits_to_keep" in takes else None,
        decoder,
    )


def tokenizer_of(module: Transformer) -> tuple[AnyTokenizer, int | None]:
    """The tokenizer of a transformer whose weights are not wanted, and the most tokens it lets through."""
    transformers = _library(module)
    options = {"local_files_only": True, "trust_remote_code": module.trust_remote_code}
    return _tokenizer(transformers, module, _config(transformers, module, options), options)


def _library(module: Transformer) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise missing_extra("torch", f"the transformer in {module.folder}") from error
    return transformers


def wanted_type(module: Transformer, device: torch.device, dtype: str | torch.dtype | None) -> Any:
    """The type to compute in, or "auto" for the checkpoint's own; raises ValueError for a name that is none."""
    given = module.asked_type if dtype is None else dtype
    if given is None:
        return torch.float32 if device.type == "cpu" else "auto"
    name = str(given).removeprefix("torch.")
    if name == "auto":
        return name
    if name not in FLOATS:
        raise ValueError(f"there is no type {given!r}; expected {', '.join(FLOATS)} or auto")
    return getattr(torch, name)


def _config(transformers: Any, module: Transformer, options: Mapping[str, Any]) -> Any:
    extra = {key: value for key, value in module.config_kwargs.items() if key not in ("dtype", "torch_dtype")}
    folder = module.base or module.folder
    with _named(folder / "config.json", "the configuration cannot be used", ModelUnsupported):
        config = transformers.AutoConfig.from_pretrained(str(folder), **{**options, **extra})
    architectures = config.architectures or []
    named = any(name.endswith("ForSequenceClassification") for name in architectures)
    if module.task == "sequence-classification" and not named and "num_labels" not in extra:
        config.num_labels = 1
    if getattr(config, "use_cache", None) and "use_cache" not in extra:
        config.use_cache = False
    return config


def _model(transformers: Any, module: Transformer, config: Any, options: Mapping[str, Any], dtype: Any) -> Any:
    name = _AUTO[module.task]
    if module.task == "feature-extraction":
        name = _ENCODERS.get(config.model_type, name)
    extra = {key: value for key, value in module.model_kwargs.items() if key not in ("dtype", "torch_dtype")}
    folder = module.base or module.folder
    with _named(folder, "the weights cannot be loaded"), hushed():
        model, loading = getattr(transformers, name).from_pretrained(
            str(folder), config=config, output_loading_info=True, dtype=dtype, **{**options, **extra}
        )
    _refuse_invented(module, loading)
    if module.base is not None:
        _merge_adapter(module, model)
    _drop_pooler(module, model)
    return model.eval()


def _merge_adapter(module: Transformer, model: Any) -> None:
    """Add an adapter to its model's weights, so that nothing of it is left to compute; raises ModelBroken where it does not fit."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise missing_extra("peft", f"the adapter in {module.folder}") from error
    with _named(module.folder, "the adapter cannot be loaded"):
        loading = model.load_adapter(str(module.folder))
        wrong = [*loading.missing_keys, *loading.unexpected_keys, *(key[0] for key in loading.mismatched_keys)]
        if wrong:
            raise ModelBroken(
                f"{module.folder}: the adapter does not fit its model: {', '.join(sorted(map(str, wrong))[:3])}"
            )
        for name, layer in list(model.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.merge()
                model.set_submodule(name, layer.get_base_layer())


def _positions(model: nn.Module) -> int | None:
    """The rows of the table of positions; families that number positions from behind the padding's leave some unused."""
    for name, table in model.named_modules():
        if name.rpartition(".")[2] == "position_embeddings" and isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return None


def _numbers_from_padding(model: nn.Module) -> bool:
    """Whether positions are numbered from behind the padding's number, as RoBERTa does: such a model numbers them best by itself."""
    return any(
        isinstance(table, nn.Embedding) and table.padding_idx is not None
        for name, table in model.named_modules()
        if name.rpartition(".")[2] == "position_embeddings"
    )


@contextmanager
def _named(path: Path, what: str, kind: type[ModelError] = ModelBroken) -> Iterator[None]:
    """Give whatever the library raises over a file a name: it lets errors of any type through, down to a division by zero.

    A missing package and a full memory are not the file's fault and stay what they are.
    """
    try:
        yield
    except (ImportError, MemoryError, torch.OutOfMemoryError):
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


def _refuse_invented(module: Transformer, loading: Mapping[str, Any]) -> None:
    """Raise where the library filled a hole with random numbers; the pooler's do not matter, for it is not used."""
    missing = sorted(
        key
        for key in loading.get("missing_keys", ())
        if module.task != "feature-extraction" or "pooler" not in key.split(".")
    )
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelUnsupported(
            f"{module.folder}: the checkpoint lacks {', '.join(missing[:3])}{more}, which {module.task} needs; "
            "random numbers would have to stand in for them"
        )
    if loading.get("mismatched_keys"):
        raise ModelBroken(
            f"{module.folder}: tensors of another shape than config.json says: {loading['mismatched_keys']}"
        )


def _drop_pooler(module: Transformer, model: Any) -> None:
    """Take away BERT's pooler, whose result is not asked for; models of this family are made to run without."""
    if module.task == "feature-extraction" and module.config.get("model_type") in (
        "bert",
        "camembert",
        "mpnet",
        "roberta",
        "xlm-roberta",
    ):
        model.pooler = None


class _PassOn(nn.Module):
    """Stands in for a vocabulary matrix; some heads ask it for its bias."""

    def __init__(self, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, states: Tensor) -> Tensor:
        """The states as they are."""
        return states


def _split_decoder(model: Any) -> tuple[Tensor, Tensor | None] | None:
    """Make a masked language model stop before its vocabulary matrix, and give that matrix; None where the head is of another form.

    The head is tried on a few tokens first: only where states times matrix are the model's own logits is it used so.
    """
    decoder = model.get_output_embeddings()
    if not isinstance(decoder, nn.Linear):
        return None
    probe = torch.tensor([[1, 2, 3, 4]], device=model.device)
    with torch.inference_mode():
        wanted = model(input_ids=probe)[0]
        model.set_output_embeddings(_PassOn(decoder.bias))
        try:
            states = model(input_ids=probe)[0]
            same = states.shape[-1] == decoder.weight.shape[1] and bool(
                torch.allclose(functional.linear(states, decoder.weight, decoder.bias), wanted, atol=1e-4, rtol=1e-3)
            )
        except Exception:  # noqa: BLE001 - a head that does more than one product fails in ways of its own
            same = False
    if not same:
        model.set_output_embeddings(decoder)
        logger.warning("%s: its head needs the logits of all tokens at once in memory", type(model).__name__)
        return None
    return decoder.weight.detach(), None if decoder.bias is None else decoder.bias.detach()


def _tokenizer(
    transformers: Any, module: Transformer, config: Any, options: Mapping[str, Any]
) -> tuple[AnyTokenizer, int | None]:
    """The tokenizer and the most tokens it lets through.

    It is made by transformers, which does not take every ``tokenizer.json`` as it stands: some classes rebuild it from its vocabulary. Taken
    from the file alone, token ids would differ from sentence-transformers'.
    """
    own = any((module.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    folder = module.folder if own or module.base is None else module.base
    with _named(folder, "the tokenizer cannot be loaded"):
        shown = transformers.AutoTokenizer.from_pretrained(str(folder), **{**options, **module.processor_kwargs})
    if module.task == "text-generation":
        shown.padding_side = "left"  # so that the last position is a token of every text
    if len(shown) <= len(shown.all_special_ids):  # what the library makes up where there is no file
        raise ModelBroken(
            f"{module.folder}: the tokenizer has no vocabulary; tokenizer.json, or the files it was made of, is missing"
        )
    length = shown.model_max_length
    if isinstance(length, bool) or length != length:  # noqa: PLR0124 - JSON's true and NaN, which say no length
        length = shown.model_max_length = UNLIMITED
    if not is_length(length):
        asked = "model_max_length" in module.processor_kwargs
        where = f"{module.folder}: processor_kwargs" if asked else str(module.folder / "tokenizer_config.json")
        raise ModelBroken(f"{where}: model_max_length must be a positive whole number, found {length!r}")
    positions = getattr(config, "max_position_embeddings", None)
    if "model_max_length" not in module.processor_kwargs and isinstance(positions, int) and positions != -1:
        length = min(length, positions)
        shown.model_max_length = length
    common = {
        "pad_id": shown.pad_token_id if shown.pad_token_id is not None else 0,
        "pad_type": shown.pad_token_type_id,
        "pad_left": shown.padding_side == "left" and not module.pads_right,
        "wants_types": "token_type_ids" in shown.model_input_names,
        "model_max_length": finite(length),
        "special_ids": frozenset(shown.all_special_ids),
    }
    made: Any = _made_tokenizer(module, shown, common)
    if module.chat or (module.chat is None and shown.chat_template):
        structured = is_structured(shown.chat_template, str(config.model_type), module.chat_format)
        made = ChatTokenizer(made, structured, module.chat_options)
    return made, finite(length)


def _made_tokenizer(module: Transformer, shown: Any, common: dict[str, Any]) -> TextTokenizer | SlowTokenizer:
    """The tokenizer of this engine that stands for transformers' ``shown``."""
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


def as_numpy(tensor: Tensor) -> Any:
    """A tensor as an array on the CPU; bfloat16, which numpy lacks, as float32."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return np.asarray(tensor.cpu().numpy())
