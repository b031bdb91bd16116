"""The import paths of sentence-transformers 6.2 that are no files of this package.

A path such as ``st_core.sentence_transformer.modules.pooling`` becomes a module with the names of another module when
it is imported. A path that sentence-transformers has deprecated is imported with a DeprecationWarning. A path of what
this package does not have raises ModuleNotFoundError with what to use instead.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from st_core.renamed import warn_of_old_name

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:  # importlib.abc imports tempfile, zipfile and more in 25 ms, half of the import of st_core
    Loader = MetaPathFinder = object

__all__ = ["install"]

_ROOT = __name__.partition(".")[0]

_IN_PACKAGES = {
    "base.modules": "dense input_module module normalize router transformer",
    "cross_encoder.modules": "logit_score",
    "sentence_transformer.modules": (
        "bow clip_model cnn dropout layer_norm lstm pooling static_embedding weighted_layer_pooling word_embeddings "
        "word_weights"
    ),
    "sparse_encoder.modules": "mlm_transformer sparse_auto_encoder sparse_static_embedding splade_pooling",
}
"""The files of module classes, which all are in ``st_core.models``, by package."""

_CURRENT = {f"{package}.{name}": "models" for package, names in _IN_PACKAGES.items() for name in names.split()} | {
    f"{package}.model_card": "model_card"
    for package in ("base", "cross_encoder", "sentence_transformer", "sparse_encoder")
}
"""The paths of what exists in another file, by the file."""

_TRAINED = ("cross_encoder", "sentence_transformer", "sparse_encoder")
_LOSSES = {"cross_encoder": "reranking", "sentence_transformer": "dense", "sparse_encoder": "sparse"}
_CURRENT |= {
    "base.sampler": "training.samplers",
    "sampler": "training.samplers",
    "sparse_encoder.callbacks": "training.callbacks",
    "sparse_encoder.callbacks.splade_callbacks": "training.callbacks",
    "trainer": "training.trainer",
    "training_args": "training.arguments",
    **{f"{package}.evaluation": "evaluation" for package in _TRAINED},
    **{f"{package}.losses": f"training.losses.{_LOSSES[package]}" for package in _TRAINED},
    **{f"{package}.trainer": "training.trainer" for package in _TRAINED},
    **{f"{package}.training_args": "training.arguments" for package in _TRAINED},
}

_OF_MODELS = (
    "Asym BoW CLIPModel CNN Dense Dropout InputModule LSTM LayerNorm Module Normalize Pooling Router StaticEmbedding "
    "Transformer WeightedLayerPooling WordEmbeddings WordWeights"
)
_OF_SPARSE = "MLMTransformer SparseAutoEncoder SparseStaticEmbedding SpladePooling"
_DEPRECATED = {
    **{f"models.{name}": "models" for name in _OF_MODELS.split()},
    "SentenceTransformer": "sentence_transformer",
    "cross_encoder.CrossEncoder": "cross_encoder",
    "sentence_transformer.modules.normalize": "models",
    "similarity_functions": "util.similarity",
    "sparse_encoder.SparseEncoder": "sparse_encoder",
    "sparse_encoder.models": "sparse_encoder.modules",
    **{f"sparse_encoder.models.{name}": "models" for name in _OF_SPARSE.split()},
}

_TRAINING = "a training reads lists of mappings and tokenizes them itself; pass them to a trainer of st_core"
_MULTI_VECTOR = (
    "models of one vector per token are not supported, except BGE-M3's; import it from sentence_transformers"
)
_ENDINGS: Mapping[str, str] = {
    **dict.fromkeys(("data_collator", "datasets", "fit_mixin", "peft_mixin", "readers"), _TRAINING),
    "multi_vector_encoder": _MULTI_VECTOR,
    "search_engines": "search engines are the task of st_connectors; see st_connectors.Index",
    "tokenizer": "tokenizers of words are read from checkpoints; import the classes from sentence_transformers",
}
"""Why a path does not exist, by the name of the package or module."""

_PACKAGES = ("base", "cross_encoder", "sentence_transformer", "sparse_encoder")


def install() -> None:
    """Make the paths importable, after all files of the package."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder):
    """Finds the paths of this file."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the specification of a path, None for a path that sentence-transformers does not have either."""
        root, _, name = fullname.partition(".")
        if root != _ROOT:
            return None
        if name in _DEPRECATED:
            warn_of_old_name(f"import from {fullname}: the path is now {_ROOT}.{_DEPRECATED[name]}")
        source = _CURRENT.get(name) or _DEPRECATED.get(name)
        if source is not None:
            return ModuleSpec(fullname, _Names(f"{_ROOT}.{source}"), is_package=True)
        reason = _reason(name)
        if reason is not None:
            raise ModuleNotFoundError(f"no module {fullname}: {reason}", name=fullname)
        return None


def _reason(name: str) -> str | None:
    """Return why a path of sentence-transformers does not exist, None for a path that it does not have."""
    parts = [part for part in name.split(".") if part not in _PACKAGES]
    return _ENDINGS.get(parts[-1]) if len(parts) == 1 or parts[:-1] == ["modules"] else None


class _Names(Loader):
    """Loads a module with the names of another module."""

    def __init__(self, source: str) -> None:
        """Store the path of the other module."""
        self._source = source

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return an empty module, whose parent keeps a class of the same name."""
        parent, _, name = spec.name.rpartition(".")
        _keep_class(sys.modules[parent], name)
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Let the module read the names of the other module."""
        source = import_module(self._source)
        module.__doc__ = source.__doc__
        vars(module)["__all__"] = list(getattr(source, "__all__", ()))
        vars(module)["__getattr__"] = partial(getattr, source)


class _KeepsClasses(ModuleType):
    """A module in which the import of a submodule does not replace a class."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and _has_class(self, name)):
            super().__setattr__(name, value)


def _keep_class(parent: ModuleType, name: str) -> None:
    """Keep a class of a module where a submodule of the same name is imported, as in ``models.Pooling``."""
    if _has_class(parent, name):
        parent.__class__ = _KeepsClasses


def _has_class(module: ModuleType, name: str) -> bool:
    try:
        return isinstance(getattr(module, name, None), type)
    except ImportError:  # a class that does not exist here
        return False
