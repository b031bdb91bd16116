"""The modules a checkpoint is made of: configuration and weights, no arithmetic and no torch.

One file per kind of module. Each holds a frozen, slotted dataclass with what the module's files say (weights as numpy arrays) and
``load(files: ModuleFiles)``, which reads them. ``KINDS`` maps the class name in ``modules.json`` to that file. What a module computes is in
the backends, looked up by the dataclass's type: ``st_core.backends.numpy.modules.RUNNERS`` and ``st_core.backends.torch.backend``.

A dataclass may offer, and the engine asks by these names:

``dimension``   the width of what it puts out, or None where it passes on the width it was given
``tokenizer``   a :class:`st_core.text.tokens.TextTokenizer`; the module can then be the first of a stack
``max_length``  the most tokens it reads of a text, or None for no limit

To add a module: its file here, its line in ``KINDS``, its function in a backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from st_core.checkpoint.files import last_name, read_json
from st_core.checkpoint.tensors import read_weights
from st_core.errors import ModelBroken, ModelUnsupported

__all__ = ["KINDS", "LoadOptions", "Module", "ModuleFiles", "load_module"]

Module = Any
"""One of the dataclasses in this package."""

KINDS: Mapping[str, str] = {
    "Asym": "router",
    "BM25": "bm25",
    "BoW": "bow",
    "CNN": "cnn",
    "Dense": "dense",
    "Dropout": "dropout",
    "LSTM": "lstm",
    "LayerNorm": "layer_norm",
    "LogitScore": "logit_score",
    "MLMTransformer": "transformer",
    "Normalize": "normalize",
    "Pooling": "pooling",
    "Router": "router",
    "SparseAutoEncoder": "sparse_auto_encoder",
    "SparseStaticEmbedding": "sparse_static_embedding",
    "SpladePooling": "splade_pooling",
    "StaticEmbedding": "static_embedding",
    "Transformer": "transformer",
    "WeightedLayerPooling": "weighted_layer_pooling",
    "WordEmbeddings": "word_embeddings",
    "WordWeights": "word_weights",
}
"""Class name in ``modules.json`` to the file of this package that loads it."""

_OURS = ("sentence_transformers.", "st_core.")


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What the caller asked of the loading, beyond the checkpoint's own files; ``hub`` is how the model of an adapter is fetched."""

    trust_remote_code: bool = False
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    processor_kwargs: Mapping[str, Any] = field(default_factory=dict)
    config_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hub: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """The folder of one module inside a checkpoint.

    ``root`` is the checkpoint, ``folder`` the module's own folder (the root itself for a module saved there), ``kind`` the class name that
    ``modules.json`` gives.
    """

    root: Path
    folder: Path
    kind: str
    options: LoadOptions = field(default_factory=LoadOptions)

    def config(self, name: str = "config.json") -> dict[str, Any]:
        """The module's configuration file; raises ModelBroken where it is missing or not a JSON object."""
        value = read_json(self.folder / name)
        if not isinstance(value, dict):
            raise ModelBroken(f"{self.folder / name}: expected a JSON object, found {type(value).__name__}")
        return value

    def weights(self) -> dict[str, Any]:
        """The module's tensors as numpy arrays, from ``model.safetensors`` or ``pytorch_model.bin``."""
        return read_weights(self.folder)

    def tokenizer_path(self) -> Path:
        """The module's ``tokenizer.json``, or the checkpoint's where the module has none of its own."""
        own, shared = self.folder / "tokenizer.json", self.root / "tokenizer.json"
        return shared if shared.is_file() and not own.is_file() else own


def load_module(type_name: str, files: ModuleFiles) -> Module:
    """Load one module; raises ModelUnsupported naming the type where this engine has no such module."""
    kind = last_name(type_name)
    if not type_name.startswith(_OURS) or kind not in KINDS:
        known = ", ".join(sorted(KINDS))
        what = "module" if type_name.startswith(_OURS) else "module of custom code"
        raise ModelUnsupported(f"{files.root}: {what} {type_name!r} is not supported; this engine runs {known}")
    try:
        return import_module(f"{__name__}.{KINDS[kind]}").load(files)
    except KeyError as error:
        raise ModelBroken(f"{files.folder}: {kind} lacks {error}") from error
    except OSError as error:
        raise ModelBroken(f"{files.folder}: a file of {kind} cannot be read: {error}") from error
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ModelBroken(f"{files.folder}: a file of {kind} holds something unexpected: {error}") from error
