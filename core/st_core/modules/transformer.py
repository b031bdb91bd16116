"""A transformer of the transformers library: its folder, what it is for, and how its texts are read.

The weights stay in their files until a backend loads them: it alone knows the type and the device they are wanted in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from st_core.checkpoint.files import is_there, read_json
from st_core.checkpoint.find import adapter_base
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import LoadOptions, ModuleFiles
from st_core.text.tokens import is_length

TASKS = {
    "feature-extraction": "token_embeddings",
    "fill-mask": "token_embeddings",
    "sequence-classification": "scores",
    "text-generation": "causal_logits",
}
"""What a transformer is loaded for, and the feature it writes."""

_OUTPUTS = {task: "last_hidden_state" if task == "feature-extraction" else "logits" for task in TASKS}

_NAMES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_OLD_KEYS = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}

LOADING = frozenset(
    (
        "attn_implementation",
        "cache_dir",
        "code_revision",
        "force_download",
        "local_files_only",
        "proxies",
        "revision",
        "subfolder",
        "token",
        "trust_remote_code",
        "use_auth_token",
    )
)
"""Options of transformers' loaders that say where files come from, who asks and what the machine can do, and change no number."""

_NUMBERS = frozenset(("dtype", "torch_dtype", "variant"))
"""Options of transformers' loader of weights that change numbers; the others place a model on a machine."""

_LAYERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"),
    *("num_encoder_layers", "num_decoder_layers"),
)
_HEADS = ("num_attention_heads", "num_key_value_heads", "num_heads", "n_heads", "n_head")
_MOST = {
    **dict.fromkeys(_LAYERS, 1_000),
    **dict.fromkeys(("hidden_size", "head_dim", "dim", "d_model", "d_kv", "n_embd", *_HEADS), 1 << 20),
    "max_position_embeddings": 1 << 26,
    "num_labels": 1 << 22,
    "n_positions": 1 << 15,
}
"""More than any model has. transformers builds lists, layers and tables of these sizes before it looks at the weights, which tell them wrong."""

OWN_FILES = frozenset(
    (*_NAMES, "modules.json", "config_sentence_transformers.json", "router_config.json", "quantization_ranges.json")
)
"""Files in a transformer's folder that are not transformers' own."""


@dataclass(frozen=True, slots=True, eq=False)
class Transformer:
    """``model_kwargs``, ``processor_kwargs`` and ``config_kwargs`` go to transformers' loaders.

    ``writes`` is the feature it puts out. ``task_lengths`` are lower limits for single tasks, ``lower_case`` puts a lowercasing step before the
    tokenizer's own. ``chat`` says whether texts go through the chat template, None that they do where there is one; ``chat_format`` is
    "structured", "flat" or "auto", and ``chat_options`` are the template's arguments. ``logits_to_keep`` is how many last positions of a text
    a causal language model gives logits for, 0 for all. ``base`` is the folder of the model where ``folder`` holds an adapter for it.
    """

    folder: Path
    task: str
    config: Mapping[str, Any]
    writes: str
    lower_case: bool = False
    task_lengths: Mapping[str, int] = field(default_factory=dict)
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)
    text_kwargs: Mapping[str, Any] = field(default_factory=dict)
    chat: bool | None = False
    chat_format: str = "auto"
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    logits_to_keep: int = 1
    trust_remote_code: bool = False
    base: Path | None = None

    @property
    def dimension(self) -> int | None:
        """The width of the token vectors: hidden size, or the vocabulary's for fill-mask."""
        keys = ("vocab_size",) if self.task == "fill-mask" else ("hidden_size", "dim", "d_model", "n_embd")
        if self.task == "sequence-classification":
            return None
        return next((int(self.config[key]) for key in keys if isinstance(self.config.get(key), int)), None)

    @property
    def pads_right(self) -> bool:
        """Whether padding goes to the right whatever the tokenizer says: heads that give scores read the first position, or find the last token.

        XLNet's alone, as of transformers 5, reads the last position.
        """
        return self.task == "sequence-classification" and self.config.get("model_type") != "xlnet"

    @property
    def asked_type(self) -> Any:
        """The type that the options for transformers' loaders name, None where they name none."""
        options = (self.model_kwargs, self.config_kwargs)
        return next(
            (each[key] for each in options for key in ("dtype", "torch_dtype") if each.get(key) is not None), None
        )

    def saved(self) -> dict[str, Any]:
        """The module's own configuration file; ``chat`` has to be known by now.

        The options for transformers' loaders stand in it as sentence-transformers 6.2 reads them, though it writes none: the files beside it
        stay as they were, and what makes other numbers of them comes along. Raises ModelUnsupported for one that JSON cannot hold.
        """
        entry = {"method": "forward", "method_output_name": _OUTPUTS[self.task]}
        message = {"message": entry | {"format": self.chat_format}} if self.chat else {}
        processing = {"text": dict(self.text_kwargs), "chat_template": dict(self.chat_options)}
        length = self.processor_kwargs.get("model_max_length")
        optional = {
            "processing_kwargs": {key: value for key, value in processing.items() if value},
            "max_seq_length": length,
            "do_lower_case": self.lower_case or None,
            **{f"{task}_length": limit for task, limit in self.task_lengths.items()},
            "model_kwargs": self._kept("model_kwargs", self.model_kwargs.keys() & _NUMBERS),
            "processor_kwargs": self._kept("processor_kwargs", self.processor_kwargs.keys() - self._in_files()),
            "config_kwargs": self._kept("config_kwargs", self.config_kwargs.keys()),
        }
        return {
            "transformer_task": self.task,
            "modality_config": {"text": entry} | message,
            "module_output_name": self.writes,
        } | {key: value for key, value in optional.items() if value}

    def _in_files(self) -> set[str]:
        """The options of the tokenizer that are written in places of their own."""
        template = {"chat_template"} if isinstance(self.processor_kwargs.get("chat_template"), str) else set()
        return {"model_max_length"} | template

    def _kept(self, name: str, keys: AbstractSet[str]) -> dict[str, Any]:
        """Those of the options ``name`` that are saved, as JSON values."""
        options = getattr(self, name)
        kept = {key: value for key, value in options.items() if key in keys and key not in LOADING}
        return {key: _plain(value, f"{self.folder}: {name}: {key}") for key, value in kept.items()}


def _plain(value: Any, where: str) -> Any:
    """A value as JSON holds it, a type of torch by its name; raises ModelUnsupported for another object, which cannot be made again."""

    def named(other: Any) -> str:
        if type(other).__name__ == "dtype":
            return str(other).removeprefix("torch.")
        raise ModelUnsupported(
            f"{where}: a {type(other).__name__} cannot be saved; expected text, numbers, lists and objects of these"
        )

    return json.loads(json.dumps(value, default=named))


def load(files: ModuleFiles) -> Transformer:
    """Read the module's own configuration, under the names and keys of any version."""
    path = next((files.folder / name for name in _NAMES if is_there(files.folder / name)), None)
    saved = {} if path is None else read_json(path)
    if not isinstance(saved, dict):
        raise ModelBroken(f"{path}: expected a JSON object")
    saved = {_OLD_KEYS.get(key, key): value for key, value in saved.items()}
    length = saved.get("max_seq_length")
    if length is not None and "model_max_length" not in files.options.processor_kwargs and not is_length(length):
        raise ModelBroken(f"{path}: max_seq_length must be a positive whole number, found {length!r}")
    default = "fill-mask" if files.kind.endswith("MLMTransformer") else "feature-extraction"
    return make(files.folder, str(saved.get("transformer_task") or default), files.options, saved)


def make(folder: Path, task: str, options: LoadOptions, saved: Mapping[str, Any] | None = None) -> Transformer:
    """A transformer for a task; raises ModelUnsupported for a task or an option that this engine does not do.

    ``saved`` is the module's own configuration. Without one, for a plain folder, a chat template is used where there is one; with an old one,
    which does not say how texts are read, it is not.
    """
    modalities = {} if saved is None else saved.get("modality_config") or {"text": {}}
    saved = saved or {}
    if task not in TASKS:
        raise ModelUnsupported(
            f"{folder}: the transformer task {task!r} is not supported; there are {', '.join(TASKS)}"
        )
    _refuse(folder, saved)
    processor = {**_options(saved, "processor_kwargs"), **options.processor_kwargs}
    if saved.get("max_seq_length") is not None:
        processor.setdefault("model_max_length", saved["max_seq_length"])
    lengths = {task: saved.get(f"{task}_length") for task in ("query", "document")}
    text = _text_options(saved, folder)
    changes = {**_options(saved, "config_kwargs"), **options.config_kwargs}
    base = adapter_base(folder, options.hub)
    _check_parts(base or folder)
    return Transformer(
        folder,
        task,
        _read_config((base or folder) / "config.json", changes),
        str(saved.get("module_output_name") or TASKS[task]),
        lower_case=bool(saved.get("do_lower_case", False)),
        task_lengths={
            task: _length(length, f"{task}_length", folder) for task, length in lengths.items() if length is not None
        },
        model_kwargs={**_options(saved, "model_kwargs"), **options.model_kwargs},
        processor_kwargs=processor,
        config_kwargs=changes,
        text_kwargs=text,
        chat=("message" in modalities) if modalities else None,
        chat_format=str((modalities.get("message") or {}).get("format", "auto")),
        chat_options=dict((saved.get("processing_kwargs") or {}).get("chat_template") or {}),
        logits_to_keep=int(text.get("logits_to_keep", 1)),
        trust_remote_code=options.trust_remote_code,
        base=base,
    )


def _check_parts(folder: Path) -> None:
    """Raise ModelBroken where an index of weights in several files names one that is not in the folder: transformers would read it."""
    for path in sorted([*folder.glob("*.safetensors.index*.json"), *folder.glob("*.bin.index*.json")]):
        index = read_json(path)
        parts = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
            raise ModelBroken(f"{path}: expected an object with a weight_map from tensors to files")
        for part in sorted(set(parts.values())):
            if not part or part in (".", "..") or any(each in part for each in "/\\:"):
                raise ModelBroken(f"{path}: {part!r} is no name of a file in this folder")


def _read_config(path: Path, changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """A transformer's configuration; raises ModelBroken for what is none, and for sizes that no model has, there or in ``changes``."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise ModelBroken(f"{path}: expected a JSON object, found {type(config).__name__}")
    _check_sizes({**config, **changes}, f"{path}, changed by config_kwargs" if changes else str(path))
    return config


def _check_sizes(config: Mapping[str, Any], where: str) -> None:
    """Raise ModelBroken for a size that no model has, also in the configuration of a part of the model."""
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        sizes = {key: value for key, value in part.items() if key in _MOST and isinstance(value, (int, float))}
        for key, value in sizes.items():
            if value > _MOST[key]:
                raise ModelBroken(f"{where}: {key} is {value}, more than any model has")
            if value < 0 and key in (*_LAYERS, *_HEADS):
                raise ModelBroken(f"{where}: {key} is {value}, and must not be negative")


def _options(saved: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Saved options, without the one that only the caller may give."""
    return {name: value for name, value in (saved.get(key) or {}).items() if name != "trust_remote_code"}


def _text_options(saved: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """How texts are cut, as the checkpoint says."""
    text = dict((saved.get("processing_kwargs") or {}).get("text") or {})
    if text.get("max_length") is not None:
        text["max_length"] = _length(text["max_length"], "max_length of texts", folder)
    return text


def _length(length: object, name: str, where: Path) -> int:
    """A saved maximum length; raises ModelBroken for what is none."""
    if not is_length(length) or length == inf:
        raise ModelBroken(f"{where}: {name} must be a positive whole number, found {length!r}")
    return int(length)


def _refuse(folder: Path, saved: Mapping[str, Any]) -> None:
    if saved.get("query_expansion"):
        raise ModelUnsupported(
            f"{folder}: query expansion belongs to multi-vector models, which this engine does not run"
        )
    modalities = saved.get("modality_config")
    if modalities is None:
        return
    if "text" not in modalities and "message" not in modalities:
        raise ModelUnsupported(f"{folder}: the model reads {', '.join(modalities)}, not text")
    method = modalities.get("message", modalities.get("text")).get("method", "forward")
    if method != "forward":
        raise ModelUnsupported(f"{folder}: texts go through the model's {method!r}, which is not supported")
