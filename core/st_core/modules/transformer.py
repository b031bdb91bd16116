"""A transformer of the transformers library: its folder, its task and how its texts are read.

The weights are not read until a backend loads them, with the dtype and device that it selects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, ClassVar

from st_core.checkpoint.files import JsonObject, is_present, read_json, read_object
from st_core.checkpoint.find import adapter_base
from st_core.errors import ModelBroken, ModelUnsupported
from st_core.modules import LoadOptions, ModuleFiles, Parts, unchangeable
from st_core.text.tokens import is_length

__all__ = ["HEAD_FILES", "LOADING", "TASKS", "Transformer", "copied_files", "read_transformer", "saved_files"]

TASKS = {
    "feature-extraction": "token_embeddings",
    "fill-mask": "token_embeddings",
    "sequence-classification": "scores",
    "text-generation": "causal_logits",
}
"""Transformer tasks with the feature that each writes."""

HEAD_FILES = {"sparse": "sparse_linear.pt", "multi_vector": "colbert_linear.pt"}
"""Files of the heads of BGE-M3, stored in the folder of the transformer, by output."""

_OUTPUTS = {task: "last_hidden_state" if task == "feature-extraction" else "logits" for task in TASKS}

_NAMES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
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
"""Options of transformers' loaders about the origin of files, access and the machine; they do not affect results."""

_NUMBERS = frozenset(("dtype", "torch_dtype", "variant"))
"""Options of transformers' weight loader that affect results; all others concern the placement on a machine."""

_LAYERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"),
    *("num_encoder_layers", "num_decoder_layers"),
)
_HEADS = ("num_attention_heads", "num_key_value_heads", "num_heads", "n_heads", "n_head")
_LIMITS = {
    **dict.fromkeys(_LAYERS, 1_000),
    **dict.fromkeys(("hidden_size", "head_dim", "dim", "d_model", "d_kv", "n_embd", *_HEADS), 1 << 20),
    "max_position_embeddings": 1 << 26,
    "num_labels": 1 << 22,
    "n_positions": 1 << 15,
}
"""Maximum sizes, above those of any known model.

transformers allocates layers and tables of the configured sizes before it reads the weights, so that wrong sizes could
exhaust the memory.
"""

_INDEX, _PICKLED_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
_COPIED_SUFFIXES = frozenset(
    (".bpe", ".codes", ".jinja", ".json", ".model", ".py", ".safetensors", ".spm", ".tiktoken", ".tokenizer", ".txt")
)
_NOT_COPIED = frozenset(
    (
        *_NAMES,
        _PICKLED_INDEX,
        "modules.json",
        "config_sentence_transformers.json",
        "router_config.json",
        "quantization_ranges.json",
    )
)
"""Files in the folder of a transformer that are not copied, because they are written anew."""


@unchangeable
@dataclass(frozen=True, slots=True, eq=False)
class Transformer:
    """The arguments of transformers' loaders and the settings of the module itself.

    ``task`` is one of TASKS. ``task_lengths`` are lower maximum lengths of single tasks. ``lower_case`` lowercases
    texts before the tokenizer. ``chat`` is whether texts pass through the chat template; None means that they do if the
    model has a template. ``chat_format`` is "structured", "flat" or "auto", and ``chat_options`` are arguments of the
    template. A causal language model computes logits for the last ``logits_to_keep`` positions of a text; 0 means all
    positions. ``base`` is the folder of the base model where ``folder`` contains an adapter.
    """

    type_path: ClassVar[str] = "sentence_transformers.base.modules.transformer.Transformer"
    old_names: ClassVar[tuple[str, ...]] = ("MLMTransformer",)
    reads_text: ClassVar[bool] = True
    is_traceable: ClassVar[bool] = False
    requires: ClassVar[str | None] = None

    folder: Path
    task: str
    config: Mapping[str, Any]
    writes: str
    lower_case: bool = False
    task_lengths: Mapping[str, int] = field(default_factory=dict)
    model_kwargs: Mapping[str, object] = field(default_factory=dict)
    processor_kwargs: Mapping[str, object] = field(default_factory=dict)
    config_kwargs: Mapping[str, object] = field(default_factory=dict)
    text_kwargs: Mapping[str, object] = field(default_factory=dict)
    chat: bool | None = False
    chat_format: str = "auto"
    chat_options: Mapping[str, object] = field(default_factory=dict)
    logits_to_keep: int = 1
    trust_remote_code: bool = False
    base: Path | None = None

    @property
    def dimension(self) -> int | None:
        """The width of the token vectors: the hidden size, or the size of the vocabulary for fill-mask."""
        keys = ("vocab_size",) if self.task == "fill-mask" else ("hidden_size", "dim", "d_model", "n_embd")
        if self.task == "sequence-classification":
            return None
        return next((int(self.config[key]) for key in keys if isinstance(self.config.get(key), int)), None)

    @property
    def model_type(self) -> str | None:
        """The model family (``model_type``) in the configuration."""
        family = self.config.get("model_type")
        return None if family is None else str(family)

    @property
    def pads_right(self) -> bool:
        """Whether padding is on the right whatever the default of the tokenizer.

        Classification heads read the first position or search for the last token; as of transformers 5, only XLNet's
        head reads the last position.
        """
        return self.task == "sequence-classification" and self.config.get("model_type") != "xlnet"

    @property
    def requested_dtype(self) -> object:
        """The dtype in the options of transformers' loaders, None without one."""
        options = (self.model_kwargs, self.config_kwargs)
        return next(
            (each[key] for each in options for key in ("dtype", "torch_dtype") if each.get(key) is not None), None
        )

    @classmethod
    def load(cls, files: ModuleFiles) -> Transformer:
        """Return the module in a folder, whose configuration may have the file names and keys of any version."""
        path = next((files.folder / name for name in _NAMES if is_present(files.folder / name)), None)
        saved = JsonObject(files.folder, {}) if path is None else read_object(path)
        saved = JsonObject(saved.path, {_OLD_KEYS.get(key, key): value for key, value in saved.items()})
        length = saved.get("max_seq_length")
        if length is not None and "model_max_length" not in files.options.processor_kwargs and not is_length(length):
            raise saved.broken("max_seq_length", "a positive whole number")
        default = "fill-mask" if files.type_path.endswith("MLMTransformer") else "feature-extraction"
        return read_transformer(files.folder, saved.text("transformer_task", default), files.options, saved)

    def save(self) -> Parts:
        """Return the configuration and the files of the transformer, with pickled weights as safetensors.

        ``chat`` must not be None. Loader options are part of the configuration: sentence-transformers 6.2 does not
        write them but reads them, and the copied files need them to give the same results. Raises ModelUnsupported for
        options that JSON cannot express.
        """
        template = self.processor_kwargs.get("chat_template")
        pickles, index = _pickles(self.folder, is_adapter=self.base is not None)
        return Parts(
            {_NAMES[0]: self.configuration()},
            texts={"chat_template.jinja": template} if isinstance(template, str) else {},
            copies=copied_files(self.folder),
            pickles=pickles,
            index=index,
        )

    def configuration(self) -> dict[str, object]:
        """Return the content of the configuration of the module, with the names of sentence-transformers."""
        entry = {"method": "forward", "method_output_name": _OUTPUTS[self.task]}
        message = {"message": entry | {"format": self.chat_format}} if self.chat else {}
        processing = {"text": dict(self.text_kwargs), "chat_template": dict(self.chat_options)}
        optional = {
            "processing_kwargs": {key: value for key, value in processing.items() if value},
            "max_seq_length": self.processor_kwargs.get("model_max_length"),
            "do_lower_case": self.lower_case or None,
            **{f"{task}_length": limit for task, limit in self.task_lengths.items()},
            "model_kwargs": self._saved_options("model_kwargs", self.model_kwargs.keys() & _NUMBERS),
            "processor_kwargs": self._saved_options(
                "processor_kwargs", self.processor_kwargs.keys() - self._options_in_files()
            ),
            "config_kwargs": self._saved_options("config_kwargs", self.config_kwargs.keys()),
        }
        return {
            "transformer_task": self.task,
            "modality_config": {"text": entry} | message,
            "module_output_name": self.writes,
        } | {key: value for key, value in optional.items() if value}

    def _options_in_files(self) -> set[str]:
        """Return the names of the tokenizer options that the saved tokenizer files contain."""
        template = {"chat_template"} if isinstance(self.processor_kwargs.get("chat_template"), str) else set()
        return {"model_max_length"} | template

    def _saved_options(self, name: str, keys: AbstractSet[str]) -> dict[str, object]:
        """Return the loader options in the attribute ``name`` that are to be saved, as JSON values."""
        options: Mapping[str, object] = getattr(self, name)
        saved = {key: value for key, value in options.items() if key in keys and key not in LOADING}
        return {key: _as_json(value, f"{self.folder}: {name}: {key}") for key, value in saved.items()}


def _as_json(value: object, where: str) -> object:
    """Return a value as a JSON value, a torch dtype by its name; raise ModelUnsupported for other objects."""

    def named(other: object) -> str:
        if type(other).__name__ == "dtype":
            return str(other).removeprefix("torch.")
        raise ModelUnsupported(
            f"{where}: a {type(other).__name__} cannot be saved; expected text, numbers, lists and objects of these"
        )

    return json.loads(json.dumps(value, default=named))


def copied_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a transformer and its tokenizer, without pickles and files that are written anew."""
    return tuple(
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and (path.suffix in _COPIED_SUFFIXES or path.name in HEAD_FILES.values())
        and path.name not in _NOT_COPIED
    )


def saved_files(folder: Path) -> list[Path]:
    """Return all files of a transformer that saving it reads: those that are copied, and pickled weights."""
    weights = [path for name in ("pytorch_model*.bin*", "adapter_model.bin") for path in sorted(folder.glob(name))]
    return [*copied_files(folder), *weights]


def _pickles(folder: Path, *, is_adapter: bool) -> tuple[dict[str, Path], str | None]:
    """Return the pickled weights to convert, by new file name, and the name of the index that lists them.

    Raises ModelBroken for a folder without weights.
    """
    if is_adapter:
        name = "adapter_model.safetensors"
        return ({} if (folder / name).is_file() else {name: folder / "adapter_model.bin"}), None
    if any(folder.glob("model*.safetensors")):
        return {}, None
    whole, index = folder / "pytorch_model.bin", folder / _PICKLED_INDEX
    if whole.is_file():
        return {"model.safetensors": whole}, None
    if not index.is_file():
        raise ModelBroken(f"{folder}: no weights; expected model.safetensors or pytorch_model.bin")
    parts = sorted({str(part) for part in read_object(index).nested("weight_map").values()})
    names = (f"model-{number:05}-of-{len(parts):05}.safetensors" for number in range(1, len(parts) + 1))
    return dict(zip(names, (folder / part for part in parts), strict=True)), _INDEX


def read_transformer(
    folder: Path, task: str, options: LoadOptions, saved: Mapping[str, object] | None = None
) -> Transformer:
    """Return the transformer of a folder; raise ModelUnsupported for a task or an option that is not supported.

    ``saved`` is the module's own configuration. Without it, for a folder without a module list, a chat template is used
    if there is one. An old configuration, which has no ``modality_config``, disables the chat template.
    """
    saved = None if saved is None else JsonObject(folder, saved)
    modalities: Mapping[str, object] = {} if saved is None else saved.nested("modality_config") or {"text": {}}
    saved = saved or JsonObject(folder, {})
    if task not in TASKS:
        raise ModelUnsupported(f"{folder}: unsupported transformer task {task!r}; expected one of {', '.join(TASKS)}")
    _check_modalities(saved)
    processor = {**_options(saved, "processor_kwargs"), **options.processor_kwargs}
    if saved.get("max_seq_length") is not None:
        processor.setdefault("model_max_length", saved["max_seq_length"])
    lengths = {each: f"{each}_length" for each in ("query", "document")}
    text = _text_options(saved)
    changes = {**_options(saved, "config_kwargs"), **options.config_kwargs}
    base = adapter_base(folder, options.hub)
    _check_index_files(base or folder)
    return Transformer(
        folder,
        task,
        _read_config((base or folder) / "config.json", changes),
        saved.text("module_output_name", TASKS[task]),
        lower_case=saved.boolean("do_lower_case", default=False),
        task_lengths={each: _length(saved, key) for each, key in lengths.items() if saved.get(key) is not None},
        model_kwargs={**_options(saved, "model_kwargs"), **options.model_kwargs},
        processor_kwargs=processor,
        config_kwargs=changes,
        text_kwargs=dict(text),
        chat=("message" in modalities) if modalities else None,
        chat_format=saved.nested("modality_config").nested("message").text("format", "auto"),
        chat_options=dict(saved.nested("processing_kwargs").nested("chat_template")),
        logits_to_keep=text.integer("logits_to_keep", 1),
        trust_remote_code=options.trust_remote_code,
        base=base,
    )


def _check_index_files(folder: Path) -> None:
    """Raise ModelBroken where an index of sharded weights names a file outside the folder.

    transformers would read such a file.
    """
    for path in sorted([*folder.glob("*.safetensors.index*.json"), *folder.glob("*.bin.index*.json")]):
        index = read_json(path)
        parts = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
            raise ModelBroken(f"{path}: expected an object with a weight_map from tensors to files")
        for part in sorted(set(parts.values())):
            if not part or part in (".", "..") or any(each in part for each in "/\\:"):
                raise ModelBroken(f"{path}: expected names of files in this folder, got {part!r}")


def _read_config(path: Path, changes: Mapping[str, object]) -> Mapping[str, object]:
    """Return the configuration of a transformer; raise ModelBroken for impossible sizes in it or in ``changes``."""
    config = read_object(path).content
    _check_sizes({**config, **changes}, f"{path}, changed by config_kwargs" if changes else str(path))
    return config


def _check_sizes(config: Mapping[str, object], where: str) -> None:
    """Raise ModelBroken for a size above the maximum, in a configuration or in its nested configurations."""
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key, value in part.items():
            if key not in _LIMITS or not isinstance(value, (int, float)):
                continue
            if value > _LIMITS[key]:
                raise ModelBroken(f"{where}: {key}: expected at most {_LIMITS[key]}, got {value}")
            if value < 0 and key in (*_LAYERS, *_HEADS):
                raise ModelBroken(f"{where}: {key}: expected a number of at least 0, got {value}")


def _options(saved: JsonObject, key: str) -> dict[str, object]:
    """Return saved loader options, without ``trust_remote_code``, which only the caller may set."""
    return {name: value for name, value in saved.nested(key).items() if name != "trust_remote_code"}


def _text_options(saved: JsonObject) -> JsonObject:
    """Return the options with which the checkpoint truncates texts."""
    text = dict(saved.nested("processing_kwargs").nested("text"))
    options = JsonObject(saved.path, text)
    if text.get("max_length") is not None:
        text["max_length"] = _length(options, "max_length")
    return options


def _length(config: JsonObject, key: str) -> int:
    """Return a saved maximum length; raise ModelBroken unless it is a positive whole number."""
    length = config.get(key)
    if not is_length(length) or length == inf:
        raise config.broken(key, "a positive whole number")
    return int(length)


def _check_modalities(saved: JsonObject) -> None:
    """Raise ModelUnsupported for a model that does not read text with a plain forward pass."""
    folder = saved.path
    if saved.get("query_expansion"):
        raise ModelUnsupported(f"{folder}: query expansion is for multi-vector models, which are not supported")
    if saved.get("modality_config") is None:
        return
    modalities = saved.nested("modality_config")
    if "text" not in modalities and "message" not in modalities:
        raise ModelUnsupported(f"{folder}: unsupported modalities {', '.join(modalities)}; expected text")
    name = "message" if "message" in modalities else "text"
    if not isinstance(modalities.get(name), dict):
        raise modalities.broken(name, "an object")
    method = modalities.nested(name).text("method", "forward")
    if method != "forward":
        raise ModelUnsupported(f"{folder}: unsupported method {method!r} for texts; expected 'forward'")
