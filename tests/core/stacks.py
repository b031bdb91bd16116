"""Modules of sentence-transformers with random numbers, in the lists that models are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from families import HIDDEN, documentation, make_tokenizer, shake

if TYPE_CHECKING:
    from catalogue import Checkpoints


def parts() -> Any:
    """sentence-transformers' module classes, by name."""
    from types import SimpleNamespace

    import sentence_transformers.base.modules as base
    import sentence_transformers.sentence_transformer.modules as dense_modules
    import sentence_transformers.sparse_encoder.modules as sparse_modules

    return SimpleNamespace(**vars(base) | vars(sparse_modules) | vars(dense_modules))


def pooled(kind: str, modes: Any, **options: Any) -> Callable[[Checkpoints], list[Any]]:
    """A transformer and a pooling."""
    return lambda made: [made.module(kind), parts().Pooling(HIDDEN, modes, **options)]


def followed(first: Callable[[Checkpoints], list[Any]], *names: Any) -> Callable[[Checkpoints], list[Any]]:
    """More modules after some; each is a function of the classes."""
    return lambda made: [*first(made), *(name(parts()) for name in names)]


def static_module(seed: int, dimension: int) -> Any:
    """A StaticEmbedding over the byte-pair tokenizer."""
    backend = make_tokenizer("roberta").backend_tokenizer
    weights = np.random.default_rng(seed).normal(size=(backend.get_vocab_size(), dimension)).astype(np.float32)
    return parts().StaticEmbedding(backend, embedding_weights=weights)


def term_weights(size: int) -> Any:
    """Positive weights of a vocabulary."""
    import torch

    return torch.from_numpy(np.random.default_rng(5).gamma(2.0, size=size).astype(np.float32))


def words() -> list[str]:
    """Ordinary words, some with a capital, as a vocabulary of word vectors has them; the first stands for nothing."""
    found = dict.fromkeys(word for text in documentation() for word in text.split() if word.isalpha())
    return ["PADDING_TOKEN", *list(found)[:400]]


def word_vectors(_: Checkpoints | None = None) -> Any:
    """WordEmbeddings with stop words, 20 words of a text at most."""
    from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

    known = words()
    table = np.random.default_rng(8).normal(size=(len(known), HIDDEN)).astype(np.float32)
    tokenizer = WhitespaceTokenizer(known, stop_words=["the", "of"])
    return parts().WordEmbeddings(tokenizer, table, max_seq_length=20)


def weighed_words(made: Checkpoints) -> list[Any]:
    """Word vectors under weights, those of a few words given, pooled in the ways that weights matter to."""
    known = words()
    given = {word.lower(): 0.5 + len(word) / 7 for word in known[1:200]}
    modes = ("mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    return [word_vectors(made), parts().WordWeights(known, given, 0.25), parts().Pooling(HIDDEN, modes)]


def bag(cumulative: bool) -> Any:
    """A BoW with weights for some words."""
    known = words()
    given = {word.lower(): len(word) / 3 for word in known[:200]}
    return parts().BoW(known, given, unknown_word_weight=0.5, cumulative_term_frequency=cumulative)


def coded(hidden: int, **options: Any) -> Callable[[Checkpoints], list[Any]]:
    """A dense stack with a SparseAutoEncoder behind it."""
    return lambda made: [*pooled("bert", "mean")(made), shake(parts().SparseAutoEncoder(HIDDEN, hidden, **options))]


def layered(made: Checkpoints) -> list[Any]:
    """A transformer that gives all its layers, and their weighted mean."""
    names = parts()
    give_all = {"config_kwargs": {"output_hidden_states": True}}
    layers = names.WeightedLayerPooling(HIDDEN, num_hidden_layers=2, layer_start=1)
    return [made.module("roberta", **give_all), layers, names.Pooling(HIDDEN, "mean")]


def sparse_static(kind: str) -> Any:
    """A SparseStaticEmbedding with its own tokenizer."""
    tokenizer = make_tokenizer(kind)
    return parts().SparseStaticEmbedding(tokenizer, weight=term_weights(len(tokenizer)))


def lowercased(made: Checkpoints) -> list[Any]:
    """A cased model that is told to lower its texts and to read 16 tokens of them."""
    return [made.module("cased", do_lower_case=True, max_seq_length=16), parts().Pooling(HIDDEN, "mean")]


def on_tokens(made: Checkpoints) -> list[Any]:
    """A Dense between transformer and pooling."""
    narrow = parts().Dense(HIDDEN, 12, module_input_name="token_embeddings", module_output_name="token_embeddings")
    return [made.module("bert"), narrow, parts().Pooling(12, "mean")]


def two_encoders(made: Checkpoints) -> list[Any]:
    """Queries by a static model, documents by a transformer, both normalised."""
    names = parts()
    query = [static_module(3, 20), names.Dense(20, HIDDEN)]
    document = [made.module("bert"), names.Pooling(HIDDEN, "mean")]
    shake(query[1])
    return [names.Router.for_query_document(query, document), names.Normalize()]


def shared_encoder(made: Checkpoints) -> list[Any]:
    """One transformer for both routes, with a Dense for each; no route without a task."""
    names = parts()
    shared = [made.module("distilbert"), names.Pooling(HIDDEN, "cls")]
    ends = [shake(names.Dense(HIDDEN, 16)), shake(names.Dense(HIDDEN, 16))]
    routes = {"query": [*shared, ends[0]], "document": [*shared, ends[1]]}
    return [names.Router(routes, allow_empty_key=False)]


def late_routes(made: Checkpoints) -> list[Any]:
    """A transformer, then a Dense for each task: what was called Asym."""
    names = parts()
    routes = {name: [shake(names.Dense(HIDDEN, 16))] for name in ("query", "document")}
    routes["document"][0].linear.weight.data *= -1
    return [made.module("bert"), names.Pooling(HIDDEN, "mean"), names.Router(routes, default_route="document")]


def splade(kind: str, strategy: str, activation: str) -> Callable[[Checkpoints], list[Any]]:
    """A masked language model and SpladePooling."""
    return lambda made: [
        made.module(kind, "ForMaskedLM", transformer_task="fill-mask"),
        parts().SpladePooling(strategy, activation),
    ]


def inference_free(made: Checkpoints) -> list[Any]:
    """Queries by a table of weights, documents by SPLADE."""
    document = splade("bert", "max", "log1p_relu")(made)
    return [parts().Router.for_query_document([sparse_static("bert")], document)]


def activation(name: str) -> Any:
    """A torch activation module."""
    import torch

    return getattr(torch.nn, name)()
