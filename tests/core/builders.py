"""What saves a checkpoint into a folder: by sentence-transformers, or by hand in the form of other libraries."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from families import HIDDEN, make_tokenizer, shake
from old_layouts import edit, write
from stacks import parts, sparse_static

if TYPE_CHECKING:
    from catalogue import Checkpoints

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
    """Save a dense model with a random PEFT adapter: the adapter alone, and its model's name."""

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
