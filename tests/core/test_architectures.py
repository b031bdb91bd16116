"""Less common architectures with random weights give sentence-transformers' vectors.

Some look like BERT and are not, some have heads that do more than one product: the engine's own forward pass and its
way through the vocabulary have to be found wrong when the model is loaded, and the library's own pass to take their
place.
"""

from __future__ import annotations

import logging

import numpy as np
import pytest
from families import make_tokenizer

import st_core

torch = pytest.importorskip("torch", reason="needs torch")
oracle = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

pytestmark = [pytest.mark.torch, pytest.mark.long]

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
}
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4}
BART = {
    "d_model": 32,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
}
MASKED = {
    "albert": {"embedding_size": 16},
    "bart": BART,
    "big_bird": {"attention_type": "original_full"},
    "convbert": {"embedding_size": 32, "conv_kernel_size": 3, "head_ratio": 2, "num_groups": 1},
    "data2vec-text": {},
    "deberta": {},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "esm": {"mask_token_id": 4},
    "eurobert": {},
    "fnet": {},
    "ibert": {},
    "layoutlm": {},
    "longformer": {"attention_window": [8, 8]},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "megatron-bert": {},
    "mobilebert": {
        "embedding_size": 16,
        "intra_bottleneck_size": 32,
        "true_hidden_size": 32,
        "num_feedforward_networks": 1,
        "key_query_shared_bottleneck": True,
        "use_bottleneck": True,
    },
    "nystromformer": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta-prelayernorm": {},
    "roc_bert": {},
    "roformer": {"embedding_size": 32, "type_vocab_size": 2},
    "xlm": XLM,
    "xlm-roberta-xl": {},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX", "adapter_reduction_factor": 2},
}
DECODERS = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {},
    "gemma": {"head_dim": 8, "num_key_value_heads": 2},
    "gemma3_text": {"head_dim": 8, "num_key_value_heads": 2},
    "gpt_neox": {},
    "olmo": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi3": {},
}
MIXING = {"convbert", "fnet", "mobilebert", "nystromformer"}
"""Architectures that mix positions outside attention, where padding changes sentence-transformers' vectors."""
TEXTS = [
    "copy a directory tree",
    "boil",
    "heat moves fast over a flat plate, and more of it where the air is thin",
    "a b",
]


@pytest.fixture
def folder(checkpoints, tmp_path):
    """Makes a transformer of a kind with a head and saves it with a tokenizer."""
    from transformers import AutoConfig, AutoTokenizer
    from transformers import __dict__ as library

    def made(kind, head, **more):
        tokenizer = AutoTokenizer.from_pretrained(checkpoints.transformer("bert"), model_max_length=64)
        sizes = SMALL | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | more
        torch.manual_seed(3)
        model = library[f"AutoModel{head}"].from_config(AutoConfig.for_model(kind, **sizes))
        for weight in model.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, 0, 0.2)
        model.save_pretrained(tmp_path / "transformer")
        tokenizer.save_pretrained(tmp_path / "transformer")
        return str(tmp_path / "transformer")

    return made


def both(theirs, kind, tmp_path):
    """sentence-transformers' model, saved and loaded again there and here."""
    theirs.save_pretrained(str(tmp_path / "model"))
    path = str(tmp_path / "model")
    return getattr(oracle, kind)(path, device="cpu"), getattr(st_core, kind)(path, device="cpu")


def alone(encode, inputs):
    """What each input gets where it is alone in its call."""
    found = [encode([each]) for each in inputs]
    return np.concatenate([np.asarray(each.to_dense() if hasattr(each, "to_dense") else each) for each in found])


def agree_with(ours, theirs, kind, inputs, agree, scale=1e-5):
    """The numbers of both, in one call.

    Of a model that mixes positions, those of each input alone, here in one call all the same.
    """
    agree(ours(inputs), alone(theirs, inputs) if kind in MIXING else theirs(inputs), scale)
    agree(ours(inputs), alone(ours, inputs), scale)


@pytest.mark.parametrize("kind", MASKED)
def test_any_masked_language_model_is_a_sparse_encoder(folder, tmp_path, agree, caplog, kind):
    """Also where the vocabulary's matrix is not all of the head, which is said then."""
    from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling

    made = [MLMTransformer(folder(kind, "ForMaskedLM", **MASKED[kind])), SpladePooling("max")]
    with caplog.at_level(logging.WARNING, "st_core"):
        theirs, ours = both(oracle.SparseEncoder(modules=made, device="cpu"), "SparseEncoder", tmp_path)

    agree_with(ours.encode, theirs.encode, kind, TEXTS, agree, 2e-5)
    assert ("all tokens at once" in caplog.text) == (kind in {"bart", "esm", "mobilebert"})


@pytest.mark.parametrize("kind", [*MASKED, *DECODERS])
def test_any_model_is_a_dense_encoder(folder, tmp_path, agree, kind):
    """The mean of the states of a model without a head."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(folder(kind, "", **(MASKED | DECODERS)[kind]))
    made = [transformer, Pooling(transformer.get_embedding_dimension(), "mean")]
    theirs, ours = both(oracle.SentenceTransformer(modules=made, device="cpu"), "SentenceTransformer", tmp_path)

    agree_with(ours.encode, theirs.encode, kind, TEXTS, agree)


@pytest.mark.parametrize(
    "kind", ["convbert", "deberta-v2", "electra", "layoutlm", "longformer", "luke", "mobilebert", "rembert", "roformer"]
)
def test_any_classifier_is_a_cross_encoder(folder, tmp_path, agree, kind):
    """Those of the above that look like BERT, with a head."""
    made = folder(kind, "ForSequenceClassification", num_labels=1, **MASKED[kind])
    theirs, ours = both(oracle.CrossEncoder(made, device="cpu"), "CrossEncoder", tmp_path)
    pairs = [("where is heat", text) for text in TEXTS]

    agree_with(ours.predict, theirs.predict, kind, pairs, agree)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("kind", ["bart", "convbert", "deberta-v2", "electra", "esm", "mobilebert", "nystromformer"])
def test_other_models_as_graphs(folder, tmp_path, agree, kind, backend):
    """The trace of the library's own pass gives sentence-transformers' numbers."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(backend, backend), reason=f"needs the runtime of {backend}")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(folder(kind, "", **MASKED[kind]))
    made = [transformer, Pooling(transformer.get_embedding_dimension(), "mean")]
    theirs = oracle.SentenceTransformer(modules=made, device="cpu")
    theirs.save_pretrained(str(tmp_path / "model"))

    ours = st_core.SentenceTransformer(str(tmp_path / "model"), backend=backend)

    agree_with(ours.encode, theirs.encode, kind, TEXTS, agree)


def test_what_a_runtime_cannot_compute_is_told(folder, tmp_path):
    """OpenVINO 2026.4 does not convert all operations of FNet."""
    pytest.importorskip("openvino", reason="needs OpenVINO")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    made = [Transformer(folder("fnet", "")), Pooling(32, "mean")]
    oracle.SentenceTransformer(modules=made, device="cpu").save_pretrained(str(tmp_path / "model"))

    with pytest.raises(
        st_core.ModelUnsupported,
        match=r"model: openvino has no graph of it; load it with backend='torch' \(.*converted",
    ) as told:
        st_core.SentenceTransformer(str(tmp_path / "model"), backend="openvino")

    assert "\n" not in str(told.value)


LONG = [" ".join(["how", "to", "copy", "a", "tree", "of", "words", "42"] * count) for count in (30, 5, 1)]
"""Texts that reach beyond the windows of the models below, and one that does not."""

WINDOWED = {
    "longformer": {"attention_window": [64, 64], "max_position_embeddings": 602},
    "mpnet": {"max_position_embeddings": 602},
    "ernie": {"max_position_embeddings": 602},
    "data2vec-text": {"max_position_embeddings": 602},
    "roc_bert": {"max_position_embeddings": 602},
}


@pytest.mark.parametrize("kind", WINDOWED)
def test_texts_longer_than_a_window_have_the_librarys_vectors(folder, tmp_path, agree, kind):
    """Longformer looked like full attention to a short probe: beyond half its window the vectors were wrong."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(folder(kind, "", **WINDOWED[kind]), max_seq_length=500)
    made = [transformer, Pooling(transformer.get_embedding_dimension(), "mean")]
    theirs, ours = both(oracle.SentenceTransformer(modules=made, device="cpu"), "SentenceTransformer", tmp_path)

    assert max(len(each) for each in theirs.tokenizer(LONG)["input_ids"]) > 200
    agree(ours.encode(LONG), theirs.encode(LONG))


def test_block_sparse_attention_has_the_librarys_vectors(folder, tmp_path, agree):
    """BigBird attends to blocks beyond (5 + 2 · 3) · 8 tokens; a shorter text would turn that off for good."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    sizes = {"attention_type": "block_sparse", "block_size": 8, "num_random_blocks": 3, "max_position_embeddings": 602}
    transformer = Transformer(folder("big_bird", "", **sizes), max_seq_length=500)
    made = [transformer, Pooling(32, "mean")]
    theirs, ours = both(oracle.SentenceTransformer(modules=made, device="cpu"), "SentenceTransformer", tmp_path)

    agree(ours.encode(LONG[:1]), theirs.encode(LONG[:1]))


def test_mobilebert_of_its_real_sizes_loads(tmp_path, agree):
    """Its queries and values have different widths, at which the fast pass failed with a RuntimeError."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import MobileBertConfig, MobileBertModel

    tokenizer = make_tokenizer("bert")
    torch.manual_seed(5)
    MobileBertModel(MobileBertConfig(num_hidden_layers=2)).save_pretrained(tmp_path / "transformer")
    tokenizer.save_pretrained(tmp_path / "transformer")
    made = [Transformer(str(tmp_path / "transformer")), Pooling(512, "mean")]
    theirs, ours = both(oracle.SentenceTransformer(modules=made, device="cpu"), "SentenceTransformer", tmp_path)

    agree_with(ours.encode, theirs.encode, "mobilebert", TEXTS[:4], agree)
