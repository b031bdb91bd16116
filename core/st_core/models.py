"""Module classes with the names and arguments of sentence-transformers, to build a model of modules.

A call returns a frozen module of :mod:`st_core.modules`, and ``isinstance`` recognises these modules::

    transformer = Transformer("path/to/encoder")
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")])

The same classes are in the ``modules`` of :mod:`st_core.sentence_transformer`, :mod:`st_core.sparse_encoder` and
:mod:`st_core.cross_encoder`. torch is imported for random weights only.
"""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, Unpack

import numpy as np

from st_core.checkpoint.files import read_object
from st_core.checkpoint.find import find_checkpoint
from st_core.errors import ModelUnsupported, missing_extra
from st_core.module_view import module_of
from st_core.modules import (
    LoadOptions,
    ModuleFiles,
    dense,
    layer_norm,
    load_module,
    logit_score,
    normalize,
    pooling,
    router,
    sparse_static_embedding,
    splade_pooling,
    static_embedding,
)
from st_core.modules import dropout as _dropout
from st_core.modules import transformer as transformers_model
from st_core.renamed import accepts_old_names
from st_core.text.tokens import finite, load_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from st_core.modules import Module
    from st_core.text.tokens import TextTokenizer

    class _TransformerOptions(TypedDict, total=False):
        """The keyword arguments of Transformer."""

        transformer_task: str
        model_kwargs: Mapping[str, object] | None
        processor_kwargs: Mapping[str, object] | None
        config_kwargs: Mapping[str, object] | None
        max_seq_length: int | None
        do_lower_case: bool
        backend: str


__all__ = [
    "Asym",
    "Dense",
    "Dropout",
    "LayerNorm",
    "LogitScore",
    "MLMTransformer",
    "Normalize",
    "Pooling",
    "Router",
    "SparseStaticEmbedding",
    "SpladePooling",
    "StaticEmbedding",
    "Transformer",
]

__path__: list[str] = []  # submodules are in st_core.import_paths

logger = logging.getLogger(__name__)


_HUB = ("local_files_only", "revision", "token")
"""Options that a Transformer passes on to the search for its folder."""


class _Documented(type):
    """The type of classes whose calls return modules of another class."""

    of: type
    build: Callable[..., Module]

    def __call__(cls, *args: object, **kwargs: object) -> Module:
        return cls.build(*args, **kwargs)

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, cls.of)


class _Class(metaclass=_Documented):
    """A class whose calls return modules."""

    if TYPE_CHECKING:  # what a type checker is to see of the modules that calls return

        def __init__(self, *args: object, **kwargs: object) -> None: ...

        def __getattr__(self, name: str) -> Any: ...


class Transformer(_Class):
    """A transformer in a folder or on the Hub."""

    of = transformers_model.Transformer

    @staticmethod
    @accepts_old_names(
        {
            "cache_dir": "model_kwargs.cache_dir",
            "config_args": "config_kwargs",
            "model_args": "model_kwargs",
            "tokenizer_args": "processor_kwargs",
        }
    )
    def build(
        model_name_or_path: str | PathLike[str],
        *,
        transformer_task: str = "feature-extraction",
        model_kwargs: Mapping[str, object] | None = None,
        processor_kwargs: Mapping[str, object] | None = None,
        config_kwargs: Mapping[str, object] | None = None,
        max_seq_length: int | None = None,
        do_lower_case: bool = False,
        backend: str = "torch",
        module_output_name: str | None = None,
        query_length: int | None = None,
        document_length: int | None = None,
    ) -> transformers_model.Transformer:
        """Return the module; its weights are read when a model of it is loaded.

        ``backend`` is that of the model. ``model_kwargs`` may name where on the Hub the model is: ``cache_dir``,
        ``revision``, ``token`` and ``local_files_only``. Raises the errors of finding and reading the folder.
        """
        if backend != "torch":
            raise ModelUnsupported(f"a Transformer has no backend of its own: pass backend={backend!r} to the model")
        options = LoadOptions(
            model_kwargs=dict(model_kwargs or {}),
            processor_kwargs=dict(processor_kwargs or {}),
            config_kwargs=dict(config_kwargs or {}),
        )
        hub: dict[str, Any] = {name: options.model_kwargs[name] for name in _HUB if name in options.model_kwargs}
        if "cache_dir" in options.model_kwargs:
            hub["cache_folder"] = options.model_kwargs["cache_dir"]
        folder, _, _ = find_checkpoint(fspath(model_name_or_path), organisation="sentence-transformers", **hub)
        saved: dict[str, object] = {
            "do_lower_case": do_lower_case or None,
            "document_length": document_length,
            "max_seq_length": max_seq_length,
            "module_output_name": module_output_name,
            "query_length": query_length,
        }
        given = {name: value for name, value in saved.items() if value is not None}
        return transformers_model.read_transformer(folder, transformer_task, options, given or None)


class MLMTransformer(_Class):
    """A transformer with its masked-language head."""

    of = transformers_model.Transformer

    @staticmethod
    def build(
        model_name_or_path: str | PathLike[str], **options: Unpack[_TransformerOptions]
    ) -> transformers_model.Transformer:
        """Return a Transformer for the task "fill-mask"; the options are those of Transformer."""
        options.setdefault("transformer_task", "fill-mask")
        return Transformer.build(model_name_or_path, **options)


class Pooling(_Class):
    """Pooling of token vectors."""

    of = pooling.Pooling

    @staticmethod
    def build(
        embedding_dimension: int | None,
        pooling_mode: str | Sequence[str] = "mean",
        include_prompt: bool = True,
    ) -> pooling.Pooling:
        """Return the module; raise ValueError for an unknown mode."""
        modes = (pooling_mode,) if isinstance(pooling_mode, str) else tuple(pooling_mode)
        unknown = [mode for mode in modes if mode not in pooling.MODES]
        if unknown or not modes:
            raise ValueError(f"unknown pooling mode {unknown}; expected one of {', '.join(pooling.MODES)}")
        return pooling.Pooling(embedding_dimension, modes, include_prompt)


class Normalize(_Class):
    """Scaling to unit length."""

    of = normalize.Normalize

    @staticmethod
    def build(
        module_input_name: str = "sentence_embedding", module_output_name: str | None = None
    ) -> normalize.Normalize:
        """Return the module."""
        return normalize.Normalize(module_input_name, module_output_name or module_input_name)


class Dropout(_Class):
    """Dropout, which acts in training only."""

    of = _dropout.Dropout

    @staticmethod
    def build(dropout: float = 0.2) -> _dropout.Dropout:  # noqa: ARG004 - concerns training
        """Return the module, which does not keep the rate."""
        return _dropout.Dropout()


class LayerNorm(_Class):
    """Layer normalisation, at first with the scale 1 and the bias 0."""

    of = layer_norm.LayerNorm

    @staticmethod
    def build(dimension: int) -> layer_norm.LayerNorm:
        """Return the module."""
        return layer_norm.LayerNorm(np.ones(dimension, np.float32), np.zeros(dimension, np.float32))


class Dense(_Class):
    """A product with a matrix, a bias and an activation."""

    of = dense.Dense

    @staticmethod
    def build(  # noqa: PLR0917 - the order of sentence-transformers
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_function: object = "",
        init_weight: object = None,
        init_bias: object = None,
        module_input_name: str = "sentence_embedding",
        module_output_name: str | None = None,
        use_residual: bool = False,
    ) -> dense.Dense:
        """Return the module; without ``init_weight`` its weights are random, drawn as torch does, with a warning.

        ``activation_function`` is a module of torch, by default Tanh; None is the identity.
        """
        is_random = init_weight is None or (bias and init_bias is None)
        weights = _random_linear(in_features, out_features, bias=bias) if is_random else {}
        residual = use_residual and in_features != out_features
        return dense.Dense(
            weights["weight"] if init_weight is None else _array(init_weight),
            None if not bias else weights["bias"] if init_bias is None else _array(init_bias),
            _random_linear(in_features, out_features, bias=False)["weight"] if residual else None,
            use_residual,
            _activation(activation_function),
            module_input_name,
            module_output_name or module_input_name,
        )


def _random_linear(width: int, out: int, *, bias: bool) -> dict[str, NDArray[np.float32]]:
    """Return the parameters of a new linear layer of torch, by name."""
    try:
        from torch.nn import Linear
    except ImportError as error:
        raise missing_extra("torch", "random weights of a Dense") from error
    logger.warning("Dense(%d, %d) is untrained: its weights are random; train it, or pass init_weight", width, out)
    return {name: value.detach().numpy().copy() for name, value in Linear(width, out, bias=bias).named_parameters()}


def _array(values: object) -> NDArray[np.float32]:
    values = values.detach().float().cpu().numpy() if hasattr(values, "detach") else values
    return np.array(values, np.float32)


def _activation(function: object) -> str:
    """Return the dotted path of an activation; raise ModelUnsupported for one that has no path in torch."""
    if function == "":
        return dense.TANH
    if function is None:
        return "torch.nn.modules.linear.Identity"
    path = f"{type(function).__module__}.{type(function).__qualname__}"
    if not path.startswith("torch."):
        raise ModelUnsupported(f"the activation {function!r} cannot be saved by name; expected a module of torch.nn")
    return path


class StaticEmbedding(_Class):
    """The mean of one vector per token."""

    of = static_embedding.StaticEmbedding

    @staticmethod
    def build(
        tokenizer: object, embedding_weights: object = None, embedding_dim: int | None = None
    ) -> static_embedding.StaticEmbedding:
        """Return the module of a tokenizer (of tokenizers or transformers) and a table [V, d].

        With ``embedding_dim`` in place of the table, its weights are random, drawn as torch does, with a warning.
        """
        own = _tokenizer(tokenizer)
        if embedding_weights is not None:
            return static_embedding.StaticEmbedding(own, _array(embedding_weights))
        if embedding_dim is None:
            raise ValueError("StaticEmbedding needs embedding_weights or embedding_dim")
        try:
            from torch.nn import EmbeddingBag
        except ImportError as error:
            raise missing_extra("torch", "random weights of a StaticEmbedding") from error
        logger.warning("StaticEmbedding is untrained: its weights are random; train it, or pass embedding_weights")
        return static_embedding.StaticEmbedding(
            own, EmbeddingBag(own.vocabulary_size, embedding_dim).weight.detach().numpy().copy()
        )

    @staticmethod
    def from_model2vec(model_id_or_path: str) -> Module:
        """Return the table of a model2vec model in a folder or on the Hub."""
        folder, _, _ = find_checkpoint(model_id_or_path, organisation="minishlab")
        return load_module(ModuleFiles(folder, folder, static_embedding.StaticEmbedding.type_path))

    @staticmethod
    def from_distillation(*_args: object, **_kwargs: object) -> NoReturn:
        """Raise ModelUnsupported: distil with model2vec, and load its result with ``from_model2vec``."""
        raise ModelUnsupported(
            "distillation is a task of model2vec: call model2vec.distill.distill, save its model, and load that with "
            "StaticEmbedding.from_model2vec"
        )


def _tokenizer(tokenizer: object) -> TextTokenizer:
    """Return the tokenizer of static modules that corresponds to one of tokenizers or transformers."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        raise TypeError(f"the tokenizer is a {type(tokenizer).__name__}; expected one of tokenizers or transformers")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(backend.to_str(), encoding="utf-8")
        return load_tokenizer(path, own_limit=True)


class SpladePooling(_Class):
    """Pooling of vocabulary logits."""

    of = splade_pooling.SpladePooling

    @staticmethod
    def build(
        pooling_strategy: str = "max", activation_function: str = "relu", embedding_dimension: int | None = None
    ) -> splade_pooling.SpladePooling:
        """Return the module; raise ValueError for an unknown strategy or activation."""
        if pooling_strategy not in ("max", "sum") or activation_function not in ("relu", "log1p_relu"):
            raise ValueError(
                f"unknown SPLADE pooling {pooling_strategy!r} with activation {activation_function!r}; expected max or "
                "sum, and relu or log1p_relu"
            )
        return splade_pooling.SpladePooling(
            pooling_strategy == "sum", activation_function == "log1p_relu", embedding_dimension
        )


class SparseStaticEmbedding(_Class):
    """One weight per token, for queries that need no transformer."""

    of = sparse_static_embedding.SparseStaticEmbedding

    @staticmethod
    def build(
        tokenizer: object,
        weight: object = None,
        frozen: bool = False,  # noqa: ARG004 - concerns training
    ) -> sparse_static_embedding.SparseStaticEmbedding:
        """Return the module of a tokenizer of transformers and weights [V], by default ones."""
        own, settings = _tokenizer_with_settings(tokenizer)
        weights = np.ones(own.vocabulary_size, np.float32) if weight is None else _array(weight)
        return sparse_static_embedding.SparseStaticEmbedding(own, weights, settings)


def _tokenizer_with_settings(tokenizer: object) -> tuple[TextTokenizer, dict[str, object]]:
    """Return the tokenizer of a static module as it is read after saving, and the content of its settings file.

    Without that file, transformers would not know the padding token. A tokenizer of tokenizers has no such settings.
    """
    if not hasattr(tokenizer, "save_pretrained"):
        return _tokenizer(tokenizer), {}
    with TemporaryDirectory() as place:
        folder = Path(place)
        tokenizer.save_pretrained(place)
        settings = dict(read_object(folder / "tokenizer_config.json"))
        paths = folder / "tokenizer.json", folder / "vocab.txt"
        limit = finite(settings.get("model_max_length"))
        return sparse_static_embedding.read_static_tokenizer(*paths, settings, limit), settings


class LogitScore(_Class):
    """A score from the logits of one or two tokens."""

    of = logit_score.LogitScore

    @staticmethod
    def build(
        true_token_id: int, false_token_id: int | None = None, module_input_name: str = "causal_logits"
    ) -> logit_score.LogitScore:
        """Return the module."""
        return logit_score.LogitScore(true_token_id, false_token_id, module_input_name)


class Router(_Class):
    """A module with one stack per task."""

    of = router.Router

    @staticmethod
    def build(
        sub_modules: Mapping[str, Sequence[Module]],
        default_route: str | None = None,
        allow_empty_key: bool = True,
        route_mappings: Mapping[tuple[str | None, str | Sequence[str] | None], str] | None = None,
    ) -> router.Router:
        """Return the module; raise ValueError without routes, and for a route that does not exist."""
        routes = {name: tuple(map(module_of, stack)) for name, stack in sub_modules.items()}
        if not routes or not all(routes.values()):
            raise ValueError("a Router needs at least one route, and each route at least one module")
        default = next(iter(routes)) if default_route is None and allow_empty_key else default_route
        mappings = {(task, _modality(modality)): name for (task, modality), name in (route_mappings or {}).items()}
        missing = sorted({name for name in (*mappings.values(), default) if name is not None} - routes.keys())
        if missing:
            raise ValueError(f"unknown routes {missing}; expected some of {sorted(routes)}")
        return router.Router(routes, default, mappings)

    @staticmethod
    def for_query_document(
        query_modules: Sequence[Module],
        document_modules: Sequence[Module],
        default_route: str | None = "document",
        allow_empty_key: bool = True,
    ) -> router.Router:
        """Return a router with the routes "query" and "document"."""
        return Router.build({"query": query_modules, "document": document_modules}, default_route, allow_empty_key)


def _modality(value: str | Sequence[str] | None) -> str | None:
    return value if value is None or isinstance(value, str) else "+".join(value)


Asym = Router
"""The old name of ``Router``."""

_FROM_CHECKPOINTS = {
    "BoW": "bow",
    "CNN": "cnn",
    "LSTM": "lstm",
    "SparseAutoEncoder": "sparse_auto_encoder",
    "WeightedLayerPooling": "weighted_layer_pooling",
    "WordEmbeddings": "word_embeddings",
    "WordWeights": "word_weights",
}
"""Classes whose modules are loaded from checkpoints only, and the files of ``st_core.modules`` that define them."""
_OWN = (
    "a module of your own implements the protocol st_core.modules.Module and is registered by st_core.modules.register"
)


def __getattr__(name: str) -> type:
    """Return a class whose modules cannot be built here."""
    if name in _FROM_CHECKPOINTS:
        own = getattr(import_module(f"st_core.modules.{_FROM_CHECKPOINTS[name]}"), name)
        return _refusing(
            name, own, "such a module is loaded from a checkpoint; build and save it with sentence-transformers"
        )
    if name == "CLIPModel":
        return _refusing(name, _Image, "models of images are not supported; use sentence-transformers")
    if name in ("InputModule", "Module"):
        return _refusing(name, _AnyModule if name == "Module" else _AnyInputModule, _OWN)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _AnyModule(ABC):  # noqa: B024 - for isinstance only
    """The type of all modules."""

    @classmethod
    def __subclasshook__(cls, kind: type) -> bool:
        return hasattr(kind, "type_path")


class _AnyInputModule(ABC):  # noqa: B024 - for isinstance only
    """The type of modules that read texts."""

    @classmethod
    def __subclasshook__(cls, kind: type) -> bool:
        return bool(getattr(kind, "reads_text", False))


class _Image:
    """The type of modules for images, of which there are none."""


@cache
def _refusing(name: str, own: type, reason: str) -> type:
    """Return a class that recognises modules of ``own``, and whose call raises ModelUnsupported."""

    def build(*_: object, **__: object) -> NoReturn:
        raise ModelUnsupported(f"a {name} cannot be built here: {reason}")

    return _Documented(
        name, (_Class,), {"of": own, "build": staticmethod(build), "__doc__": f"Cannot be built: {reason}."}
    )
