"""Encoder families that are read without the transformers library: names of their parts and configuration keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from st_core.backends.torch.encoder import FORMS

__all__ = ["ACTIVATIONS", "FAMILIES", "KEYS", "USUAL", "Family"]


@dataclass(frozen=True, slots=True)
class Family:
    """The names of the parts of a model family and the configuration keys of its sizes.

    ``scores`` and ``words`` name the parts of the classification head and of the vocabulary head; ``{base}`` stands for
    the prefix of the encoder. ``from_padding`` is whether positions are counted from the padding id plus one.
    ``epsilon`` is None where the configuration contains it.
    """

    prefix: str
    form: Mapping[str, str]
    scores: tuple[str, type[nn.Module], str]
    words: tuple[str, str, str, str]
    sizes: tuple[str, str, str, str] = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    act: str = "hidden_act"
    word_act: str | None = None
    epsilon: float | None = None
    typed: bool = True
    from_padding: bool = False


_BERT = Family(
    "bert",
    FORMS[0],
    ("{base}pooler.dense", nn.Tanh, "classifier"),
    (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder.weight",
        "cls.predictions.bias",
    ),
)
_ROBERTA = Family(
    "roberta",
    FORMS[0],
    ("classifier.dense", nn.Tanh, "classifier.out_proj"),
    ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder.weight", "lm_head.bias"),
    word_act="gelu",
    from_padding=True,
)
_DISTILBERT = Family(
    "distilbert",
    FORMS[2],
    ("pre_classifier", nn.ReLU, "classifier"),
    ("vocab_transform", "vocab_layer_norm", "vocab_projector.weight", "vocab_projector.bias"),
    ("dim", "hidden_dim", "n_layers", "n_heads"),
    "activation",
    epsilon=1e-12,
    typed=False,
)
FAMILIES = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}

USUAL: Mapping[str, object] = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "is_decoder": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
    "return_dict": True,
    "sinusoidal_pos_embds": False,
    "tie_word_embeddings": True,
    "torchscript": False,
}
"""Configuration keys that change the computation, with the only value supported here."""

KEYS = frozenset(
    (
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "attention_probs_dropout_prob",
        "bos_token_id",
        "classifier_dropout",
        "directionality",
        "dropout",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "gradient_checkpointing",
        "hidden_dropout_prob",
        "id2label",
        "initializer_range",
        "label2id",
        "language",
        "layer_norm_eps",
        "max_position_embeddings",
        "model_type",
        "num_labels",
        "output_past",
        "pad_token_id",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        "problem_type",
        "qa_dropout",
        "sbert_ce_default_activation_function",
        "sentence_transformers",
        "seq_classif_dropout",
        "tie_weights_",
        "torch_dtype",
        "transformers_version",
        "type_vocab_size",
        "use_cache",
        "vocab_size",
    )
)
"""Configuration keys that are read here or have no effect on inference."""
