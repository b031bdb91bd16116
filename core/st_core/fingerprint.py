"""Describe models by name, width, and hashes that decide whether two models give the same vectors.

A fingerprint has one hash for each component, so that a message can name the components that differ:

``weights``          the tensors of the document stack, regardless of the files and names they are stored under
``graph``            replaces ``weights`` for a model that has only a repository graph: the file of that graph
``tokenizer``        the vocabulary, and the ids of a few probe texts
``configuration``    the modules of the document stack, with the settings that affect their results
``prompts``          all prompts of the model, and the name of the default prompt
``precision``        the dtype of the computation
``max_active_dims``  how many weights a sparse vector keeps; only sparse models have this component

``weights``, ``tokenizer`` and ``configuration`` cover the document stack only, so that an inference-free query encoder
matches its document model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from json.encoder import encode_basestring
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_core.backends.numpy.modules import can_run
from st_core.checkpoint.files import last_name
from st_core.errors import ModelBroken
from st_core.model import Model
from st_core.modules.stack import flatten
from st_core.modules.transformer import Transformer
from st_core.protocols import ModelKind, ModelRef
from st_core.text.tokens import TextTokenizer
from st_core.vectors import SparseMatrix, SparseVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.modules import Module
    from st_core.text.tokens import AnyTokenizer

__all__ = ["Fingerprint", "describe"]

PROBE = "What is near what?"
PROBES = (
    "Straße naïve CAFÉ",
    "two  spaces, don't (stop)!",
    "日本語 русский עברית 🙂",
    "x" * 40,
    "3.14 e-mail@example.org",
)

# Keys of config.json that affect the vectors. Other keys depend on the version of transformers that wrote the file.
_CONFIG_KEYS = (
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)
_KINDS = {
    "CrossEncoder": ModelKind.RERANKER,
    "SentenceTransformer": ModelKind.DENSE,
    "SparseEncoder": ModelKind.SPARSE,
}


class Fingerprint(Mapping[str, str]):
    """Hashes by component, each computed on first use.

    Safe in threads; two threads may compute the same hash twice.
    """

    def __init__(self, components: Mapping[str, Callable[[], str]]) -> None:
        """Store the functions that compute the hashes, by component."""
        self._components = dict(components)
        self._known: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        """Return the hash of a component, computing it on first use."""
        if key not in self._known:
            self._known[key] = self._components[key]()
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._components)

    def __len__(self) -> int:
        """Return the number of components."""
        return len(self._components)

    def __repr__(self) -> str:
        return f"Fingerprint({', '.join(self._components)})"

    def __deepcopy__(self, _memo: object) -> dict[str, str]:
        return dict(self)

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(self),)


def describe(model: object) -> ModelRef:
    """Return the :class:`ModelRef` of a model: the description of it that is stored with a collection.

    The fingerprint is computed on first use. A model of another library has no fingerprint; if it is an encoder, it
    encodes a probe text, to determine the kind and the width of its vectors. The server of a remote model describes it
    if it is one of this package. A ModelRef is returned unchanged. Raises TypeError for an object that has neither the
    methods encode_query and encode_document nor the method predict.
    """
    if isinstance(model, ModelRef):
        return model
    if isinstance(ref := getattr(model, "ref", None), ModelRef):  # a remote model, described by its server
        return ref
    return _describe_own(model) if isinstance(model, Model) else _describe_foreign(model)


def _describe_own(model: Model) -> ModelRef:
    engine = model._current()  # noqa: SLF001 - one package
    task = "document" if "document" in engine.tasks() else engine.tasks()[0]
    stack = flatten(engine.modules, task)
    outline = engine.outline(task)
    kind = _KINDS[model.family]
    limit = engine.max_length(task)
    width = getattr(model, "num_labels", 1) if kind is ModelKind.RERANKER else _width(model)
    precision = outline.precision
    prompts = {name: text for name, text in model.prompts.items() if text}
    shape = [_configuration(module) for module in stack] + [limit, width]
    keep = getattr(model, "max_active_dims", None)
    return ModelRef(
        name=model.checkpoint.name,
        kind=kind,
        dimension=width,
        revision=model.checkpoint.revision,
        max_tokens=limit,
        prompts=prompts,
        precision=precision,
        backend=_backend(model),
        truncate_dim=getattr(model, "truncate_dim", None),
        max_active_dims=keep,
        fingerprint=Fingerprint(
            {
                **_weights_component(stack, outline.repository_graph),
                "tokenizer": lambda: _tokenizer(outline.tokenizer),
                "configuration": lambda: _hash(_canonical(shape)),
                "prompts": lambda: _hash(_canonical([prompts, model.default_prompt_name])),
                "precision": lambda: _hash(precision.encode()),
                **({"max_active_dims": lambda: _hash(_canonical(keep))} if kind is ModelKind.SPARSE else {}),
            }
        ),
    )


def _backend(model: Model) -> str | None:
    """Return the backend of a model, None if numpy runs all of its stacks."""
    engine = model._engine  # noqa: SLF001
    stacks = [flatten(engine.modules, task) for task in engine.tasks()]
    return None if all(can_run(stack) for stack in stacks) else engine.plan.backend


def _weights_component(stack: Sequence[Module], graph: Path | None) -> dict[str, Callable[[], str]]:
    """Return the component ``weights``, or ``graph`` for a model that has a repository graph but no weights.

    A graph's hash cannot be compared with the hash of the weights, so the components have different names.
    """
    first = stack[0]
    if graph is not None and isinstance(first, Transformer) and not _weight_files(first.folder):
        return {"graph": lambda: _hash(graph.read_bytes())}
    return {"weights": lambda: _weights(stack)}


def _width(model: Any) -> int:
    width = model.get_embedding_dimension()
    return int(width) if width is not None else int(model.encode_document([PROBE]).shape[1])


def _hash(data: bytes) -> str:
    from xxhash import xxh3_128_hexdigest

    return xxh3_128_hexdigest(data)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()


def _configuration(module: Module) -> dict[str, object]:
    """Return the settings of a module that affect its result."""
    shape: dict[str, object] = {"kind": last_name(module.type_path)}
    if isinstance(module, Transformer):
        config = {**module.config, **module.config_kwargs}
        return shape | {key: config.get(key) for key in _CONFIG_KEYS} | {"task": module.task}
    simple = (str, int, float, bool, tuple, type(None))
    for each in fields(module):
        value = getattr(module, each.name)
        if isinstance(value, simple):
            shape[each.name] = list(value) if isinstance(value, tuple) else value
    return shape


def _weights(stack: Iterable[Module]) -> str:
    """Return the hash of all tensors of a stack.

    Names of tensors are left out, because they differ between the file formats of one model.
    """
    digests: list[str] = []
    for module in stack:
        if isinstance(module, Transformer):
            digests += _file_digests(module.base or module.folder)
            digests += _file_digests(module.folder) if module.base is not None else []
        else:
            values = (getattr(module, each.name) for each in fields(module))
            digests += [_digest(array) for value in values for array in _arrays(value)]
    return _hash("".join(sorted(set(digests))).encode())


def _arrays(value: object) -> list[NDArray[np.generic]]:
    """Return the arrays in the value of a module's field: the value itself, or entries of a mapping or a tuple."""
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
    return [each for each in entries if isinstance(each, np.ndarray)]


def _digest(array: NDArray[np.generic]) -> str:
    return _hash(f"{array.dtype.name}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())


_WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin", "adapter_model*.safetensors", "adapter_model*.bin")


def _weight_files(folder: Path) -> list[Path]:
    return next(filter(None, (sorted(folder.glob(pattern)) for pattern in _WEIGHT_FILES)), [])


def _file_digests(folder: Path) -> list[str]:
    files = _weight_files(folder)
    digests: set[str] = set()
    for path in files:
        stamp = path.stat()
        digests |= _digests_of(path, stamp.st_size, stamp.st_mtime_ns)
    return sorted(digests)


@lru_cache(maxsize=64)
def _digests_of(path: Path, _size: int, _changed: int) -> frozenset[str]:
    """Return the hashes of the floating-point tensors of a file.

    Integer tensors are counters and positions, not weights. Size and time of change are part of the cache key only.
    """
    read = _safetensors if path.suffix == ".safetensors" else _pickled
    return frozenset(
        _hash(f"{kind}{shape}".encode() + data) for kind, shape, data in read(path) if kind.startswith(("F", "BF"))
    )


_Tensor = tuple[str, tuple[int, ...], bytes]


def _safetensors(path: Path) -> Iterator[_Tensor]:
    """Yield type, shape and bytes of each tensor of a safetensors file.

    The file consists of the length of the header in 8 bytes, a JSON header with the offsets of the tensors, and data.
    """
    data = np.memmap(path, np.uint8, mode="r")
    size = int.from_bytes(data[:8].tobytes(), "little")
    try:
        header = json.loads(data[8 : 8 + size].tobytes())
    except ValueError as error:
        raise ModelBroken(f"{path}: not a readable safetensors file: {error}") from error
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            yield entry["dtype"], tuple(entry["shape"]), data[8 + size + start : 8 + size + stop].tobytes()


_NAMES = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.float64": "F64"}


def _pickled(path: Path) -> Iterator[_Tensor]:
    import torch

    for tensor in torch.load(path, map_location="cpu", weights_only=True).values():
        kind = _NAMES.get(str(tensor.dtype), "I")
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if kind != "I" else b""
        yield kind, tuple(tensor.shape), raw


def _tokenizer(tokenizer: AnyTokenizer) -> str:
    """Return the hash of a tokenizer's vocabulary and of its ids of the probe texts."""
    if isinstance(tokenizer, TextTokenizer):
        vocabulary = _shared_vocabulary(tokenizer.backend)
    else:
        vocabulary = _vocabulary(tokenizer.shown)
    probes = [row.tolist() for row in tokenizer.tokenize(list(PROBES), None).ids]
    return _hash(b"[" + vocabulary + b", " + _canonical(probes) + b"]")


def _vocabulary(backend: Any) -> bytes:
    """Return the pairs of a token and its id, by id, as :func:`_canonical` writes them, in a third of the time."""
    known = backend.get_vocab()
    tokens, ids = list(known), np.fromiter(known.values(), np.int64, len(known))
    order = np.argsort(ids, kind="stable")
    pairs = zip(order.tolist(), ids[order].tolist(), strict=True)
    return f"[{', '.join(f'[{encode_basestring(tokens[at])}, {index}]' for at, index in pairs)}]".encode()


_shared_vocabulary = lru_cache(maxsize=2)(_vocabulary)
"""``_vocabulary`` of tokenizers that do not change and that several models share, such as the built-in ones."""


def _describe_foreign(model: object) -> ModelRef:
    prompts = {str(name): str(text) for name, text in (getattr(model, "prompts", None) or {}).items() if text}
    limit = getattr(model, "max_seq_length", None)
    common: dict[str, Any] = {
        "name": _name(model),
        "max_tokens": int(limit) if isinstance(limit, int) and limit < 10**9 else None,
        "prompts": prompts,
        "truncate_dim": _positive(model, "truncate_dim"),
        "max_active_dims": _positive(model, "max_active_dims"),
    }
    if hasattr(model, "encode_document") and hasattr(model, "encode_query"):
        vectors = model.encode_document([PROBE])
        kind = ModelKind.SPARSE if _is_sparse(vectors) else ModelKind.DENSE
        return ModelRef(kind=kind, dimension=int(vectors.shape[-1]), **common)
    if hasattr(model, "predict"):
        return ModelRef(kind=ModelKind.RERANKER, dimension=int(getattr(model, "num_labels", 1) or 1), **common)
    raise TypeError(
        f"expected a model with encode_query and encode_document, or with predict, got a {type(model).__name__}"
    )


def _positive(model: object, name: str) -> int | None:
    """Return the value of an attribute if it is a positive integer, else None."""
    value = getattr(model, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _is_sparse(vectors: object) -> bool:
    return (
        isinstance(vectors, (SparseMatrix, SparseVector))
        or hasattr(vectors, "tocsr")
        or bool(getattr(vectors, "is_sparse", False))
    )


def _name(model: object) -> str:
    """Return the name of a model of another library, or the name of its class if the model has no name."""
    inner = getattr(model, "transformers_model", None)
    card = getattr(model, "model_card_data", None)
    for owner, attribute in (
        (model, "model_name_or_path"),
        (model, "name_or_path"),
        (card, "base_model"),
        (inner, "name_or_path"),
        (model, "name"),
    ):
        value = getattr(owner, attribute, None)
        if isinstance(value, str) and value:
            return value
    return f"{type(model).__module__}.{type(model).__qualname__}"
