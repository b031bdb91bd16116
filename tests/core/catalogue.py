"""Tiny random checkpoints of every kind, by name, each made when it is first asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builders import (
    FLAT_TEMPLATE,
    PARTS_TEMPLATE,
    PROMPTS,
    Builder,
    adapted,
    adapter_alone,
    dense,
    folded_table,
    plain,
    reranker,
    save_idf,
    save_model2vec,
    saved_again,
    sparse,
    table,
    templated,
    with_heads,
)
from families import HIDDEN, make_transformer
from old_layouts import make_old
from once import made_once
from stacks import (
    activation,
    bag,
    coded,
    followed,
    inference_free,
    late_routes,
    layered,
    lowercased,
    on_tokens,
    parts,
    pooled,
    shared_encoder,
    sparse_static,
    splade,
    static_module,
    two_encoders,
    weighed_words,
    word_vectors,
)

BUILDERS: dict[str, Builder] = {
    "bert-mean": dense(followed(pooled("bert", "mean"), lambda names: names.Normalize())),
    "distilbert-cls": dense(
        followed(pooled("distilbert", "cls"), lambda names: names.Dense(HIDDEN, 24)), similarity_fn_name="dot"
    ),
    "roberta-six": dense(
        pooled("roberta", ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"))
    ),
    "mpnet-max": dense(
        followed(
            pooled("mpnet", "max"),
            lambda names: names.LayerNorm(HIDDEN),
            lambda names: names.Dropout(0.3),
            lambda names: names.Normalize(),
        ),
        default_prompt_name="clustering",
        truncate_dim=10,
    ),
    "xlm-roberta-weighted": dense(pooled("xlm-roberta", "weightedmean"), similarity_fn_name="euclidean"),
    "bert-two-modes": dense(pooled("bert", ("lasttoken", "mean_sqrt_len_tokens")), similarity_fn_name="manhattan"),
    "bert-residual": dense(
        followed(
            pooled("bert", "mean"),
            lambda names: names.Dense(HIDDEN, HIDDEN, activation_function=activation("GELU"), use_residual=True),
            lambda names: names.Dense(HIDDEN, 16, False, activation_function=activation("ReLU"), use_residual=True),
            lambda names: names.Dense(16, 12, activation_function=activation("Sigmoid")),
            lambda names: names.Dense(12, 9, activation_function=None),
        )
    ),
    "cased-lower": dense(lowercased),
    "bert-token-dense": dense(on_tokens),
    "bert-no-prompt": dense(pooled("bert", ("cls", "mean", "weightedmean"), include_prompt=False)),
    "static": dense(lambda _: [static_module(0, 24), parts().Normalize()]),
    "model2vec": save_model2vec(table),
    "model2vec-int8": save_model2vec(folded_table),
    "router": dense(two_encoders),
    "router-shared": dense(shared_encoder),
    "late-routes": dense(late_routes),
    "plain-bert": plain("bert", "Model"),
    "plain-masked": plain("roberta", "ForMaskedLM"),
    "plain-bert-masked": plain("bert", "ForMaskedLM"),
    "qwen3-last": dense(pooled("qwen3", "lasttoken")),
    "mistral-weighted": dense(pooled("mistral", "weightedmean")),
    "modernbert-cls": dense(followed(pooled("modernbert", "cls"), lambda names: names.Normalize())),
    "t5-mean": dense(
        followed(
            lambda made: [made.module("t5", "EncoderModel"), parts().Pooling(HIDDEN, "mean")],
            lambda names: names.Dense(HIDDEN, 16, bias=False, activation_function=None),
            lambda names: names.Normalize(),
        )
    ),
    "layers": dense(layered),
    "words": dense(weighed_words),
    "words-lstm": dense(
        lambda _: [word_vectors(), parts().LSTM(HIDDEN, 12, num_layers=2), parts().Pooling(24, ("mean", "lasttoken"))]
    ),
    "words-lstm-forward": dense(
        lambda _: [word_vectors(), parts().LSTM(HIDDEN, 12, bidirectional=False), parts().Pooling(12, "mean")]
    ),
    "words-cnn": dense(lambda _: [word_vectors(), parts().CNN(HIDDEN, 7, [1, 3, 5]), parts().Pooling(21, "mean")]),
    "bow": dense(lambda _: [bag(cumulative=True)]),
    "bow-once": dense(lambda _: [bag(cumulative=False), parts().Dense(401, 16), parts().Normalize()]),
    "csr": sparse(coded(80, k=8, k_aux=16)),
    "csr-normalized": sparse(coded(96, k=12, k_aux=16, normalize=True), max_active_dims=5),
    "lora": adapted("bert", "Model", target_modules=["query", "value", "dense"]),
    "dora": adapted("qwen3", "Model", target_modules=["q_proj", "down_proj"], use_dora=True),
    "lora-ranked": adapted("qwen3", "Model", target_modules=["q_proj", "down_proj"], use_rslora=True),
    "lora-alone": adapter_alone,
    "bge-m3": with_heads(followed(pooled("xlm-roberta", "cls"), lambda names: names.Normalize())),
    "gpt2-last": dense(pooled("gpt2", "lasttoken")),
    "plain-qwen2": plain("qwen2", "ForCausalLM"),
    "plain-llama": plain("llama", "ForCausalLM"),
    "plain-t5": plain("t5", "ForConditionalGeneration"),
    "plain-mt5": plain("mt5", "EncoderModel"),
    "plain-umt5": plain("umt5", "ForConditionalGeneration"),
    "plain-modernbert": plain("modernbert", "ForMaskedLM"),
    "chat-flat": templated("qwen2", "ForCausalLM", FLAT_TEMPLATE),
    "chat-parts": saved_again("SentenceTransformer", templated("qwen3", "Model", PARTS_TEMPLATE), prompts=PROMPTS),
    "splade-max": sparse(splade("bert", "max", "relu")),
    "splade-sum": sparse(splade("distilbert", "sum", "log1p_relu"), max_active_dims=20),
    "splade-roberta": sparse(splade("roberta", "max", "log1p_relu")),
    "splade-mpnet": sparse(splade("mpnet", "sum", "relu"), similarity_fn_name="cosine"),
    "splade-modernbert": sparse(splade("modernbert", "max", "relu")),
    "sparse-static": sparse(lambda _: [sparse_static("bert")]),
    "sparse-router": sparse(inference_free),
    "idf": save_idf,
    "rerank-bert": reranker("bert", 1, prompts={"query": "search: "}),
    "rerank-roberta": reranker("roberta", 3),
    "rerank-short": reranker("xlm-roberta", 1, max_length=40),
    "rerank-plain": plain("bert", "ForSequenceClassification", num_labels=1),
    "rerank-plain-three": plain("mpnet", "ForSequenceClassification", num_labels=3),
    "rerank-identity": plain(
        "distilbert",
        "ForSequenceClassification",
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        num_labels=1,
    ),
    "rerank-modernbert": reranker("modernbert", 1),
    "rerank-qwen2": reranker("qwen2", 1),
    "rerank-causal": plain("qwen2", "ForCausalLM"),
    "rerank-template": templated("qwen2", "ForCausalLM", FLAT_TEMPLATE),
    "rerank-saved": saved_again(
        "CrossEncoder", templated("qwen2", "ForCausalLM", PARTS_TEMPLATE), prompts={"query": "Find what helps: "}
    ),
    "rerank-nested": plain(
        "roberta",
        "ForSequenceClassification",
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "4.0.0"}},
        num_labels=1,
    ),
}


class Checkpoints:
    """Folders by name, each made when it is first asked for, and the models loaded from them, each loaded once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loaded: dict[tuple[Any, ...], Any] = {}

    def folder(self, name: str) -> Path:
        """The checkpoint ``name``, or with the suffix ``-old`` the same in the oldest layout."""
        if name.endswith("-old"):
            return made_once(self.root / name, lambda folder: make_old(self.folder(name.removesuffix("-old")), folder))
        return made_once(self.root / name, lambda folder: BUILDERS[name](self, folder))

    def transformer(self, kind: str, head: str = "Model", **config: Any) -> Path:
        """A plain Hugging Face folder of a family."""
        name = "-".join(["hf", kind, head, *(f"{key}-{value}" for key, value in config.items())])
        return made_once(self.root / name, lambda folder: make_transformer(kind, head, folder, **config))

    def module(self, kind: str, head: str = "Model", **options: Any) -> Any:
        """sentence-transformers' Transformer module of such a folder."""
        from sentence_transformers.base.modules import Transformer

        return Transformer(str(self.transformer(kind, head)), **options)

    def pair(self, kind: str, name: str, **options: Any) -> tuple[Any, Any]:
        """The oracle's model and this engine's from one checkpoint."""
        import sentence_transformers

        import st_core

        return self.load(sentence_transformers, kind, name, **options), self.load(st_core, kind, name, **options)

    def own_pair(self, kind: str, name: str) -> tuple[Any, Any]:
        """The models of ``pair``, loaded for one test that changes their weights, buffers or modes."""
        import sentence_transformers

        import st_core

        theirs, ours = (getattr(engine, kind) for engine in (sentence_transformers, st_core))
        return theirs(str(self.folder(name)), device="cpu"), ours(str(self.folder(name)), device="cpu")

    def load(self, engine: Any, kind: str, name: str, **options: Any) -> Any:
        """A model of class ``kind`` from the checkpoint ``name``, on the processor."""
        key = (engine.__name__, kind, name, json.dumps(options, sort_keys=True, default=str))
        if key not in self.loaded:
            self.loaded[key] = getattr(engine, kind)(str(self.folder(name)), device="cpu", **options)
        return self.loaded[key]
